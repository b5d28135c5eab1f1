package kvtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kvrecipes/kv"
)

// ignoreMiss returns err, nil if it says that a key is not there.
func ignoreMiss(err error) error {
	if errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrCrossSlot) { // a transaction with "good", on a cluster
		return nil
	}
	return err
}

// ignoreClosed returns err, nil if it says that the store is closed.
func ignoreClosed(err error) error {
	if errors.Is(err, kv.ErrClosed) {
		return nil
	}
	return err
}

// named checks that err is an *Error of op on key.
func (e *env) named(err error, op, key string) {
	var named *kv.Error
	e.ErrorAsf(err, &named, "%s", op)
	e.Equal(op, named.Op)
	e.Equalf(key, named.Key, "%s", op)
	e.Contains(err.Error(), op)
	e.Equal(1, strings.Count(err.Error(), "kv: "), "wrapped more than once: %s", err)
}

const secret = "s3cr3t"

var errorCases = []testCase{
	{
		name:     "errors/name operation and key",
		contract: "Errors are sentinels for errors.Is, wrapped in *kv.Error{Op, Key string; Err error}, whose text names operation and key.",
		run: func(e *env) {
			for _, m := range keyMethods {
				err := m.call(e.ctx, e.store, "..")
				e.ErrorIs(err, kv.ErrInvalidKey, m.name)
				e.named(err, m.name, "..")
				e.Contains(err.Error(), `".."`)
			}
			for _, name := range []string{"entry", "getdelete", "getexpire", "ttl"} {
				for _, m := range keyMethods {
					if m.name == name {
						err := m.call(e.ctx, e.store, "missing")
						e.ErrorIs(err, kv.ErrNotFound, name)
						e.named(err, name, "missing")
					}
				}
			}
			e.set("text", "x", kv.NoExpiry)
			_, err := e.store.Incr(e.ctx, "text", 1, 0)
			e.named(err, "incr", "text")
			results, err := e.store.Batch(e.ctx, kv.OpIncr("text", 1, 0), kv.OpSet("", "v", 0))
			e.NoError(err)
			e.named(results[0].Err, "incr", "text")
			e.named(results[1].Err, "set", "")
			e.NoError(e.store.Set(e.ctx, e.key("text"), "x", 0))
			_, _, err = e.store.Txn(e.ctx, nil, kv.OpIncr(e.key("good"), 1, 0), kv.OpIncr(e.key("text"), 1, 0))
			e.named(err, "txn", e.key("text"))
		},
	},
	{
		name:     "errors/cut keys",
		contract: "the key quoted and cut at 64 bytes, never a value.",
		run: func(e *env) {
			long := strings.Repeat("k", 64) + strings.Repeat("L", e.longest())
			for _, m := range keyMethods {
				text := m.call(e.ctx, e.store, long).Error()
				e.Contains(text, strings.Repeat("k", 64), m.name)
				e.NotContains(text, "L", m.name)
			}
			odd := "a\"b\n\x00\xff"
			e.set(odd, "x", kv.NoExpiry)
			_, err := e.store.Incr(e.ctx, odd, 1, 0)
			e.Contains(err.Error(), fmt.Sprintf("%q", odd))
			e.NotContains(err.Error(), "\n")
		},
	},
	{
		name:     "errors/no values",
		contract: "whose text names operation and key (the key quoted and cut at 64 bytes, never a value).",
		run: func(e *env) {
			e.set("key", secret, kv.NoExpiry)
			var errs []error
			keep := func(_ any, err error) { errs = append(errs, err) }
			keep(e.store.Incr(e.ctx, "key", 1, 0))
			keep(nil, e.store.Set(e.ctx, "", secret, 0))
			keep(nil, e.store.Set(e.ctx, "key", secret, -2))
			keep(nil, e.store.Set(e.ctx, "key", strings.Repeat(secret, kv.DefaultMaxValueBytes/len(secret)+1), 0))
			keep(nil, e.store.Put(e.ctx, kv.Entry{Key: "key", Value: secret, Metadata: secret}))
			keep(e.store.CompareAndSwap(e.ctx, "..", secret, secret, 0))
			keep(e.store.CompareAndDelete(e.ctx, "..", secret))
			_, _, err := e.store.Txn(e.ctx, []kv.Cond{kv.IfValue("key", secret)}, kv.OpIncr("key", 1, 0))
			keep(nil, err)
			results, err := e.store.Batch(e.ctx, kv.OpSet("", secret, 0), kv.OpIncr("key", 1, 0))
			e.NoError(err)
			keep(nil, results[0].Err)
			keep(nil, results[1].Err)
			for _, err := range errs {
				e.Error(err)
				e.NotContains(err.Error(), secret)
				e.Less(len(err.Error()), 400)
			}
		},
	},
}
