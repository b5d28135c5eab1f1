package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// PanicError is what callers of [Guarded.Get] get when compute panicked.
type PanicError struct {
	Value any    // of the panic
	Stack []byte // of the goroutine that panicked
}

// Error names the value of the panic. The stack is in the field.
func (e *PanicError) Error() string { return fmt.Sprintf("kv: compute panicked: %v", e.Value) }

var errGoexit = errors.New("kv: compute called runtime.Goexit")

// compute computes the value of t for taker. What is to be stored of it is servable;
// an error that is remembered comes with what is to be stored, too.
func (g *guard) compute(ctx context.Context, t task, taker string) (cached, error) {
	began := time.Now()
	payload, err := g.call(ctx, t)
	c := cached{version: taker[:versionLen], cost: time.Since(began), payload: payload}
	switch {
	case err == nil:
		c.kind = cachedValue
	case g.negativeTTL > 0 && errors.Is(err, ErrNotFound):
		c.kind, c.payload = cachedAbsent, ""
	}
	return c, err
}

// call calls t's compute and returns no later than ctx, Timeout and the store
// allow: a compute that ignores its context holds nobody up.
func (g *guard) call(ctx context.Context, t task) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", wrap("get", t.name, err)
	}
	var cancel context.CancelFunc
	if g.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	out := make(chan outcome, 1)
	go protect(ctx, t.compute, out)
	select {
	case o := <-out:
		return o.payload, o.err
	case <-ctx.Done():
		return "", wrap("get", t.name, ctx.Err())
	case <-g.store.done():
		return "", wrap("get", t.name, ErrClosed)
	}
}

type outcome struct {
	payload string
	err     error
}

// protect calls compute and always sends an outcome: this goroutine is nobody's, so
// a panic would end the program.
func protect(ctx context.Context, compute func(context.Context) (string, error), out chan<- outcome) {
	o := outcome{err: errGoexit}
	defer func() {
		if r := recover(); r != nil {
			o = outcome{err: &PanicError{Value: r, Stack: debug.Stack()}}
		}
		out <- o
	}()
	payload, err := compute(ctx)
	if err != nil {
		payload = ""
	}
	o = outcome{payload, err}
}

// refresh computes the value anew behind the caller, unless that is being done
// already, here or in another process.
//
// The old value stays where it is, with its deadline, until the new one takes its place by
// compare-and-swap. So neither a refresh that fails nor a process that
// dies costs the old value, and one that was invalidated meanwhile stores
// nothing. That there is one refresh at a time is a lease on a key of its own.
func (g *guard) refresh(t task, old cached) {
	t.ctx = context.WithoutCancel(t.ctx)
	if !g.flights.startRefresh(t.key, old.version) {
		return
	}
	go func() {
		defer g.flights.endRefresh(t.key, old.version)
		key, taker := g.refreshKey(t.key), newTaker()
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
