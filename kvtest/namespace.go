package kvtest

import (
	"strings"

	"github.com/kvrecipes/kv"
)

var namespaceCases = []testCase{
	{
		name:     "namespace",
		contract: "Namespace: the same data under the prefix name + \":\".",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			e.NoError(ns.Set(e.ctx, "key", "inside", 0))
			e.set("key", "outside", kv.NoExpiry)
			e.value("app:key", "inside")
			e.set("app:other", "from outside", kv.NoExpiry)
			got, err := ns.GetMany(e.ctx, "key", "other")
			e.NoError(err)
			e.Equal(map[string]string{"key": "inside", "other": "from outside"}, got)
			inner := ns.Namespace("inner")
			e.NoError(inner.Set(e.ctx, "key", "deep", 0))
			e.value("app:inner:key", "deep")
			entry, err := inner.Entry(e.ctx, "key")
			e.NoError(err)
			e.Equal("key", entry.Key)
		},
	},
	{
		name:     "namespace/rules of keys",
		contract: "For a namespace the length limit counts the whole key, the rest of the rules the key as its user sees it, and errors name the latter.",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			for _, m := range keyMethods {
				for _, key := range []string{"", ".", "..", strings.Repeat("k", e.longest()-3)} {
					err := m.call(e.ctx, ns, key)
					e.ErrorIsf(err, kv.ErrInvalidKey, "%s of %q", m.name, key)
					e.named(err, m.name, key)
				}
			}
			e.Empty(e.keysOf(e.store, kv.Range{}))
			longest := strings.Repeat("k", e.longest()-4)
			e.NoError(ns.Set(e.ctx, longest, "v", 0))
			value, err := ns.Get(e.ctx, longest)
			e.NoError(err)
			e.Equal("v", value)
			e.NoError(e.store.Namespace(".").Set(e.ctx, "k", "v", 0))
			e.value(".:k", "v")
		},
	},
	{
		name:     "namespace/errors",
		contract: "errors name the key as its user sees it.",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			e.NoError(ns.Set(e.ctx, e.key("text"), "x", 0))
			_, err := ns.Get(e.ctx, "missing")
			e.True(err == kv.ErrNotFound, "%v", err)
			_, err = ns.TTL(e.ctx, "missing")
			e.named(err, "ttl", "missing")
			_, err = ns.Incr(e.ctx, e.key("text"), 1, 0)
			e.named(err, "incr", e.key("text"))
			_, _, err = ns.Txn(e.ctx, nil, kv.OpIncr(e.key("text"), 1, 0))
			e.ErrorIs(err, kv.ErrNotInteger)
			e.named(err, "txn", e.key("text"))
			e.NotContains(err.Error(), "app")
			results, err := ns.Batch(e.ctx, kv.OpIncr(e.key("text"), 1, 0))
			e.NoError(err)
			e.named(results[0].Err, "incr", e.key("text"))
		},
	},
	{
		name:     "namespace/scans",
		contract: "Namespace: the same data under the prefix name + \":\"; scans, counts and deletions see its keys alone, without the prefix.",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			for _, key := range []string{"a", "b:1", "b:2", "c"} {
				e.NoError(ns.Set(e.ctx, key, "v", 0))
			}
			for _, key := range []string{"app", "apple:b:3", "a", "ap", "zoo"} {
				e.set(key, "outside", kv.NoExpiry)
			}
			e.sameKeys([]string{"a", "b:1", "b:2", "c"}, e.keysOf(ns, kv.Range{}))
			e.sameKeys([]string{"b:1", "b:2"}, e.keysOf(ns, kv.Range{Prefix: "b:"}))
			e.Equal([]kv.Entry{{Key: "c", Value: "v"}}, e.pagesOf(ns, kv.Range{Prefix: "c"}, 10))
			n, err := ns.Count(e.ctx, "")
			e.NoError(err)
			e.Equal(4, n)
			n, err = ns.DeletePrefix(e.ctx, "b")
			e.NoError(err)
			e.Equal(2, n)
			n, err = ns.DeletePrefix(e.ctx, "")
			e.NoError(err)
			e.Equal(2, n)
			e.sameKeys([]string{"a", "ap", "app", "apple:b:3", "zoo"}, e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "namespace/ranges",
		contract: "From, To: whole keys: From <= key < To in byte order, within Prefix.",
		when:     ordered,
		run: func(e *env) {
			ns := e.store.Namespace("app")
			for _, key := range []string{"a", "b", "c", "d"} {
				e.NoError(ns.Set(e.ctx, key, "v", 0))
			}
			e.set("b", "outside", kv.NoExpiry)
			e.set("zoo", "outside", kv.NoExpiry)
			e.Equal([]string{"b", "c"}, e.keysOf(ns, kv.Range{From: "b", To: "d"}))
			e.Equal([]string{"d", "c", "b"}, e.keysOf(ns, kv.Range{From: "b", Reverse: true}))
			e.Equal([]string{"b", "a"}, e.keysOf(ns, kv.Range{To: "c", Reverse: true}))
		},
	},
	{
		name:     "namespace/watch",
		contract: "Namespace: the same data under the prefix name + \":\"; a watch sees its keys alone, without the prefix.",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			w := e.watch(ns, "k")
			e.NoError(ns.Set(e.ctx, "other", "v", 0))
			e.set("key", "outside", kv.NoExpiry)
			e.set("apple:key", "outside", kv.NoExpiry)
			e.NoError(ns.Set(e.ctx, "key", "v", 0))
			event := e.next(w)
			e.Equal(kv.Event{Type: kv.EventPut, Entry: kv.Entry{Key: "key", Value: "v"}}, event)
		},
	},
	{
		name:     "namespace/transactions and batches",
		contract: "Namespace: the same data under the prefix name + \":\".",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			a, b := e.key("a"), e.key("b")
			e.NoError(ns.Set(e.ctx, a, "1", 0))
			e.set(a, "outside", kv.NoExpiry)
			conds := []kv.Cond{kv.IfValue(a, "1"), kv.IfAbsent(b), kv.IfExists(a)}
			ok, results, err := ns.Txn(e.ctx, conds, kv.OpIncr(a, 1, 0), kv.OpSet(b, "new", 0))
			e.NoError(err)
			e.True(ok)
			e.EqualValues(2, results[0].Int)
			e.value("app:"+a, "2")
			e.value("app:"+b, "new")
			e.value(a, "outside")
			e.Equal(kv.IfValue(a, "1"), conds[0], "the caller's conditions are changed")
			results, err = ns.Batch(e.ctx, kv.OpGet(a), kv.OpDelete(b), kv.OpGet("missing"))
			e.NoError(err)
			e.Equal([]kv.Result{{Value: "2", OK: true}, {OK: true}, {}}, results)
			e.absent("app:" + b)
		},
	},
	{
		name:     "namespace/Close",
		contract: "Namespace: its Close does nothing and it works on.",
		run: func(e *env) {
			ns := e.store.Namespace("app")
			w := e.watch(ns, "")
			e.NoError(ns.Close())
			e.NoError(ns.Close())
			e.NoError(ns.Set(e.ctx, "key", "v", 0))
			e.Equal("key", e.next(w).Entry.Key)
			e.value("app:key", "v")
			e.NoError(e.root.Close())
			_, err := ns.Get(e.ctx, "key")
			e.ErrorIs(err, kv.ErrClosed)
		},
	},
}
