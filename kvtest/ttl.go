package kvtest

import (
	"context"
	"math"
	"time"

	"github.com/kvrecipes/kv"
)

// ttlWrite is a method that gives a key a deadline.
type ttlWrite struct {
	name    string
	creates bool // it writes a key that is not live
	changes bool // it changes the deadline of a live key with value "v"
	write   func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error
}

var ttlWrites = []ttlWrite{
	{"set", true, true, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		return s.Set(ctx, key, "v", ttl)
	}},
	{"setmany", true, true, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		return s.SetMany(ctx, map[string]string{key: "v"}, ttl)
	}},
	{"setnx", true, false, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, err := s.SetNX(ctx, key, "v", ttl)
		return err
	}},
	{"compareandswap", false, true, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, err := s.CompareAndSwap(ctx, key, "v", "v", ttl)
		return err
	}},
	{"update", true, true, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, err := s.Update(ctx, key, ttl, func(string, bool) (string, error) { return "v", nil })
		return err
	}},
	{"incr", true, false, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, err := s.Incr(ctx, key, 1, ttl)
		return err
	}},
	{"expire", false, true, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, err := s.Expire(ctx, key, ttl)
		return err
	}},
	{"getexpire", false, true, func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, err := s.GetExpire(ctx, key, ttl)
		return err
	}},
	{"batch set", true, true, inBatch(func(key string, ttl time.Duration) kv.Op { return kv.OpSet(key, "v", ttl) })},
	{"batch setnx", true, false, inBatch(func(key string, ttl time.Duration) kv.Op { return kv.OpSetNX(key, "v", ttl) })},
	{"batch incr", true, false, inBatch(func(key string, ttl time.Duration) kv.Op { return kv.OpIncr(key, 1, ttl) })},
	{"batch expire", false, true, inBatch(kv.OpExpire)},
	{"txn set", true, true, inTxn(func(key string, ttl time.Duration) kv.Op { return kv.OpSet(key, "v", ttl) })},
	{"txn setnx", true, false, inTxn(func(key string, ttl time.Duration) kv.Op { return kv.OpSetNX(key, "v", ttl) })},
	{"txn incr", true, false, inTxn(func(key string, ttl time.Duration) kv.Op { return kv.OpIncr(key, 1, ttl) })},
	{"txn expire", false, true, inTxn(kv.OpExpire)},
}

func inBatch(op func(key string, ttl time.Duration) kv.Op) func(context.Context, *kv.Store, string, time.Duration) error {
	return func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		results, err := s.Batch(ctx, op(key, ttl))
		if err == nil {
			err = results[0].Err
		}
		return err
	}
}

func inTxn(op func(key string, ttl time.Duration) kv.Op) func(context.Context, *kv.Store, string, time.Duration) error {
	return func(ctx context.Context, s *kv.Store, key string, ttl time.Duration) error {
		_, _, err := s.Txn(ctx, nil, op(key, ttl))
		return err
	}
}

// write calls w on key, which is made live before if w needs that.
func (e *env) write(w ttlWrite, key string, ttl time.Duration) {
	if !w.creates && !e.exists(key) {
		e.set(key, "v", kv.NoExpiry)
	}
	e.NoError(w.write(e.ctx, e.store, key, ttl), w.name)
}

var ttlCases = []testCase{
	{
		name:     "ttl/positive",
		contract: "positive: the deadline is now + ttl, on the engine's own clock.",
		run: func(e *env) {
			for _, w := range ttlWrites {
				e.gives(w.name, time.Hour, func() { e.write(w, w.name, time.Hour) })
				if w.changes {
					e.gives(w.name, 2*time.Hour, func() { e.write(w, w.name, 2*time.Hour) })
					e.gives(w.name, time.Minute, func() { e.write(w, w.name, time.Minute) })
				} else {
					e.keeps(w.name, func() { _ = w.write(e.ctx, e.store, w.name, 2*time.Hour) })
				}
			}
		},
	},
	{
		name:     "ttl/NoExpiry",
		contract: "NoExpiry (0) the key has no deadline.",
		run: func(e *env) {
			for _, w := range ttlWrites {
				e.write(w, w.name, kv.NoExpiry)
				e.persists(w.name)
				if w.changes {
					e.set(w.name, "v", time.Hour)
					e.write(w, w.name, kv.NoExpiry)
					e.persists(w.name)
				}
			}
		},
	},
	{
		name:     "ttl/KeepTTL",
		contract: "KeepTTL (-1) the key keeps the deadline it has (a key that is created gets none).",
		run: func(e *env) {
			for _, w := range ttlWrites {
				if w.creates {
					e.write(w, w.name, kv.KeepTTL)
					e.persists(w.name)
				}
				if w.changes {
					e.set(w.name, "v", time.Hour)
					e.keeps(w.name, func() { e.write(w, w.name, kv.KeepTTL) })
				}
			}
			var keys []string
			for _, w := range ttlWrites {
				keys = append(keys, w.name)
			}
			e.pastDeadlines(keys...)
			for _, w := range ttlWrites {
				if w.creates {
					e.NoError(w.write(e.ctx, e.store, w.name, kv.KeepTTL), w.name)
					e.persists(w.name)
				}
			}
		},
	},
	{
		name:     "ttl/other negative",
		contract: "Any other negative value: ErrInvalidTTL, nothing written.",
		run: func(e *env) {
			e.set("live", "v", time.Hour)
			before := e.entry("live")
			for _, w := range ttlWrites {
				for _, ttl := range []time.Duration{-2, -time.Second, -time.Hour, math.MinInt64} {
					e.ErrorIsf(w.write(e.ctx, e.store, "live", ttl), kv.ErrInvalidTTL, "%s with ttl %d", w.name, ttl)
					e.sameEntry(before, e.entry("live"))
					e.ErrorIsf(w.write(e.ctx, e.store, "missing", ttl), kv.ErrInvalidTTL, "%s with ttl %d", w.name, ttl)
					e.absent("missing")
				}
			}
		},
	},
	{
		name:     "ttl/largest",
		contract: "The largest time.Duration must not overflow.",
		run: func(e *env) {
			for _, ttl := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 / 2} {
				for _, w := range ttlWrites {
					_, err := e.store.Delete(e.ctx, w.name)
					e.NoError(err)
					e.write(w, w.name, ttl)
					e.Truef(e.exists(w.name), "%s with ttl %v", w.name, ttl)
					left, err := e.store.TTL(e.ctx, w.name)
					e.NoError(err)
					e.Greaterf(left, ttl-ttl/100, "%s with ttl %v", w.name, ttl)
					e.Truef(e.entry(w.name).ExpiresAt.After(e.now()), "%s with ttl %v", w.name, ttl)
				}
			}
			e.wait(e.unit())
			for _, w := range ttlWrites {
				e.True(e.exists(w.name), w.name)
			}
		},
	},
	{
		name:     "ttl/smallest",
		contract: "Below an engine's resolution a ttl is rounded up, never to zero.",
		run: func(e *env) {
			for _, w := range ttlWrites {
				for _, ttl := range []time.Duration{1, 999, time.Microsecond + 1, e.h.Resolution} {
					_, err := e.store.Delete(e.ctx, w.name)
					e.NoError(err)
					e.write(w, w.name, ttl)
					left, err := e.store.TTL(e.ctx, w.name)
					if err == nil { // it has not expired yet
						e.Greaterf(left, kv.NoExpiry, "%s with ttl %v", w.name, ttl)
					} else {
						e.ErrorIs(err, kv.ErrNotFound)
						e.Falsef(e.h.Virtual, "%s with ttl %v: gone at once", w.name, ttl)
					}
					e.wait(ttl + e.slack() + e.h.Resolution)
					e.Falsef(e.exists(w.name), "%s with ttl %v: still live", w.name, ttl)
				}
			}
		},
	},
	{
		name:     "Expire",
		contract: "Expire gives key a new deadline and says whether the key was live; NoExpiry persists.",
		run: func(e *env) {
			expire := func(key string, ttl time.Duration, want bool) func() {
				return func() {
					found, err := e.store.Expire(e.ctx, key, ttl)
					e.NoError(err)
					e.Equal(want, found)
				}
			}
			for _, ttl := range []time.Duration{time.Hour, kv.NoExpiry, kv.KeepTTL} {
				expire("missing", ttl, false)()
			}
			e.absent("missing")
			e.set("key", "v", kv.NoExpiry)
			expire("key", kv.KeepTTL, true)()
			e.persists("key")
			e.gives("key", time.Hour, expire("key", time.Hour, true))
			e.keeps("key", expire("key", kv.KeepTTL, true))
			expire("key", kv.NoExpiry, true)()
			e.persists("key")
			e.value("key", "v")
			e.pastDeadlines("expired")
			expire("expired", time.Hour, false)()
			e.absent("expired")
		},
	},
	{
		name:     "GetExpire",
		contract: "GetExpire: sliding expiry in one step.",
		run: func(e *env) {
			get := func(ttl time.Duration) func() {
				return func() {
					value, err := e.store.GetExpire(e.ctx, "key", ttl)
					e.NoError(err)
					e.Equal("v", value)
				}
			}
			_, err := e.store.GetExpire(e.ctx, "missing", time.Hour)
			e.ErrorIs(err, kv.ErrNotFound)
			e.absent("missing")
			e.set("key", "v", 2*e.unit())
			for range 4 { // twice as long as the key would live
				e.wait(e.unit())
				if !e.h.Virtual && !e.exists("key") {
					return // the machine was too slow to slide it
				}
				e.gives("key", 2*e.unit(), get(2*e.unit()))
			}
			e.keeps("key", get(kv.KeepTTL))
			get(kv.NoExpiry)()
			e.persists("key")
		},
	},
	{
		name:     "Put/deadline",
		contract: "Put: with metadata and an absolute deadline; one already past deletes the key. In Put a zero ExpiresAt means no deadline.",
		run: func(e *env) {
			put := func(key string, at time.Time) {
				e.NoError(e.store.Put(e.ctx, kv.Entry{Key: key, Value: "v", ExpiresAt: at}))
			}
			at := e.now().Add(time.Hour).Truncate(time.Millisecond)
			put("key", at)
			e.sameEntry(kv.Entry{Key: "key", Value: "v", ExpiresAt: at}, e.entry("key"))
			put("key", at.Add(time.Hour).In(time.FixedZone("elsewhere", 3600)))
			e.sameEntry(kv.Entry{Key: "key", Value: "v", ExpiresAt: at.Add(time.Hour)}, e.entry("key"))
			put("key", time.Time{})
			e.persists("key")
			put("key", e.now().Add(-time.Hour))
			e.absent("key")
			put("missing", time.Unix(0, 0))
			put("missing", time.Unix(-1<<40, 0))
			e.absent("missing")
			put("far", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
			e.True(e.exists("far"), "a deadline in the year 9999")
			if e.h.Virtual {
				put("now", e.now())
				e.absent("now")
			}
			put("soon", e.now().Add(e.unit()))
			e.expires("soon", e.entry("soon").ExpiresAt)
		},
	},
}
