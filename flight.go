package kv

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// A flight is one process's effort to get the value of a key that is not there,
// on behalf of all callers that wait for it. It goes through these states, in a goroutine of its own:
//
//	        key missing: take the lease          lease taken
//	claiming ─────────────────────────────────────────────────► computing ──► landed
//	   │ ▲                                                                      ▲
//	   │ │ the key changed, or LockTTL is over: then take the lease over        │
//	   ▼ │                                                                      │
//	waiting for another process's lease ────────────────────────────────────────┘
//	                                       the key has a value
//
// Value and lease share one key, so that deleting it invalidates both. A lease
// lists the takers that compute; whoever takes it over adds itself at the end.
// Who has computed stores the value if the key still lists it, in place of the
// takers up to itself; so the last taker's value is the one that stays, and
// while it computes, those of earlier takers serve. After an invalidation the key
// lists nobody of before, so what they computed reaches those who waited and nobody else.
//
// That must hold for those who join a flight, too. While it has not begun to
// compute anyone may join. Afterwards one must have seen the flight's taker in the key since the
// own call began. And what a waiting flight finds in the store counts only for
// those who joined before it looked.
type flight struct {
	guard  *guard
	task   task
	taker  string
	ctx    context.Context // ends when the last waiter has left
	cancel context.CancelFunc
	done   chan struct{} // closed when landed

	// guarded by guard.flights.mu
	waiters   int
	looks     int // at the store, for the waiters
	computing bool

	// written before done is closed
	found    cached
	err      error
	validFor int // waiters who joined before the look of this number
}

// task is what a caller wants to have computed.
type task struct {
	ctx     context.Context // the caller's
	name    string          // the key as the caller knows it
	key     string          // in the store
	compute func(context.Context) (string, error)
}

// flights are those of one process.
type flights struct {
	wakes *wakes

	mu         sync.Mutex
	byKey      map[string]*flight // guarded by mu; the one that may be joined
	refreshing map[string]string  // guarded by mu; key -> version of the value that is being refreshed
}

func newFlights(s *Store, prefix string) *flights {
	return &flights{
		wakes:      newWakes(s, prefix),
		byKey:      make(map[string]*flight),
		refreshing: make(map[string]string),
	}
}

// wait returns the value of t's key, or the error of computing it. seen is what
// the caller has seen under the key since its call began.
func (g *guard) wait(t task, seen cached) (cached, error) {
	var suspect *flight // began to compute before seen was read
	for {
		if err := t.ctx.Err(); err != nil {
			return cached{}, wrap("get", t.name, err)
		}
		f, ticket, joined := g.flights.join(g, t, seen, suspect)
		if joined {
			found, ok, err := f.await(t, ticket)
			if ok || err != nil {
				return found, err
			}
		} else {
			suspect = f
		}
		var err error
		if seen, err = g.look(t.ctx, t.key); err != nil || seen.servable() {
			return seen, err
		}
	}
}

// join makes the caller wait for the flight of its key, which it starts if there
// is none. joined is false if there is one that may have been invalidated: the
// caller must look at the key again, and if it does not list the flight then, either, the flight has been.
func (fl *flights) join(g *guard, t task, seen cached, suspect *flight) (f *flight, ticket int, joined bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	f = fl.byKey[t.key]
	if f != nil && f.computing && !seen.lists(f.taker) {
		if f != suspect {
			return f, 0, false
		}
		f = nil // it goes on for those who wait for it already
	}
	if f == nil {
		f = newFlight(g, t)
		fl.byKey[t.key] = f
		go f.run(seen)
	}
	f.waiters++
	return f, f.looks, true
}

func newFlight(g *guard, t task) *flight {
	t.ctx = context.WithoutCancel(t.ctx)
	f := &flight{guard: g, task: t, taker: newTaker(), done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(t.ctx)
	return f
}

// await returns what the flight found. ok is false if that is no answer for who joined with ticket.
func (f *flight) await(t task, ticket int) (found cached, ok bool, err error) {
	select {
	case <-f.done:
		return f.found, ticket < f.validFor, f.err
	case <-t.ctx.Done():
		err = t.ctx.Err()
	case <-f.guard.store.done():
		err = ErrClosed
	}
	f.leave()
	return cached{}, false, wrap("get", t.name, err)
}

// leave ends the flight if nobody is left who waits for it.
func (f *flight) leave() {
	fl := f.guard.flights
	fl.mu.Lock()
	defer fl.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		fl.forgetLocked(f)
		f.cancel()
	}
}

func (fl *flights) forgetLocked(f *flight) {
	if fl.byKey[f.task.key] == f {
		delete(fl.byKey, f.task.key)
	}
}

// run flies.
func (f *flight) run(seen cached) {
	defer f.cancel()
	lease, found, err := f.claim(seen)
	if lease == nil {
		f.land(found, err, f.looks) // only run's goroutine changes looks
		return
	}
	fl := f.guard.flights
	fl.mu.Lock()
	f.computing = true
	fl.mu.Unlock()
	found, err = f.compute(lease)
	f.land(found, err, math.MaxInt)
}

// land passes the result to all who wait.
func (f *flight) land(found cached, err error, validFor int) {
	fl := f.guard.flights
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.forgetLocked(f)
	f.found, f.err, f.validFor = found, err, validFor
	close(f.done)
}

// look reads the key on behalf of those who have joined so far.
func (f *flight) look() (cached, error) {
	fl := f.guard.flights
	fl.mu.Lock()
	f.looks++
	fl.mu.Unlock()
	return f.guard.look(f.task.ctx, f.task.key)
}

// claim returns a lease on the key, or what somebody else has stored there
// meanwhile. After LockTTL of waiting for somebody else it takes their lease over.
func (f *flight) claim(seen cached) (*lease, cached, error) {
	p := patience{flight: f}
	defer p.end()
	for {
		value := seen.leaseWith(f.taker)
		taken, began, err := f.bid(seen, value, &p)
		if taken {
			g, o := f.guard, leaseOptions{ttl: f.guard.lockTTL}
			return holdLease(f.task.ctx, g.store, f.task.key, value, began, o), cached{}, nil
		}
		if err != nil {
			return nil, cached{}, err
		}
		if seen, err = f.look(); err != nil || seen.servable() {
			return nil, seen, err
		}
	}
}

// bid tries to get the lease, or waits until that may be possible.
func (f *flight) bid(seen cached, value string, p *patience) (taken bool, began time.Time, err error) {
	g := f.guard
	switch {
	case seen.kind == 0:
		return takeLease(f.task.ctx, g.store, f.task.key, value, g.lockTTL)
	case p.over():
		return g.takeOver(f.task.ctx, f.task.key, seen.raw, value)
	}
	return false, began, wrap("get", f.task.name, p.wait())
}

// takeOver is takeLease for a key that holds the lease old.
func (g *guard) takeOver(ctx context.Context, key, old, value string) (taken bool, began time.Time, err error) {
	began = time.Now()
	taken, err = g.store.CompareAndSwap(ctx, key, old, value, g.lockTTL)
	if errors.Is(err, ErrUnknownOutcome) {
		if found, getErr := g.store.Get(ctx, key); getErr == nil {
			return found == value, began, nil
		}
	}
	return taken, began, err
}

// patience is how long a flight waits for the lease of another process.
type patience struct {
	flight *flight
	wake   *wake     // nil before the first wait
	until  time.Time // LockTTL after that
}

func (p *patience) over() bool { return p.wake != nil && !time.Now().Before(p.until) }

// wait returns when it is time to look at the key again.
func (p *patience) wait() error {
	g := p.flight.guard
	if p.wake != nil {
		return p.wake.wait(p.flight.ctx, max(1, time.Until(p.until))) // 0 would be without bound
	}
	p.until = time.Now().Add(g.lockTTL)
	var err error
	p.wake, err = g.flights.wakes.subscribe(p.flight.task.key)
	return err // look at once: the key may have changed before
}

func (p *patience) end() {
	if p.wake != nil {
		p.wake.cancel()
	}
}

// compute computes the value under the lease and stores it.
func (f *flight) compute(l *lease) (cached, error) {
	g, t := f.guard, f.task
	c, err := g.compute(f.ctx, t, f.taker)
	if !c.servable() {
		_ = l.release(t.ctx) // failing that, it ends at its deadline
		return c, err
	}
	ttl := g.age(t.ctx, &c)
	if l.complete(t.ctx, c.encode(), ttl) != nil {
		g.keep(t, f.taker, c, ttl)
	}
	return c, err
}

// keep stores c if the key lists the taker still: others may have joined it there
// since it took the lease. If c can't be stored, those who wait have it all the same.
func (g *guard) keep(t task, taker string, c cached, ttl time.Duration) {
	for range maxTakers { // more can't come between
		seen, err := g.look(t.ctx, t.key)
		if err != nil || !seen.lists(taker) {
			return
		}
		c.takers = seen.takersAfter(taker)
		swapped, err := g.store.CompareAndSwap(t.ctx, t.key, seen.raw, c.encode(), ttl)
		if errors.Is(err, ErrTooLarge) && c.takers == "" {
			_, _ = g.store.CompareAndDelete(t.ctx, t.key, seen.raw)
		}
		if swapped || err != nil && !errors.Is(err, ErrUnknownOutcome) {
			return
		}
	}
}
