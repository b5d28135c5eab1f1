package kvtest

import (
	"context"
	"fmt"
	"time"

	"github.com/kvrecipes/kv"
)

var batchCases = []testCase{
	{
		name:     "Batch",
		contract: "Batch: each operation succeeds or fails alone, and the error is only for what stopped the whole call.",
		run: func(e *env) {
			e.set("text", "x", kv.NoExpiry)
			e.set("n", "41", kv.NoExpiry)
			results, err := e.store.Batch(e.ctx,
				kv.OpGet("text"), kv.OpGet("missing"),
				kv.OpIncr("n", 1, 0), kv.OpIncr("text", 1, 0),
				kv.OpSet("new", "v", 0), kv.OpSetNX("new", "w", 0), kv.OpSetNX("newer", "w", 0),
				kv.OpExpire("n", time.Hour), kv.OpExpire("missing", time.Hour),
				kv.OpDelete("text"), kv.OpDelete("missing"), kv.OpGet("text"), kv.OpGet("new"),
			)
			e.NoError(err)
			e.ErrorIs(results[3].Err, kv.ErrNotInteger)
			results[3].Err = nil
			e.Equal([]kv.Result{
				{Value: "x", OK: true}, {},
				{Int: 42, OK: true}, {},
				{OK: true}, {}, {OK: true},
				{OK: true}, {},
				{OK: true}, {}, {}, {Value: "v", OK: true},
			}, results)
			e.value("n", "42")
			e.value("newer", "w")
			e.False(e.entry("n").ExpiresAt.IsZero())
			results, err = e.store.Batch(e.ctx)
			e.NoError(err)
			e.Empty(results)
		},
	},
	{
		name:     "Batch/of one key",
		contract: "Batch: operations on the same key apply in order.",
		run: func(e *env) {
			var ops []kv.Op
			for i := range 200 {
				ops = append(ops, kv.OpSet("key", fmt.Sprint(i), 0), kv.OpGet("key"), kv.OpIncr("key", 1000, 0))
			}
			results, err := e.store.Batch(e.ctx, ops...)
			e.NoError(err)
			for i := range 200 {
				e.Equal(fmt.Sprint(i), results[3*i+1].Value)
				e.EqualValues(i+1000, results[3*i+2].Int)
			}
		},
	},
	{
		name:     "Batch/results in order",
		contract: "Batch: result i belongs to ops[i].",
		run: func(e *env) {
			keys := e.fill("key", 1000)
			ops := make([]kv.Op, 0, 2*len(keys))
			for _, key := range keys {
				ops = append(ops, kv.OpGet(key), kv.OpGet("missing "+key))
			}
			results, err := e.store.Batch(e.ctx, ops...)
			e.NoError(err)
			e.Len(results, len(ops))
			for i := range keys {
				e.Equal(kv.Result{Value: fmt.Sprint(i), OK: true}, results[2*i])
				e.Equal(kv.Result{}, results[2*i+1])
			}
		},
	},
}

var txnCases = []testCase{
	{
		name:     "Txn",
		contract: "Operations apply in order and see the ones before them.",
		run: func(e *env) {
			a, b, c := e.key("a"), e.key("b"), e.key("c")
			e.set(a, "1", kv.NoExpiry)
			ok, results, err := e.store.Txn(e.ctx, nil,
				kv.OpIncr(a, 1, 0), kv.OpGet(a), kv.OpSet(b, "x", 0), kv.OpGet(b), kv.OpSetNX(b, "y", 0),
				kv.OpDelete(b), kv.OpGet(b), kv.OpDelete(b), kv.OpSetNX(b, "z", 0), kv.OpGet(b),
				kv.OpExpire(c, time.Hour), kv.OpSet(c, "c", 0), kv.OpExpire(c, time.Hour), kv.OpGet(e.key("missing")),
			)
			e.NoError(err)
			e.True(ok)
			e.Equal([]kv.Result{
				{Int: 2, OK: true}, {Value: "2", OK: true}, {OK: true}, {Value: "x", OK: true}, {},
				{OK: true}, {}, {}, {OK: true}, {Value: "z", OK: true},
				{}, {OK: true}, {OK: true}, {},
			}, results)
			e.value(a, "2")
			e.value(b, "z")
			e.False(e.entry(c).ExpiresAt.IsZero())
		},
	},
	{
		name:     "Txn/conditions",
		contract: "ok is false and results nil when a condition does not hold, and then nothing is applied.",
		run: func(e *env) {
			a, empty, none := e.key("a"), e.key("empty"), e.key("none")
			e.set(a, "1", kv.NoExpiry)
			e.set(empty, "", kv.NoExpiry)
			for _, c := range []struct {
				cond kv.Cond
				want bool
			}{
				{kv.IfValue(a, "1"), true}, {kv.IfValue(a, "2"), false}, {kv.IfValue(a, ""), false},
				{kv.IfValue(none, ""), false}, {kv.IfValue(empty, ""), true},
				{kv.IfExists(a), true}, {kv.IfExists(empty), true}, {kv.IfExists(none), false},
				{kv.IfAbsent(a), false}, {kv.IfAbsent(empty), false}, {kv.IfAbsent(none), true},
			} {
				for _, conds := range [][]kv.Cond{{c.cond}, {kv.IfExists(a), c.cond}, {c.cond, kv.IfExists(a)}} {
					ok, results, err := e.store.Txn(e.ctx, conds, kv.OpSet(e.key("done"), "v", 0), kv.OpDelete(e.key("done")))
					e.NoError(err)
					e.Equalf(c.want, ok, "%+v", conds)
					if c.want {
						e.Len(results, 2)
					} else {
						e.Nil(results)
					}
					ok, _, err = e.store.Txn(e.ctx, conds)
					e.NoError(err)
					e.Equalf(c.want, ok, "%+v without operations", conds)
				}
			}
		},
	},
	{
		name:     "Txn/nothing is applied",
		contract: "ok is false and results nil when a condition does not hold, and then nothing is applied.",
		run: func(e *env) {
			a, b, c := e.key("a"), e.key("b"), e.key("c")
			e.set(a, "1", time.Hour)
			before := e.entry(a)
			ok, results, err := e.store.Txn(e.ctx, []kv.Cond{kv.IfValue(a, "1"), kv.IfExists(b)},
				kv.OpSet(a, "2", 0), kv.OpSet(b, "2", 0), kv.OpIncr(c, 1, 0), kv.OpExpire(a, 2*time.Hour), kv.OpDelete(a))
			e.NoError(err)
			e.False(ok)
			e.Nil(results)
			e.sameEntry(before, e.entry(a))
			e.absent(b, c)
		},
	},
	{
		name:     "Txn/failing operation",
		contract: "an operation that would fail (ErrNotInteger...) fails the whole transaction.",
		run: func(e *env) {
			a, b, text, full := e.key("a"), e.key("b"), e.key("text"), e.key("full")
			e.NoError(e.store.Put(e.ctx, kv.Entry{Key: a, Value: "1", Metadata: someMetadata, ExpiresAt: e.now().Add(time.Hour)}))
			e.set(text, "x", kv.NoExpiry)
			e.set(full, "9223372036854775807", kv.NoExpiry)
			before := e.entry(a)
			for _, c := range []struct {
				op   kv.Op
				want error
			}{{kv.OpIncr(text, 1, 0), kv.ErrNotInteger}, {kv.OpIncr(full, 1, 0), kv.ErrOverflow}} {
				ok, results, err := e.store.Txn(e.ctx, []kv.Cond{kv.IfExists(a)},
					kv.OpSet(a, "2", 0), kv.OpExpire(a, 2*time.Hour), kv.OpSet(b, "2", 0), kv.OpDelete(text), kv.OpSet(text, "x", 0),
					c.op, kv.OpSet(b, "3", 0))
				e.ErrorIs(err, c.want)
				e.named(err, "txn", c.op.Key)
				e.False(ok)
				e.Nil(results)
				e.sameEntry(before, e.entry(a))
				e.value(text, "x")
				e.absent(b)
			}
			_, _, err := e.store.Txn(e.ctx, nil, kv.OpSet(b, "not a number", 0), kv.OpIncr(b, 1, 0))
			e.ErrorIs(err, kv.ErrNotInteger, "an operation sees what the ones before it have written")
			e.absent(b)
			_, _, err = e.store.Txn(e.ctx, nil, kv.OpSetNX(text, "5", 0), kv.OpIncr(text, 1, 0))
			e.ErrorIs(err, kv.ErrNotInteger, "an operation sees that another has written nothing")
			ok, results, err := e.store.Txn(e.ctx, nil, kv.OpDelete(text), kv.OpIncr(text, 5, 0), kv.OpDelete(full), kv.OpIncr(full, 1, 0))
			e.NoError(err, "an operation sees what the ones before it have deleted")
			e.True(ok)
			e.EqualValues(5, results[1].Int)
			e.EqualValues(1, results[3].Int)
		},
	},
	{
		name:     "Txn/keeps and drops",
		contract: "Operations apply as Get, Set, SetNX, Incr, Expire and Delete do.",
		run: func(e *env) {
			a := e.key("a")
			e.NoError(e.store.Put(e.ctx, kv.Entry{Key: a, Value: "1", Metadata: someMetadata, ExpiresAt: e.now().Add(time.Hour)}))
			txn := func(ops ...kv.Op) func() {
				return func() {
					ok, _, err := e.store.Txn(e.ctx, nil, ops...)
					e.NoError(err)
					e.True(ok)
				}
			}
			e.keeps(a, txn(kv.OpIncr(a, 1, 2*time.Hour), kv.OpSetNX(a, "x", 0), kv.OpExpire(a, kv.KeepTTL)))
			e.Equal(someMetadata, e.entry(a).Metadata)
			e.keeps(a, txn(kv.OpSet(a, "9", kv.KeepTTL)))
			e.Empty(e.entry(a).Metadata)
			e.gives(a, 3*time.Hour, txn(kv.OpDelete(a), kv.OpIncr(a, 1, 3*time.Hour), kv.OpIncr(a, 1, time.Hour)))
			txn(kv.OpDelete(a), kv.OpSet(a, "1", kv.KeepTTL))()
			e.persists(a)
			e.gives(a, time.Hour, txn(kv.OpSet(a, "1", 0), kv.OpExpire(a, time.Hour)))
		},
	},
	{
		name:     "Txn/many keys",
		contract: "Txn: all or nothing and isolated, across any keys in memory.",
		run: func(e *env) {
			const n = 1000
			ops, conds := make([]kv.Op, n), make([]kv.Cond, n)
			for i := range n {
				key := e.key(fmt.Sprint("account", i))
				ops[i], conds[i] = kv.OpIncr(key, int64(i), 0), kv.IfAbsent(key)
			}
			ok, _, err := e.store.Txn(e.ctx, conds, ops...)
			e.NoError(err)
			e.True(ok)
			ok, _, err = e.store.Txn(e.ctx, conds, ops...)
			e.NoError(err)
			e.False(ok)
			for i := range n {
				e.value(ops[i].Key, fmt.Sprint(i))
			}
		},
	},
	{
		name:     "Txn/cancelled",
		contract: "A cancelled ctx never leaves a half-done write behind.",
		run: func(e *env) {
			a, b := e.key("a"), e.key("b")
			for range 50 {
				ctx, cancel := context.WithCancel(e.ctx)
				cancelled := make(chan struct{})
				go func() {
					defer close(cancelled)
					cancel()
				}()
				_, _, _ = e.store.Txn(ctx, nil, kv.OpIncr(a, 1, 0), kv.OpIncr(b, 1, 0)) // it may fail, or have no known outcome
				<-cancelled
				ok, results, err := e.store.Txn(e.ctx, nil, kv.OpGet(a), kv.OpGet(b))
				e.NoError(err)
				e.True(ok)
				e.Equal(results[0], results[1])
			}
		},
	},
	{
		name:     "Txn/cross slot",
		contract: "On a Valkey cluster all keys must share a hash slot: ErrCrossSlot otherwise.",
		when:     func(h Harness) bool { return h.OneSlot },
		run: func(e *env) {
			ok, results, err := e.store.Txn(e.ctx, nil, kv.OpSet("{a}", "v", 0), kv.OpSet("{b}", "v", 0))
			e.ErrorIs(err, kv.ErrCrossSlot)
			e.False(ok)
			e.Nil(results)
			_, _, err = e.store.Txn(e.ctx, []kv.Cond{kv.IfAbsent("{a}")}, kv.OpSet("{b}", "v", 0))
			e.ErrorIs(err, kv.ErrCrossSlot)
			e.absent("{a}", "{b}")
		},
	},
}
