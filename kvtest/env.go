package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// env is what a case works with. Its assertions end the case.
type env struct {
	*require.Assertions
	t     *testing.T
	h     Harness
	ctx   context.Context
	root  *kv.Store // as it was opened
	store *kv.Store // of the case: root or a namespace of it
}

func newEnv(t *testing.T, h Harness) *env {
	if h.Resolution == 0 {
		h.Resolution = 1
	}
	e := &env{Assertions: require.New(t), t: t, h: h, ctx: t.Context(), root: h.Open(t)}
	t.Cleanup(func() { _ = e.root.Close() })
	e.store = e.root
	if h.Namespace != "" {
		e.store = e.root.Namespace(h.Namespace)
	}
	return e
}

// peer returns the store of another process on the same data.
func (e *env) peer() *kv.Store {
	if e.h.Peer == nil {
		return e.store
	}
	s := e.h.Peer(e.t, e.root)
	e.t.Cleanup(func() { _ = s.Close() })
	if e.h.Namespace != "" {
		return s.Namespace(e.h.Namespace)
	}
	return s
}

// key returns name as a key that may be in one transaction with any other that
// it returned.
func (e *env) key(name string) string {
	if e.h.OneSlot {
		return "{slot}" + name
	}
	return name
}

// longest is how many bytes a key of the case's store may have.
func (e *env) longest() int {
	if e.h.Namespace == "" {
		return kv.DefaultMaxKeyBytes
	}
	return kv.DefaultMaxKeyBytes - len(e.h.Namespace) - 1
}

// unit is a ttl that is short to wait for and long for the engine.
func (e *env) unit() time.Duration {
	if e.h.Virtual {
		return time.Minute
	}
	return max(100*time.Millisecond, 20*e.h.Resolution)
}

// slack is how much a deadline may be off for its being rounded.
func (e *env) slack() time.Duration { return e.h.Resolution - 1 }

// patience is how long something that comes by itself may take to come.
func (e *env) patience() time.Duration {
	if e.h.Virtual {
		return time.Hour
	}
	return 20 * time.Second
}

func (e *env) now() time.Time {
	now, err := e.store.Now(e.ctx)
	e.NoError(err)
	return now
}

// waitUntil returns when the engine's clock has reached at.
func (e *env) waitUntil(at time.Time) {
	for {
		left := at.Sub(e.now())
		if left <= 0 {
			return
		}
		time.Sleep(left)
		if e.h.Virtual { // exactly: the engine shall not be reminded of the time by a look at its clock
			return
		}
	}
}

// wait returns when d has passed on the engine's clock.
func (e *env) wait(d time.Duration) { e.waitUntil(e.now().Add(d)) }

// eventually returns when something that comes by itself has come.
func (e *env) eventually(come func() bool) {
	for waited := time.Duration(0); !come(); waited += e.unit() / 20 {
		e.Less(waited, e.patience(), "what should come does not")
		time.Sleep(e.unit() / 20)
	}
}

func (e *env) set(key, value string, ttl time.Duration) {
	e.NoError(e.store.Set(e.ctx, key, value, ttl))
}

// value checks that key is live with value want.
func (e *env) value(key, want string) {
	got, err := e.store.Get(e.ctx, key)
	e.NoErrorf(err, "Get(%q)", key)
	e.Equalf(want, got, "Get(%q)", key)
}

// absent checks that key is not live.
func (e *env) absent(keys ...string) {
	for _, key := range keys {
		_, err := e.store.Get(e.ctx, key)
		e.ErrorIsf(err, kv.ErrNotFound, "Get(%q)", key)
	}
}

func (e *env) entry(key string) kv.Entry {
	entry, err := e.store.Entry(e.ctx, key)
	e.NoErrorf(err, "Entry(%q)", key)
	return entry
}

// persists checks that key is live without a deadline.
func (e *env) persists(key string) {
	e.Truef(e.entry(key).ExpiresAt.IsZero(), "%q has a deadline", key)
	ttl, err := e.store.TTL(e.ctx, key)
	e.NoError(err)
	e.Equalf(kv.NoExpiry, ttl, "TTL(%q)", key)
}

// gives checks that f gives key the deadline now + ttl, and returns it.
func (e *env) gives(key string, ttl time.Duration, f func()) time.Time {
	before := e.now()
	f()
	after := e.now()
	deadline := e.entry(key).ExpiresAt
	e.Falsef(deadline.IsZero(), "%q has no deadline", key)
	e.Falsef(deadline.Before(before.Add(ttl-e.slack())), "%q: deadline %v, earlier than %v + %v", key, deadline, before, ttl)
	e.Falsef(deadline.After(after.Add(ttl+e.slack())), "%q: deadline %v, later than %v + %v", key, deadline, after, ttl)
	return deadline
}

// keeps checks that f keeps the deadline of key.
func (e *env) keeps(key string, f func()) {
	before := e.entry(key)
	f()
	e.sameDeadline(before, e.entry(key))
}

// sameDeadline checks that want and got have the same deadline.
func (e *env) sameDeadline(want, got kv.Entry) {
	e.Equalf(want.ExpiresAt.IsZero(), got.ExpiresAt.IsZero(), "deadline of %q: %v, want %v", got.Key, got.ExpiresAt, want.ExpiresAt)
	off := got.ExpiresAt.Sub(want.ExpiresAt).Abs()
	e.LessOrEqualf(off, e.slack(), "deadline of %q: %v, want %v", got.Key, got.ExpiresAt, want.ExpiresAt)
}

// sameEntry checks that got is want.
func (e *env) sameEntry(want, got kv.Entry) {
	e.sameDeadline(want, got)
	want.ExpiresAt = got.ExpiresAt
	e.Equal(want, got)
}

// expires checks that key is live until deadline, and not from then on.
func (e *env) expires(key string, deadline time.Time) {
	if e.h.Virtual {
		e.waitUntil(deadline.Add(-e.h.Resolution))
		e.Truef(e.exists(key), "%q is gone before its deadline", key)
		time.Sleep(e.h.Resolution) // and no look at the engine's clock
		e.Falsef(e.exists(key), "%q is live at its deadline", key)
		return
	}
	for {
		before := e.now()
		live := e.exists(key)
		after := e.now()
		if after.Before(deadline.Add(-e.slack())) {
			e.Truef(live, "%q is gone before its deadline", key)
		}
		if before.After(deadline.Add(e.slack())) {
			e.Falsef(live, "%q is live after its deadline", key)
			return
		}
		time.Sleep(e.unit() / 20)
	}
}

func (e *env) exists(key string) bool {
	found, err := e.store.Exists(e.ctx, key)
	e.NoErrorf(err, "Exists(%q)", key)
	return found
}

// pastDeadlines gives keys, each with value "v", a deadline and waits until it has passed.
func (e *env) pastDeadlines(keys ...string) {
	for _, key := range keys {
		e.set(key, "v", e.unit())
	}
	e.wait(e.unit() + e.slack())
}

// parallel runs f(0) to f(n-1) at the same time, and fails with their errors.
func (e *env) parallel(n int, f func(i int) error) {
	errs := make([]error, n)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	all.Wait()
	e.NoError(errors.Join(errs...))
}

// keysOf returns the keys of r as a scan yields them.
func (e *env) keysOf(s *kv.Store, r kv.Range) []string {
	keys := []string{}
	for entry, err := range s.Scan(e.ctx, r) {
		e.NoError(err)
		keys = append(keys, entry.Key)
	}
	return keys
}

// sameKeys checks that got is want, in this order on an ordered engine.
func (e *env) sameKeys(want, got []string) {
	if e.h.Unordered {
		e.ElementsMatch(want, got)
	} else {
		e.Equal(want, got)
	}
}

// fill sets n keys, prefix0000 and so on, and returns them in order.
func (e *env) fill(prefix string, n int) []string {
	keys := make([]string, n)
	entries := make(map[string]string, n)
	for i := range n {
		keys[i] = fmt.Sprintf("%s%04d", prefix, i)
		entries[keys[i]] = fmt.Sprint(i)
	}
	e.NoError(e.store.SetMany(e.ctx, entries, kv.NoExpiry))
	return keys
}
