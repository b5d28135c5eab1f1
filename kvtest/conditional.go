package kvtest

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/kvrecipes/kv"
)

var conditionalCases = []testCase{
	{
		name:     "SetNX",
		contract: "SetNX stores value if key is not live, and says whether it did.",
		run: func(e *env) {
			setNX := func(key, value string, want bool) {
				stored, err := e.store.SetNX(e.ctx, key, value, kv.NoExpiry)
				e.NoError(err)
				e.Equalf(want, stored, "SetNX(%q)", key)
			}
			setNX("key", "first", true)
			setNX("key", "second", false)
			e.value("key", "first")
			e.set("empty", "", kv.NoExpiry)
			setNX("empty", "second", false)
			e.value("empty", "")
			e.pastDeadlines("expired")
			setNX("expired", "again", true)
			e.value("expired", "again")
			_, err := e.store.Delete(e.ctx, "key")
			e.NoError(err)
			setNX("key", "third", true)
			e.value("key", "third")
		},
	},
	{
		name:     "SetNX/loser changes nothing",
		contract: "SetNX stores value if key is not live, and says whether it did.",
		run: func(e *env) {
			before := kv.Entry{Key: "key", Value: "v", Metadata: `{"a":1}`, ExpiresAt: e.now().Add(time.Hour).Truncate(time.Second)}
			e.NoError(e.store.Put(e.ctx, before))
			stored, err := e.store.SetNX(e.ctx, "key", "other", kv.NoExpiry)
			e.NoError(err)
			e.False(stored)
			e.sameEntry(before, e.entry("key"))
		},
	},
	{
		name:     "CompareAndSwap",
		contract: "CompareAndSwap stores new if key is live with exactly the value old, and says whether it did. A missing key is not an error: false.",
		run: func(e *env) {
			swap := func(key, old, new string, want bool) {
				swapped, err := e.store.CompareAndSwap(e.ctx, key, old, new, kv.KeepTTL)
				e.NoError(err)
				e.Equalf(want, swapped, "CompareAndSwap(%q, %q, %q)", key, old, new)
			}
			swap("missing", "", "v", false)
			swap("missing", "v", "v", false)
			e.absent("missing")
			e.set("key", "a", kv.NoExpiry)
			swap("key", "b", "c", false)
			swap("key", "A", "c", false)
			swap("key", "", "c", false)
			swap("key", "a\x00", "c", false)
			e.value("key", "a")
			swap("key", "a", "c", true)
			swap("key", "a", "d", false)
			swap("key", "c", "c", true)
			swap("key", "c", "", true)
			swap("key", "", "e", true)
			e.value("key", "e")
			e.pastDeadlines("expired")
			swap("expired", "v", "w", false)
			e.absent("expired")
		},
	},
	{
		name:     "CompareAndSwap/lease",
		contract: "CompareAndSwap with KeepTTL keeps the deadline (the lock of a crashed owner still expires); with a positive ttl and old == new it renews a lease, never somebody else's.",
		run: func(e *env) {
			swap := func(old, new string, ttl time.Duration, want bool) func() {
				return func() {
					swapped, err := e.store.CompareAndSwap(e.ctx, "lease", old, new, ttl)
					e.NoError(err)
					e.Equal(want, swapped)
				}
			}
			e.set("lease", "mine", time.Hour)
			e.keeps("lease", swap("mine", "mine", kv.KeepTTL, true))
			e.keeps("lease", swap("mine", "yours", kv.KeepTTL, true))
			e.keeps("lease", swap("mine", "mine", 2*time.Hour, false))
			e.gives("lease", 3*time.Hour, swap("yours", "yours", 3*time.Hour, true))
			swap("yours", "yours", kv.NoExpiry, true)()
			e.persists("lease")
		},
	},
	{
		name:     "CompareAndDelete",
		contract: "CompareAndDelete deletes key if it is live with exactly the value old, and says whether it did.",
		run: func(e *env) {
			compareAndDelete := func(key, old string, want bool) {
				deleted, err := e.store.CompareAndDelete(e.ctx, key, old)
				e.NoError(err)
				e.Equalf(want, deleted, "CompareAndDelete(%q, %q)", key, old)
			}
			compareAndDelete("missing", "", false)
			e.set("key", "mine", kv.NoExpiry)
			compareAndDelete("key", "yours", false)
			compareAndDelete("key", "mime", false)
			compareAndDelete("key", "Mine", false)
			compareAndDelete("key", "", false)
			e.value("key", "mine")
			compareAndDelete("key", "mine", true)
			e.absent("key")
			compareAndDelete("key", "mine", false)
			e.pastDeadlines("expired")
			compareAndDelete("expired", "v", false)
		},
	},
}

var errUpdate = errors.New("no update")

var updateCases = []testCase{
	{
		name:     "Update",
		contract: "Update is an optimistic read-modify-write and returns the value written.",
		run: func(e *env) {
			update := func(key string, wantOld string, wantExists bool, new string) {
				got, err := e.store.Update(e.ctx, key, kv.NoExpiry, func(old string, exists bool) (string, error) {
					e.Equal(wantOld, old)
					e.Equal(wantExists, exists)
					return new, nil
				})
				e.NoError(err)
				e.Equal(new, got)
				e.value(key, new)
			}
			update("key", "", false, "a")
			update("key", "a", true, "")
			update("key", "", true, "b")
			update("key", "b", true, "b")
			e.pastDeadlines("expired")
			update("expired", "", false, "c")
		},
	},
	{
		name:     "Update/again",
		contract: "f may run more than once, holds no lock of the store and may call the store. It retries until it wins or ctx ends; it never gives up after a count.",
		run: func(e *env) {
			e.set("key", "0", kv.NoExpiry)
			runs := 0
			got, err := e.store.Update(e.ctx, "key", kv.NoExpiry, func(old string, exists bool) (string, error) {
				if runs++; runs <= 500 { // somebody else comes between
					_, err := e.store.Incr(e.ctx, "key", 1, kv.NoExpiry)
					e.NoError(err)
				}
				return old + "!", nil
			})
			e.NoError(err)
			e.Equal("500!", got)
			e.Equal(501, runs)
			e.value("key", "500!")
		},
	},
	{
		name:     "Update/creation comes between",
		contract: "Update is an optimistic read-modify-write and returns the value written.",
		run: func(e *env) {
			got, err := e.store.Update(e.ctx, "key", kv.NoExpiry, func(old string, exists bool) (string, error) {
				if !exists {
					e.set("key", "theirs", kv.NoExpiry)
				}
				return old + "+mine", nil
			})
			e.NoError(err)
			e.Equal("theirs+mine", got)
			got, err = e.store.Update(e.ctx, "key", kv.NoExpiry, func(old string, exists bool) (string, error) {
				if exists {
					_, err := e.store.Delete(e.ctx, "key")
					e.NoError(err)
				}
				return old + "new", nil
			})
			e.NoError(err)
			e.Equal("new", got)
			e.value("key", "new")
		},
	},
	{
		name:     "Update/error of f",
		contract: "an error of f aborts, is returned as it is, and writes nothing.",
		run: func(e *env) {
			e.set("key", "old", time.Hour)
			e.keeps("key", func() {
				for _, key := range []string{"key", "missing"} {
					got, err := e.store.Update(e.ctx, key, kv.NoExpiry, func(string, bool) (string, error) {
						return "new", errUpdate
					})
					e.True(err == errUpdate, "%v", err)
					e.Empty(got)
				}
			})
			e.value("key", "old")
			e.absent("missing")
			_, err := e.store.Update(e.ctx, "key", kv.NoExpiry, func(string, bool) (string, error) {
				return "", kv.ErrNotFound
			})
			e.True(err == kv.ErrNotFound, "%v", err)
		},
	},
	{
		name:     "Update/panic and Goexit of f",
		contract: "Panic or runtime.Goexit in an Update function passes through and the store works on.",
		run: func(e *env) {
			e.set("key", "old", kv.NoExpiry)
			e.PanicsWithValue("boom", func() {
				_, _ = e.store.Update(e.ctx, "key", kv.NoExpiry, func(string, bool) (string, error) { panic("boom") })
			})
			e.exits(func() {
				_, _ = e.store.Update(e.ctx, "key", kv.NoExpiry, func(string, bool) (string, error) {
					runtime.Goexit()
					return "", nil
				})
			})
			e.value("key", "old")
			e.set("key", "new", kv.NoExpiry)
			e.value("key", "new")
		},
	},
	{
		name:     "Update/ttl",
		contract: "positive: the deadline is now + ttl; KeepTTL: the key keeps the deadline it has (a key that is created gets none).",
		run: func(e *env) {
			update := func(ttl time.Duration) func() {
				return func() {
					_, err := e.store.Update(e.ctx, "key", ttl, func(old string, _ bool) (string, error) { return old + "x", nil })
					e.NoError(err)
				}
			}
			update(kv.KeepTTL)()
			e.persists("key")
			e.gives("key", time.Hour, update(time.Hour))
			e.keeps("key", update(kv.KeepTTL))
			update(kv.NoExpiry)()
			e.persists("key")
		},
	},
	{
		name:     "Update/ctx",
		contract: "It retries until it wins or ctx ends.",
		run: func(e *env) {
			e.set("key", "0", kv.NoExpiry)
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			runs := 0
			_, err := e.store.Update(ctx, "key", kv.NoExpiry, func(string, bool) (string, error) {
				_, err := e.store.Incr(e.ctx, "key", 1, kv.NoExpiry) // never wins
				e.NoError(err)
				if runs++; runs == 10 {
					cancel()
				}
				return "mine", nil
			})
			e.ErrorIs(err, context.Canceled)
			e.Equal(10, runs)
			e.value("key", "10")
			_, err = e.store.Update(ctx, "key", kv.NoExpiry, func(string, bool) (string, error) {
				e.Fail("f runs although ctx has ended")
				return "mine", nil
			})
			e.ErrorIs(err, context.Canceled)
		},
	},
}

// exits checks that f ends its goroutine by runtime.Goexit.
func (e *env) exits(f func()) {
	returned := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
		returned = true
	}()
	<-done
	e.False(returned, "Goexit does not pass through")
}
