package kvtest

import (
	"context"
	"fmt"
	"strings"

	"github.com/kvrecipes/kv"
)

// valueWrites are the methods that store a value under a key, live with value "old".
var valueWrites = []struct {
	name  string
	write func(ctx context.Context, s *kv.Store, key, value string) error
}{
	{"set", func(ctx context.Context, s *kv.Store, key, value string) error { return s.Set(ctx, key, value, 0) }},
	{"setmany", func(ctx context.Context, s *kv.Store, key, value string) error {
		return s.SetMany(ctx, map[string]string{key: value, "beside": "new"}, 0)
	}},
	{"put", func(ctx context.Context, s *kv.Store, key, value string) error {
		return s.Put(ctx, kv.Entry{Key: key, Value: value})
	}},
	{"setnx", func(ctx context.Context, s *kv.Store, key, value string) error {
		_, err := s.SetNX(ctx, key, value, 0)
		return err
	}},
	{"compareandswap", func(ctx context.Context, s *kv.Store, key, value string) error {
		_, err := s.CompareAndSwap(ctx, key, "old", value, 0)
		return err
	}},
	{"update", func(ctx context.Context, s *kv.Store, key, value string) error {
		_, err := s.Update(ctx, key, 0, func(string, bool) (string, error) { return value, nil })
		return err
	}},
	{"batch", func(ctx context.Context, s *kv.Store, key, value string) error {
		results, err := s.Batch(ctx, kv.OpSet(key, value, 0))
		if err == nil {
			err = results[0].Err
		}
		return err
	}},
	{"txn", func(ctx context.Context, s *kv.Store, key, value string) error {
		_, _, err := s.Txn(ctx, nil, kv.OpSet(key, value, 0))
		return err
	}},
}

var limitCases = []testCase{
	{
		name:     "limits/bad keys",
		contract: "key: 1 to 512 bytes, not \".\" and not \"..\": ErrInvalidKey.",
		run: func(e *env) {
			for _, m := range keyMethods {
				for _, key := range []string{"", ".", "..", strings.Repeat("k", e.longest()+1), strings.Repeat("k", 100_000)} {
					e.ErrorIsf(m.call(e.ctx, e.store, key), kv.ErrInvalidKey, "%s of a key of %d bytes", m.name, len(key))
				}
			}
			e.Empty(e.keysOf(e.store, kv.Range{}), "nothing is applied if one argument is bad")
		},
	},
	{
		name:     "limits/good keys",
		contract: "key: 1 to 512 bytes, not \".\" and not \"..\".",
		run: func(e *env) {
			keys := []string{"k", " ", "\x00", "\xff", "...", "./", "../", ":", "a..b", "{", "}", "{}", "%", "*", "\n", "é"}
			for _, n := range []int{2, 63, 64, 65, 127, 128, 255, 256, e.longest() - 1, e.longest()} {
				keys = append(keys, strings.Repeat("k", n))
			}
			for i, key := range keys {
				e.set(key, fmt.Sprint(i), kv.NoExpiry)
			}
			for i, key := range keys {
				e.value(key, fmt.Sprint(i))
			}
			for _, m := range keyMethods {
				e.NoErrorf(ignoreMiss(m.call(e.ctx, e.store, strings.Repeat("l", e.longest()))), "%s of the longest key", m.name)
			}
		},
	},
	{
		name:     "limits/values",
		contract: "value: 25 MiB: ErrTooLarge; the old value stays.",
		run: func(e *env) {
			long := strings.Repeat("0123456789abcdef", kv.DefaultMaxValueBytes/16)
			for _, w := range valueWrites {
				e.set("key", "old", kv.NoExpiry)
				e.ErrorIs(w.write(e.ctx, e.store, "key", long+"x"), kv.ErrTooLarge, w.name)
				e.value("key", "old")
				e.absent("beside")
			}
			e.set("key", long, kv.NoExpiry)
			got, err := e.store.Get(e.ctx, "key")
			e.NoError(err)
			e.True(got == long, "a value of 25 MiB comes back changed")
		},
	},
	{
		name:     "limits/many",
		contract: "one batch, one transaction (conditions and operations), GetMany, SetMany, Delete: 10,000: ErrTooLarge, nothing applied.",
		run: func(e *env) {
			const over = kv.DefaultMaxBatch + 1
			e.set("key0", "old", kv.NoExpiry)
			keys := make([]string, over)
			ops := make([]kv.Op, over)
			conds := make([]kv.Cond, over)
			entries := make(map[string]string, over)
			for i := range over {
				keys[i] = fmt.Sprint("key", i)
				ops[i], conds[i], entries[keys[i]] = kv.OpSet(keys[i], "new", 0), kv.IfAbsent("other"), "new"
			}
			_, err := e.store.GetMany(e.ctx, keys...)
			e.ErrorIs(err, kv.ErrTooLarge, "GetMany")
			e.ErrorIs(e.store.SetMany(e.ctx, entries, 0), kv.ErrTooLarge, "SetMany")
			n, err := e.store.Delete(e.ctx, keys...)
			e.ErrorIs(err, kv.ErrTooLarge, "Delete")
			e.Zero(n)
			_, err = e.store.Batch(e.ctx, ops...)
			e.ErrorIs(err, kv.ErrTooLarge, "Batch")
			for _, split := range []int{0, 1, over / 2, over} {
				ok, _, err := e.store.Txn(e.ctx, conds[:split], ops[split:]...)
				e.ErrorIsf(err, kv.ErrTooLarge, "Txn of %d conditions", split)
				e.False(ok)
			}
			e.Equal([]string{"key0"}, e.keysOf(e.store, kv.Range{}))
			e.value("key0", "old")
		},
	},
	{
		name:     "limits/as many as allowed",
		contract: "one batch, one transaction (conditions and operations): 10,000.",
		run: func(e *env) {
			ops := make([]kv.Op, kv.DefaultMaxBatch)
			for i := range ops {
				ops[i] = kv.OpIncr(e.key(fmt.Sprint(i%100)), 1, 0)
			}
			results, err := e.store.Batch(e.ctx, ops...)
			e.NoError(err)
			e.Len(results, len(ops))
			e.EqualValues(100, results[len(ops)-1].Int)
			conds := make([]kv.Cond, len(ops)/2)
			for i := range conds {
				conds[i] = kv.IfValue(e.key(fmt.Sprint(i%100)), "100")
			}
			ok, results, err := e.store.Txn(e.ctx, conds, ops[:len(ops)/2]...)
			e.NoError(err)
			e.True(ok)
			e.EqualValues(150, results[len(results)-1].Int)
		},
	},
	{
		name:     "limits/one bad argument of many",
		contract: "SetMany, GetMany, Delete and Txn check every argument first and apply nothing if one is bad.",
		run: func(e *env) {
			e.set("a", "old", kv.NoExpiry)
			long := strings.Repeat("x", kv.DefaultMaxValueBytes+1)
			entries := map[string]string{"a": "new", "b": "new", "c": "new"}
			entries["."] = "new"
			e.ErrorIs(e.store.SetMany(e.ctx, entries, 0), kv.ErrInvalidKey)
			delete(entries, ".")
			entries["long"] = long
			e.ErrorIs(e.store.SetMany(e.ctx, entries, 0), kv.ErrTooLarge)
			n, err := e.store.Delete(e.ctx, "a", "")
			e.ErrorIs(err, kv.ErrInvalidKey)
			e.Zero(n)
			for _, bad := range []struct {
				op   kv.Op
				want error
			}{
				{kv.OpGet(""), kv.ErrInvalidKey},
				{kv.OpDelete(".."), kv.ErrInvalidKey},
				{kv.OpSet("long", long, 0), kv.ErrTooLarge},
				{kv.OpSetNX("long", long, 0), kv.ErrTooLarge},
				{kv.OpSet("b", "x", -2), kv.ErrInvalidTTL},
				{kv.OpIncr("b", 1, -2), kv.ErrInvalidTTL},
				{kv.OpExpire("b", -2), kv.ErrInvalidTTL},
				{kv.Op{}, kv.ErrUnsupported},
			} {
				ok, results, err := e.store.Txn(e.ctx, nil, kv.OpSet(e.key("a"), "new", 0), bad.op)
				e.ErrorIs(err, bad.want)
				e.False(ok)
				e.Nil(results)
				results, err = e.store.Batch(e.ctx, kv.OpIncr("n", 1, 0), bad.op, kv.OpIncr("n", 1, 0))
				e.NoError(err, "in a Batch a bad key, ttl or value is that operation's own Result.Err")
				e.ErrorIs(results[1].Err, bad.want)
				e.False(results[1].OK)
				e.True(results[0].OK && results[2].OK)
				e.Equal(results[0].Int+1, results[2].Int)
			}
			_, _, err = e.store.Txn(e.ctx, []kv.Cond{kv.IfExists("."), {}}, kv.OpSet("a", "new", 0))
			e.ErrorIs(err, kv.ErrInvalidKey)
			e.value("a", "old")
			e.absent("b", "c")
			e.sameKeys([]string{"a", "n"}, e.keysOf(e.store, kv.Range{}))
		},
	},
}
