package kv

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
)

// refresh computes the value anew behind the caller, unless that is being done
// already, here or in another process.
//
// The old value stays where it is, with its deadline, until the new one takes its place by
// compare-and-swap. So neither a refresh that fails nor a process that
// dies costs the old value, and one that was invalidated meanwhile stores
// nothing. That there is one refresh at a time is a lease on a key of its own; the key is
// one for this value alone, so that a refresh of an older one that hangs blocks nobody.
func (g *guard) refresh(t task, old cached) {
	t.ctx = context.WithoutCancel(t.ctx)
	if !g.flights.startRefresh(t.key, old.version) {
		return
	}
	go func() {
		defer g.flights.endRefresh(t.key, old.version)
		key, taker := g.refreshKey(t.key, old.version), newTaker()
		taken, began, err := takeLease(t.ctx, g.store, key, taker, g.lockTTL)
		if err != nil || !taken {
			return
		}
		l := holdLease(t.ctx, g.store, key, taker, began, leaseOptions{ttl: g.lockTTL})
		g.replace(t, old, taker)
		_ = l.release(t.ctx) // failing that, it ends at its deadline
	}()
}

// replace computes the value for taker, who has the lease, and stores it in old's place.
func (g *guard) replace(t task, old cached, taker string) {
	seen, err := g.look(t.ctx, t.key)
	if err != nil || seen.raw != old.raw {
		return // refreshed, invalidated or expired before we had the lease
	}
	c, err := g.compute(t.ctx, t, taker)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		slog.Error("kv: the refresh of a guarded value panicked", "key", t.name, "panic", p.Value, "stack", string(p.Stack))
	}
	if !c.servable() {
		return
	}
	ttl := g.age(t.ctx, &c)
	_, _ = g.store.CompareAndSwap(t.ctx, t.key, old.raw, c.encode(), ttl) // failing that, the old value serves on
}

// startRefresh says whether the value of this version is not being refreshed by this process yet.
func (fl *flights) startRefresh(key, version string) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.refreshing[key] == version {
		return false
	}
	fl.refreshing[key] = version
	return true
}

func (fl *flights) endRefresh(key, version string) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.refreshing[key] == version {
		delete(fl.refreshing, key)
	}
}

// refreshKey returns the key of the lease under which the value of this version is refreshed. It is
// no longer for a long key, and no key of a value: those contain no bare "%".
func (g *guard) refreshKey(key, version string) string {
	sum := sha256.Sum256([]byte(version + key))
	return g.prefix + "%refresh:" + base64.RawURLEncoding.EncodeToString(sum[:15])
}
