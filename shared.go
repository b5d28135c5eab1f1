package kv

import (
	"context"
	"sync"
	"time"
)

// GuardedGet returns the string under key, which it computes and keeps for ttl
// if it is missing. However many call it for one key of one store, one of them
// computes and the rest get its value, as with [Guarded.Get].
//
// It is a [Guarded] with Prefix "guarded", TTL ttl, defaults otherwise, and the
// string stored as it is; the Invalidate of any Guarded with that prefix
// forgets its value.
func GuardedGet(ctx context.Context, s *Store, key string, ttl time.Duration, compute func(context.Context) (string, error)) (string, error) {
	g := guard{store: s, ttl: ttl, lockTTL: defaultComputeTTL, invalid: ttl < KeepTTL}
	whole := keyIn(defaultGuardedPrefix+":", key)
	seen, err := g.look(ctx, whole)
	if err == nil && !seen.servable() {
		seen, err = obtainShared(g, task{ctx: background(ctx), name: key, key: whole, compute: compute}, seen)
	}
	if err == nil && seen.kind == cachedAbsent {
		err = ErrNotFound
	}
	return seen.payload, err
}

// shared are the flights of GuardedGet. They are here only while somebody waits
// for one: nothing keeps a store alive that its users have let go.
var shared = struct {
	mu     sync.Mutex
	places map[location]*sharedFlights // guarded by mu
}{places: make(map[location]*sharedFlights)}

// location is a namespace of a store.
type location struct {
	root   *root
	prefix string
}

type sharedFlights struct {
	flights *flights
	users   int // guarded by shared.mu
}

func obtainShared(g guard, t task, seen cached) (cached, error) {
	at := location{g.store.root, g.store.prefix}
	shared.mu.Lock()
	s := shared.places[at]
	if s == nil {
		s = &sharedFlights{flights: newFlights(g.store, defaultGuardedPrefix+":")}
		shared.places[at] = s
	}
	s.users++
	shared.mu.Unlock()

	defer func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(shared.places, at)
		}
	}()
	g.flights = s.flights
	return g.obtain(t, seen)
}
