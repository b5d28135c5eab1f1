package kv

import (
	"context"
	"time"
)

// GuardedOptions of [NewGuarded]. The zero value of each field is its default.
// With a negative duration a Get that would have to compute fails with [ErrInvalidTTL].
type GuardedOptions[T any] struct {
	Prefix      string        // of the store's keys; "": "guarded". One prefix, one type of value
	TTL         time.Duration // how long a value is fresh; 0, NoExpiry: until invalidated
	StaleFor    time.Duration // how long after TTL the old value is served at once while it is refreshed behind the caller; 0: not at all
	LockTTL     time.Duration // lease of the process that computes, renewed meanwhile; a caller in another process that has waited this long computes itself; 0: 2 s
	Timeout     time.Duration // bound on one compute; 0: none
	Jitter      float64       // part of TTL, 0 to 1, of which a random share is taken off, so that values computed together don't end together
	Beta        float64       // XFetch: how eagerly a value is refreshed before its TTL ends, behind the caller; 1 is usual, 0: off
	NegativeTTL time.Duration // how long it is remembered that compute said ErrNotFound; 0: not at all
	Codec       Codec[T]      // nil: [JSON]
}

const (
	defaultGuardedPrefix = "guarded"
	defaultComputeTTL    = 2 * time.Second
)

// Guarded caches what is slow to compute, and guards the computation against a
// stampede: when a value is missing, one caller of the process
// computes it and, across processes that share a store, one process; the rest get its value by event. Make one with [NewGuarded].
// It is safe for concurrent use.
//
// A caller needs [Guarded.Get] and, where the source changes before its time, [Guarded.Invalidate].
//
// # Who computes
//
// The computation runs in a goroutine and a context of its own. The context has the
// values of the first caller's and ends by Timeout, when the last caller that
// waits has left, or with the store; whoever waits is then free at once, even if
// compute ignores its context. A caller whose own ctx ends leaves alone.
//
// An error of compute goes to the callers that waited for it, as it is, and is
// not stored: the next call computes again. NegativeTTL makes an exception for
// [ErrNotFound]. A panic becomes a [*PanicError] and [runtime.Goexit] an
// error, for everyone who waited, the caller that began included.
//
// Every caller gets a copy decoded by the codec, even the first.
//
// # Several processes
//
// The process that computes holds a lease in the store, under the value's key,
// and renews it. If it dies, the lease ends after LockTTL. If it only takes long, then callers in other
// processes compute for themselves after LockTTL of waiting. Then the value of the process that began last is
// the one that stays, but others that are done before serve meanwhile.
// Two Guarded in one process behave like two processes.
//
// # Age
//
// Without StaleFor and Beta the key's deadline decides, on the store's clock. With
// them a value carries the end of its freshness on that clock, and readers
// compare it with the store's time as they last measured it, which is whenever
// they store a value, once before the first hit otherwise, and now and then behind
// a caller. So clocks that disagree don't matter, and a hit costs one [Store.Get].
//
// A refresh behind the caller is done by one process at a time. If it fails, the old
// value stays, and the next caller that finds it due tries again. A panic in it is logged by
// [log/slog]. A refresh that ends after the old value's key has, is discarded.
//
// # What it does not do
//
// A value over the store's limit is returned but not kept. A stored value that the codec
// can't decode is the codec's error, and what no Guarded wrote [ErrWrongType]: change
// Prefix when T changes. Errors of the store are returned; Get does not compute unguarded then.
type Guarded[T any] struct {
	guard
	codec Codec[T]
}

// guard is the part of Guarded that does not depend on the type of the values.
type guard struct {
	store   *Store
	prefix  string // of the keys, with its ":"
	flights *flights
	clock   *engineTime
	invalid bool // an option is

	ttl, staleFor, lockTTL, timeout, negativeTTL time.Duration
	jitter, beta                                 float64
}

// NewGuarded returns a Guarded on s. opts may be nil: then values stay until they are invalidated.
func NewGuarded[T any](s *Store, opts *GuardedOptions[T]) *Guarded[T] {
	var o GuardedOptions[T]
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = defaultGuardedPrefix
	}
	if o.LockTTL == 0 {
		o.LockTTL = defaultComputeTTL
	}
	if o.Codec == nil {
		o.Codec = JSON[T]()
	}
	prefix := Key(o.Prefix, "")
	return &Guarded[T]{codec: o.Codec, guard: guard{
		store:   s,
		prefix:  prefix,
		flights: newFlights(s, prefix),
		clock:   newEngineTime(),
		invalid: o.TTL < KeepTTL || min(o.StaleFor, o.LockTTL, o.Timeout, o.NegativeTTL) < 0,

		ttl: o.TTL, staleFor: o.StaleFor, lockTTL: o.LockTTL, timeout: o.Timeout, negativeTTL: o.NegativeTTL,
		jitter: min(max(o.Jitter, 0), 1), beta: max(o.Beta, 0),
	}}
}

// Get returns the value of key. If there is none it calls compute, or waits for
// another caller that does, as the type's documentation says.
func (g *Guarded[T]) Get(ctx context.Context, key string, compute func(context.Context) (T, error)) (T, error) {
	whole := keyIn(g.prefix, key)
	seen, err := g.look(ctx, whole)
	if err == nil && (!seen.servable() || g.due(&seen)) {
		seen, err = g.obtain(g.task(ctx, key, whole, compute), seen)
	}
	if err != nil {
		var none T
		return none, err
	}
	return g.open(key, &seen)
}

func (g *Guarded[T]) task(ctx context.Context, key, whole string, compute func(context.Context) (T, error)) task {
	return task{ctx: background(ctx), name: key, key: whole, compute: func(ctx context.Context) (string, error) {
		v, err := compute(ctx)
		if err != nil {
			return "", err
		}
		return g.codec.Encode(v)
	}}
}

func (g *Guarded[T]) open(key string, c *cached) (T, error) {
	var none T
	if c.kind == cachedAbsent {
		return none, ErrNotFound
	}
	v, err := g.codec.Decode(c.payload)
	if err != nil {
		return none, wrap("get", key, err)
	}
	return v, nil
}

// Invalidate forgets the value of key. What a compute that is already
// running returns, in any process, reaches only those callers whose Get began before.
func (g *Guarded[T]) Invalidate(ctx context.Context, key string) error {
	// Value, lease and the list of those who compute are one key.
	_, err := g.store.Delete(ctx, keyIn(g.prefix, key))
	return err
}

// look reads what is under key; a zero cached if it is missing.
func (g *guard) look(ctx context.Context, key string) (c cached, err error) {
	raw, err := g.store.Get(ctx, key)
	switch {
	case err == ErrNotFound:
		return c, nil
	case err != nil:
		return c, err
	case !c.parse(raw):
		return cached{}, wrap("get", key, ErrWrongType)
	}
	return c, nil
}

// obtain is the way on from a look that did not find a fresh value.
func (g *guard) obtain(t task, seen cached) (cached, error) {
	if g.invalid {
		return cached{}, wrap("get", t.name, ErrInvalidTTL)
	}
	if !seen.servable() {
		return g.wait(t, seen)
	}
	g.refresh(t, seen)
	return seen, nil
}
