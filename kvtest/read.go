package kvtest

import (
	"fmt"

	"github.com/kvrecipes/kv"
)

var readCases = []testCase{
	{
		name:     "Get",
		contract: "Keys, values and metadata are Go strings holding any bytes.",
		run: func(e *env) {
			for _, value := range []string{"value", "", " ", "0", "null", "nil"} {
				e.set("key", value, kv.NoExpiry)
				e.value("key", value)
			}
		},
	},
	{
		name:     "Get/missing",
		contract: "ErrNotFound from Get is returned bare, so that a miss allocates nothing.",
		run: func(e *env) {
			e.set("deleted", "v", kv.NoExpiry)
			_, err := e.store.Delete(e.ctx, "deleted")
			e.NoError(err)
			e.pastDeadlines("expired")
			for _, key := range []string{"never", "deleted", "expired"} {
				value, err := e.store.Get(e.ctx, key)
				e.Truef(err == kv.ErrNotFound, "Get of the %s key: %#v", key, err)
				e.Empty(value)
			}
		},
	},
	{
		name:     "Entry",
		contract: "Entry: Key, Value, Metadata (JSON; \"\" for none), ExpiresAt (zero: no deadline).",
		run: func(e *env) {
			e.set("key", "value", kv.NoExpiry)
			e.Equal(kv.Entry{Key: "key", Value: "value"}, e.entry("key"))
			_, err := e.store.Entry(e.ctx, "missing")
			e.ErrorIs(err, kv.ErrNotFound)
		},
	},
	{
		name:     "GetMany",
		contract: "GetMany: missing keys are absent.",
		run: func(e *env) {
			e.set("a", "1", kv.NoExpiry)
			e.set("b", "", kv.NoExpiry)
			e.pastDeadlines("expired")
			got, err := e.store.GetMany(e.ctx, "a", "missing", "b", "a", "expired")
			e.NoError(err)
			e.Equal(map[string]string{"a": "1", "b": ""}, got)
			got, err = e.store.GetMany(e.ctx)
			e.NoError(err)
			e.Empty(got)
		},
	},
	{
		name:     "GetMany/many",
		contract: "One batch, one transaction, GetMany, SetMany, Delete: 10,000.",
		run: func(e *env) {
			keys := e.fill("many:", kv.DefaultMaxBatch)
			got, err := e.store.GetMany(e.ctx, keys...)
			e.NoError(err)
			e.Len(got, len(keys))
			for i, key := range keys {
				e.Equal(fmt.Sprint(i), got[key])
			}
			n, err := e.store.Delete(e.ctx, keys...)
			e.NoError(err)
			e.Equal(len(keys), n)
			e.absent(keys[0], keys[len(keys)-1])
		},
	},
	{
		name:     "GetDelete",
		contract: "GetDelete returns the value of key and deletes it in one step (one-time tokens).",
		run: func(e *env) {
			e.set("token", "secret", kv.NoExpiry)
			value, err := e.store.GetDelete(e.ctx, "token")
			e.NoError(err)
			e.Equal("secret", value)
			e.absent("token")
			_, err = e.store.GetDelete(e.ctx, "token")
			e.ErrorIs(err, kv.ErrNotFound)
		},
	},
	{
		name:     "Exists",
		contract: "live: a key that was written and has neither been deleted nor reached its deadline.",
		run: func(e *env) {
			e.False(e.exists("key"))
			e.set("key", "", kv.NoExpiry)
			e.True(e.exists("key"))
			_, err := e.store.Delete(e.ctx, "key")
			e.NoError(err)
			e.False(e.exists("key"))
		},
	},
	{
		name:     "TTL",
		contract: "TTL returns what remains of the key's life, NoExpiry if it has no deadline.",
		run: func(e *env) {
			_, err := e.store.TTL(e.ctx, "missing")
			e.ErrorIs(err, kv.ErrNotFound)
			e.set("key", "v", kv.NoExpiry)
			e.persists("key")
			deadline := e.gives("key", 3*e.unit(), func() { e.set("key", "v", 3*e.unit()) })
			for range 2 {
				before := e.now()
				ttl, err := e.store.TTL(e.ctx, "key")
				after := e.now()
				e.NoError(err)
				e.LessOrEqual(ttl, deadline.Sub(before)+e.slack())
				e.GreaterOrEqual(ttl, deadline.Sub(after)-e.slack())
				e.wait(e.unit())
			}
		},
	},
	{
		name:     "Now",
		contract: "Now: the engine's clock.",
		run: func(e *env) {
			begin := e.now()
			e.wait(e.unit())
			e.GreaterOrEqual(e.now().Sub(begin), e.unit())
			again := e.now()
			e.False(e.now().Before(again), "the clock runs backwards")
		},
	},
}

var writeCases = []testCase{
	{
		name:     "Set",
		contract: "Every single-key method is one atomic step, and the history of each key is linearizable.",
		run: func(e *env) {
			e.set("key", "first", kv.NoExpiry)
			e.set("other", "untouched", kv.NoExpiry)
			e.set("key", "second", kv.NoExpiry)
			e.value("key", "second")
			e.value("other", "untouched")
		},
	},
	{
		name:     "SetMany",
		contract: "SetMany stores entries, each as Set does.",
		run: func(e *env) {
			e.set("a", "old", kv.NoExpiry)
			e.NoError(e.store.SetMany(e.ctx, map[string]string{"a": "1", "b": "2", "c": ""}, kv.NoExpiry))
			e.value("a", "1")
			e.value("b", "2")
			e.value("c", "")
			e.NoError(e.store.SetMany(e.ctx, nil, kv.NoExpiry))
		},
	},
	{
		name:     "Delete",
		contract: "Delete deletes keys and returns how many of them were live.",
		run: func(e *env) {
			e.set("a", "1", kv.NoExpiry)
			e.set("b", "2", kv.NoExpiry)
			e.set("c", "3", kv.NoExpiry)
			e.pastDeadlines("expired")
			for _, d := range []struct {
				keys []string
				want int
			}{
				{[]string{"a"}, 1},
				{[]string{"a"}, 0},
				{[]string{"b", "missing", "b", "expired"}, 1},
				{nil, 0},
			} {
				n, err := e.store.Delete(e.ctx, d.keys...)
				e.NoError(err)
				e.Equalf(d.want, n, "Delete(%q)", d.keys)
			}
			e.absent("a", "b")
			e.value("c", "3")
		},
	},
	{
		name:     "DeletePrefix",
		contract: "DeletePrefix deletes the keys that begin with prefix and returns how many were live.",
		run: func(e *env) {
			e.fill("user:", 2500)
			e.set("user", "shorter", kv.NoExpiry)
			e.set("users", "another", kv.NoExpiry)
			e.set("uses", "another", kv.NoExpiry)
			e.pastDeadlines("user:expired")
			n, err := e.store.DeletePrefix(e.ctx, "user:")
			e.NoError(err)
			e.Equal(2500, n)
			e.sameKeys([]string{"user", "users", "uses"}, e.keysOf(e.store, kv.Range{}))
			n, err = e.store.DeletePrefix(e.ctx, "missing")
			e.NoError(err)
			e.Zero(n)
			n, err = e.store.DeletePrefix(e.ctx, "")
			e.NoError(err)
			e.Equal(3, n)
			e.Empty(e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "DeletePrefix/any bytes",
		contract: "Keys, values and metadata are Go strings holding any bytes.",
		run: func(e *env) {
			for _, key := range []string{"a\xff", "a\xff\xff", "a\xffz", "a\xfe", "b", "a*", "a[b]", "a?"} {
				e.set(key, "v", kv.NoExpiry)
			}
			n, err := e.store.DeletePrefix(e.ctx, "a\xff")
			e.NoError(err)
			e.Equal(3, n)
			n, err = e.store.DeletePrefix(e.ctx, "a*")
			e.NoError(err)
			e.Equal(1, n, "a prefix is no pattern")
			n, err = e.store.DeletePrefix(e.ctx, "a[")
			e.NoError(err)
			e.Equal(1, n, "a prefix is no pattern")
			e.sameKeys([]string{"a?", "a\xfe", "b"}, e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "deleted keys come back new",
		contract: "live: a key that was written and has neither been deleted nor reached its deadline.",
		run: func(e *env) {
			e.NoError(e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "v", Metadata: `{"a":1}`, ExpiresAt: e.now().Add(e.unit())}))
			_, err := e.store.Delete(e.ctx, "key")
			e.NoError(err)
			n, err := e.store.Incr(e.ctx, "key", 5, kv.KeepTTL)
			e.NoError(err)
			e.EqualValues(5, n)
			e.Equal(kv.Entry{Key: "key", Value: "5"}, e.entry("key"), "nothing of the deleted key is left")
			e.wait(2 * e.unit())
			e.value("key", "5")
		},
	},
}
