package kvtest

import (
	"time"

	"github.com/kvrecipes/kv"
)

// expiredRead is a method that must not see a key whose deadline has passed.
type expiredRead struct {
	name string
	call func(e *env, key string)
}

// expiredReads are called on keys with the value "v" that have expired.
var expiredReads = []expiredRead{
	{"get", func(e *env, key string) { e.absent(key) }},
	{"entry", func(e *env, key string) {
		_, err := e.store.Entry(e.ctx, key)
		e.ErrorIs(err, kv.ErrNotFound)
	}},
	{"getmany", func(e *env, key string) {
		got, err := e.store.GetMany(e.ctx, key)
		e.NoError(err)
		e.Empty(got)
	}},
	{"getdelete", func(e *env, key string) {
		_, err := e.store.GetDelete(e.ctx, key)
		e.ErrorIs(err, kv.ErrNotFound)
	}},
	{"getexpire", func(e *env, key string) {
		_, err := e.store.GetExpire(e.ctx, key, time.Hour)
		e.ErrorIs(err, kv.ErrNotFound)
		e.absent(key)
	}},
	{"exists", func(e *env, key string) { e.False(e.exists(key)) }},
	{"ttl", func(e *env, key string) {
		_, err := e.store.TTL(e.ctx, key)
		e.ErrorIs(err, kv.ErrNotFound)
	}},
	{"setnx", func(e *env, key string) {
		stored, err := e.store.SetNX(e.ctx, key, "new", kv.NoExpiry)
		e.NoError(err)
		e.True(stored)
	}},
	{"compareandswap", func(e *env, key string) {
		swapped, err := e.store.CompareAndSwap(e.ctx, key, "v", "w", kv.NoExpiry)
		e.NoError(err)
		e.False(swapped)
		e.absent(key)
	}},
	{"compareanddelete", func(e *env, key string) {
		deleted, err := e.store.CompareAndDelete(e.ctx, key, "v")
		e.NoError(err)
		e.False(deleted)
	}},
	{"update", func(e *env, key string) {
		_, err := e.store.Update(e.ctx, key, kv.NoExpiry, func(old string, exists bool) (string, error) {
			e.False(exists)
			e.Empty(old)
			return "new", nil
		})
		e.NoError(err)
	}},
	{"incr", func(e *env, key string) {
		n, err := e.store.Incr(e.ctx, key, 1, kv.NoExpiry) // "v" is no integer
		e.NoError(err)
		e.EqualValues(1, n)
	}},
	{"expire", func(e *env, key string) {
		found, err := e.store.Expire(e.ctx, key, time.Hour)
		e.NoError(err)
		e.False(found)
		e.absent(key)
	}},
	{"delete", func(e *env, key string) {
		n, err := e.store.Delete(e.ctx, key)
		e.NoError(err)
		e.Zero(n)
	}},
	{"deleteprefix", func(e *env, key string) {
		n, err := e.store.DeletePrefix(e.ctx, key)
		e.NoError(err)
		e.Zero(n)
	}},
	{"scan", func(e *env, key string) { e.Empty(e.keysOf(e.store, kv.Range{Prefix: key})) }},
	{"page", func(e *env, key string) {
		e.Empty(e.pages(kv.Range{Prefix: key}, 10))
	}},
	{"count", func(e *env, key string) {
		n, err := e.store.Count(e.ctx, key)
		e.NoError(err)
		e.Zero(n)
	}},
	{"batch", func(e *env, key string) {
		results, err := e.store.Batch(e.ctx, kv.OpGet(key), kv.OpExpire(key, time.Hour), kv.OpDelete(key), kv.OpSetNX(key, "w", 0))
		e.NoError(err)
		e.Equal([]kv.Result{{}, {}, {}, {OK: true}}, results)
	}},
	{"txn operations", func(e *env, key string) {
		ok, results, err := e.store.Txn(e.ctx, nil, kv.OpGet(key), kv.OpExpire(key, time.Hour), kv.OpDelete(key), kv.OpIncr(key, 2, 0))
		e.NoError(err)
		e.True(ok)
		e.Equal([]kv.Result{{}, {}, {}, {Int: 2, OK: true}}, results)
	}},
	{"txn conditions", func(e *env, key string) {
		for _, c := range []struct {
			cond kv.Cond
			want bool
		}{{kv.IfExists(key), false}, {kv.IfValue(key, "v"), false}, {kv.IfAbsent(key), true}} {
			ok, _, err := e.store.Txn(e.ctx, []kv.Cond{c.cond})
			e.NoError(err)
			e.Equalf(c.want, ok, "%+v", c.cond)
		}
	}},
}

var expiryCases = []testCase{
	{
		name:     "expiry/nothing sees an expired key",
		contract: "No read, scan, count, condition or watch ever treats a key as live at or after its deadline, however late memory is reclaimed.",
		run: func(e *env) {
			keys := make([]string, len(expiredReads))
			for i, r := range expiredReads {
				keys[i] = "expired " + r.name
			}
			e.pastDeadlines(keys...)
			for i, r := range expiredReads {
				e.t.Log(r.name)
				r.call(e, keys[i])
			}
		},
	},
	{
		name:     "expiry/exact",
		contract: "No read, scan, count, condition or watch ever treats a key as live at or after its deadline.",
		run: func(e *env) {
			e.expires("key", e.gives("key", e.unit(), func() { e.set("key", "v", e.unit()) }))
			longest := 3 * e.unit()
			if e.h.Virtual {
				longest = 24 * time.Hour
			}
			for ttl := e.h.Resolution * 7; ttl < longest; ttl *= 3 {
				e.set("key", "v", ttl)
				e.expires("key", e.entryOr("key", e.now()).ExpiresAt)
			}
		},
	},
	{
		name:     "expiry/of every write",
		contract: "positive: the deadline is now + ttl.",
		run: func(e *env) {
			for _, w := range ttlWrites {
				e.write(w, w.name, e.unit())
			}
			e.wait(e.unit() + e.slack())
			e.Empty(e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "expiry/moved deadlines",
		contract: "Expire gives key a new deadline; no read ever treats a key as live at or after its deadline.",
		run: func(e *env) {
			for _, key := range []string{"later", "sooner", "never", "rewritten", "kept"} {
				e.set(key, "v", 2*e.unit())
			}
			e.set("forever", "v", kv.NoExpiry)
			expire := func(key string, ttl time.Duration) {
				_, err := e.store.Expire(e.ctx, key, ttl)
				e.NoError(err)
			}
			expire("later", 4*e.unit())
			expire("sooner", e.unit())
			expire("never", kv.NoExpiry)
			expire("forever", e.unit())
			e.set("rewritten", "w", kv.NoExpiry)
			e.set("kept", "w", kv.KeepTTL)
			later := e.entryOr("later", e.now()).ExpiresAt
			e.expires("sooner", e.entryOr("sooner", e.now()).ExpiresAt)
			e.wait(e.slack() + e.h.Resolution)
			e.absent("forever")
			e.expires("kept", e.entryOr("kept", e.now()).ExpiresAt)
			e.value("never", "v")
			e.value("rewritten", "w")
			e.expires("later", later)
			e.sameKeys([]string{"never", "rewritten"}, e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "expiry/of many keys at once",
		contract: "live: a key that was written and has neither been deleted nor reached its deadline.",
		run: func(e *env) {
			const n = 5000
			stay := e.fill("stay:", 100)
			entries := make(map[string]string, n)
			for _, key := range e.fill("go:", n) {
				entries[key] = "v"
			}
			e.NoError(e.store.SetMany(e.ctx, entries, e.unit()))
			e.wait(e.unit() + e.slack())
			got, err := e.store.Count(e.ctx, "")
			e.NoError(err)
			e.Equal(len(stay), got)
			e.sameKeys(stay, e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "expiry/day by day",
		contract: "No read ever treats a key as live at or after its deadline.",
		when:     virtual,
		run: func(e *env) {
			ttls := []time.Duration{time.Nanosecond, time.Millisecond, time.Second, time.Minute, time.Hour, 24 * time.Hour}
			for _, ttl := range ttls {
				e.set(ttl.String(), "v", max(ttl, e.h.Resolution))
			}
			begin := e.now()
			for i, ttl := range ttls {
				e.waitUntil(begin.Add(max(ttl, e.h.Resolution)))
				e.Len(e.keysOf(e.store, kv.Range{}), len(ttls)-i-1)
				e.absent(ttl.String())
			}
		},
	},
}

// entryOr returns the entry of key, one with the deadline gone if key has expired already.
func (e *env) entryOr(key string, gone time.Time) kv.Entry {
	entry, err := e.store.Entry(e.ctx, key)
	if err != nil {
		e.ErrorIs(err, kv.ErrNotFound)
		return kv.Entry{Key: key, ExpiresAt: gone}
	}
	return entry
}
