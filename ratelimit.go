package kv

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// Algorithm says how a [RateLimiter] counts. C below is the capacity:
// Limit.Requests, for TokenBucket Limit.Burst. The bounds hold for every interval of length T,
// wherever it begins, and are reached in the worst case. A Refund counts as given back when it comes.
type Algorithm int

const (
	// FixedWindow admits C requests in a window that begins with the first of
	// them; the next window begins with the first request after its end. The
	// simplest to explain, and the coarsest: 2C - 1 requests may come at once, those at the end of
	// a window and those at the beginning of the next. At most C + C x T / Window in T, the fraction T / Window rounded up.
	FixedWindow Algorithm = iota

	// SlidingWindow is the sliding window counter
	// (https://blog.cloudflare.com/counting-things-a-lot-of-different-things): windows as above,
	// and the requests of the one before count by the part of it that still
	// lies within the last Window, as if they had come evenly. At most C + C x T / Window in T, rounded down: 2C - 1 in
	// a little less than one Window, if a whole window's requests came at its very end. It
	// may deny a request that an exact log of the last Window would admit, if they came early.
	SlidingWindow

	// TokenBucket is the generic cell rate algorithm (GCRA, ITU-T I.371): a
	// bucket of C tokens, each request taking one, which refills evenly, Requests in each Window. At most
	// C + Requests x T / Window in T, rounded down. It lets a caller who spreads
	// its requests work without a denial and a burst up to C pass.
	TokenBucket
)

// String returns the algorithm's name, "fixed window".
func (a Algorithm) String() string {
	switch a {
	case FixedWindow:
		return "fixed window"
	case SlidingWindow:
		return "sliding window"
	case TokenBucket:
		return "token bucket"
	}
	return "unknown algorithm"
}

// Limit is what a [RateLimiter] admits of each key: Requests in each Window, in
// the sense of Algorithm.
//
// Requests and Burst are at least 1 and at most 2^51. Window is positive, rounded up to
// whole microseconds, and at most 2^51 of them (71 years), as is the time in which an empty token bucket fills,
// Burst x Window / Requests. Burst belongs to TokenBucket: with another algorithm it must be 0 or Requests.
type Limit struct {
	Requests  int64
	Window    time.Duration
	Algorithm Algorithm // default: FixedWindow
	Burst     int64     // TokenBucket: capacity; 0: Requests
}

// quota returns l as a quota, or an error that says what is wrong with it.
func (l Limit) quota() (Quota, error) {
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	q := Quota{Capacity: l.Burst, Amount: l.Requests, Period: roundUp(l.Window)}
	switch l.Algorithm {
	case FixedWindow:
		q.Refill = RefillWindow
	case SlidingWindow:
		q.Refill = RefillSliding
	case TokenBucket:
		q.Refill = RefillSteady
	default:
		return q, fmt.Errorf("%w: unknown algorithm %d", ErrInvalidLimit, l.Algorithm)
	}
	if l.Algorithm != TokenBucket && l.Burst != l.Requests {
		return q, fmt.Errorf("%w: a %s has no burst", ErrInvalidLimit, l.Algorithm)
	}
	if err := q.check(); err != nil {
		return q, fmt.Errorf("%w: %d requests in %v with a burst of %d: see kv.Limit for the bounds", err, l.Requests, l.Window, l.Burst)
	}
	return q, nil
}

// roundUp returns d in whole microseconds, never less than d.
func roundUp(d time.Duration) time.Duration {
	whole := d.Truncate(time.Microsecond)
	if whole < d && whole <= maxQuota*time.Microsecond {
		whole += time.Microsecond
	}
	return whole
}

// RateLimiterOptions of a [RateLimiter]. The zero value of each field is its default.
type RateLimiterOptions struct {
	Prefix string // of the store's keys, which are Key(Prefix, key); "" means "ratelimit"
}

// RateLimiter admits a limited number of requests per key: a user, an address, a
// token. Most callers want Allow, and answer 429 with Retry-After when it says no:
//
//	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: 100, Window: time.Minute}, nil)
//	result, err := limiter.Allow(ctx, userID)
//	if !result.Allowed {
//		// come back after result.RetryAfter
//	}
//
// Those who would rather be late than be denied want Wait.
//
// Each decision is one atomic step on the engine's clock: however many goroutines and processes ask at
// once, no more than the limit are admitted. What is denied costs nothing. A
// key is stored from its first request until it is as if never used, never without a deadline.
//
// If the engine's clock is set back, on a failover to a server whose clock is behind, nobody gains by it; keys in use may
// deny for as long as it was set back, and at most for one Window more than usual (TokenBucket: one full refill).
//
// Limiters with the same prefix share their counts, in all processes. They should
// have the same Limit; another Requests, Window or Burst applies from its next
// request on. Another Algorithm needs another Prefix: what one has stored is [ErrWrongType] to the other.
//
// When an engine fails, the result is the zero RateLimitResult, which denies, and an error:
// whether to let the request pass all the same is the caller's decision.
type RateLimiter struct {
	s      *Store // the whole store, not a namespace: prefix is joined to a key once, not twice
	prefix string // what stands before the escaped key, the namespace included
	quota  Quota
	lines  waitLines
}

// NewRateLimiter returns a limiter on s. opts may be nil. A limit out of its bounds is [ErrInvalidLimit].
func NewRateLimiter(s *Store, limit Limit, opts *RateLimiterOptions) (*RateLimiter, error) {
	quota, err := limit.quota()
	if err != nil {
		return nil, wrap("newratelimiter", "", err)
	}
	prefix := "ratelimit"
	if opts != nil && opts.Prefix != "" {
		prefix = opts.Prefix
	}
	return &RateLimiter{
		s:      &Store{engine: s.engine, root: s.root},
		prefix: s.whole(Key(prefix, "")),
		quota:  quota,
	}, nil
}

// RateLimitResult is what a [RateLimiter] says to a request.
type RateLimitResult struct {
	Allowed bool

	// Count is what has been admitted and still counts, this request included if it was; Limit is the
	// capacity, and Remaining what is left of it: a request that costs so much would be admitted now.
	Count, Limit, Remaining int64

	// RetryAfter is, when denied, how long to wait: after it the same call would be allowed, if
	// nobody else is, and 1 us sooner it would not. Else 0.
	RetryAfter time.Duration

	// ResetAfter is how long it takes until the key is as if it had never been used.
	ResetAfter time.Duration
}

// Allow asks whether a request of key may pass, and counts it if so.
func (r *RateLimiter) Allow(ctx context.Context, key string) (RateLimitResult, error) {
	return r.take(ctx, "allow", key, 1, false)
}

// AllowN is Allow for a request that costs n: all of it is counted or nothing.
// It is [ErrCost] if n is below 1, or over the capacity, so that it would never be allowed.
func (r *RateLimiter) AllowN(ctx context.Context, key string, n int64) (RateLimitResult, error) {
	return r.take(ctx, "allown", key, n, false)
}

// Peek returns what Allow would say now (Count and Remaining, too), and counts nothing.
func (r *RateLimiter) Peek(ctx context.Context, key string) (RateLimitResult, error) {
	return r.take(ctx, "peek", key, 1, true)
}

// Refund gives back n that Allow or AllowN admitted, for work that was not done
// after all. It never gives back more than still counts, so nobody gets more than the limit by it. [ErrCost] if n is below 1.
func (r *RateLimiter) Refund(ctx context.Context, key string, n int64) error {
	if n < 1 {
		return wrap("refund", key, ErrCost)
	}
	_, err := r.s.take(ctx, r.key(key), r.quota, -n, false)
	r.lines.wake(key)
	return r.wrap("refund", key, err)
}

// Reset makes key as if it had never been used.
func (r *RateLimiter) Reset(ctx context.Context, key string) error {
	_, err := r.s.Delete(ctx, r.key(key))
	r.lines.wake(key)
	return r.wrap("reset", key, err)
}

// Wait waits until a request of key is allowed, and counts it. It sleeps until the next one can be
// allowed and asks again; it does not poll.
//
// It returns [context.DeadlineExceeded] at once if ctx's deadline comes before
// that, else ctx's error when ctx ends and [ErrClosed] when the store closes. Nothing is counted then.
//
// Those who wait with one RateLimiter for the same key are served in the order in which they came, and
// woken by its Refund and Reset. Calls of Allow and other limiters on the same key may
// overtake them, and what those give back is noticed after the sleep that is under way.
func (r *RateLimiter) Wait(ctx context.Context, key string) error {
	ctx = background(ctx)
	return r.wrap("wait", key, r.wait(ctx, key))
}

func (r *RateLimiter) wait(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	place, ahead := r.lines.join(key)
	defer r.lines.leave(key, place)
	if ahead > 0 {
		if err := r.awaitTurn(ctx, key, place, ahead); err != nil {
			return err
		}
	}
	for {
		u, err := r.s.take(ctx, r.key(key), r.quota, 1, false)
		if err != nil || u.OK {
			return err
		}
		if err := r.sleep(ctx, u.RetryAfter, place.Value.(*limitWaiter).wake); err != nil {
			return err
		}
	}
}

// awaitTurn waits for the first place in the line, behind ahead others, unless ctx would end before they and this one were served.
func (r *RateLimiter) awaitTurn(ctx context.Context, key string, place *list.Element, ahead int) error {
	u, err := r.s.take(ctx, r.key(key), r.quota, min(int64(ahead)+1, r.quota.Capacity), true)
	if err != nil {
		return err
	}
	if endsWithin(ctx, u.RetryAfter) {
		return context.DeadlineExceeded
	}
	select {
	case <-place.Value.(*limitWaiter).turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.s.done():
		return ErrClosed
	}
}

// sleep waits for d or until woken, unless ctx ends before d has passed.
func (r *RateLimiter) sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	if endsWithin(ctx, d) {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.s.done():
		return ErrClosed
	}
}

// endsWithin says whether ctx has a deadline that is not after d from now.
func endsWithin(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= d
}

func (r *RateLimiter) take(ctx context.Context, op, key string, n int64, dry bool) (RateLimitResult, error) {
	if n < 1 || n > r.quota.Capacity {
		return RateLimitResult{}, wrap(op, key, ErrCost)
	}
	u, err := r.s.take(ctx, r.key(key), r.quota, n, dry)
	if err != nil {
		return RateLimitResult{}, r.wrap(op, key, err)
	}
	return RateLimitResult{
		Allowed:    u.OK,
		Count:      u.Used,
		Limit:      r.quota.Capacity,
		Remaining:  max(r.quota.Capacity-u.Used, 0),
		RetryAfter: u.RetryAfter,
		ResetAfter: u.ResetAfter,
	}, nil
}

// key returns the store's key of key, with the namespace.
func (r *RateLimiter) key(key string) string { return keyIn(r.prefix, key) }

// wrap names op and the caller's key instead of the store's.
func (r *RateLimiter) wrap(op, key string, err error) error {
	if e, ok := err.(*Error); ok {
		err = e.Err
	}
	return wrap(op, key, err)
}

// waitLines are those who wait, per key in the order in which they came. Only the first of each line
// asks the store: otherwise everyone would ask at once whenever one of them can be allowed.
type waitLines struct {
	mu    sync.Mutex
	lines map[string]*list.List // guarded by mu; of *limitWaiter; no line is empty
}

type limitWaiter struct {
	turn chan struct{} // closed when this is the first of the line
	wake chan struct{} // has one element if something was given back
}

// join returns a place at the end of key's line, and how many are ahead of it.
func (w *waitLines) join(key string) (place *list.Element, ahead int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.lines[key]
	if line == nil {
		line = list.New()
		if w.lines == nil {
			w.lines = make(map[string]*list.List)
		}
		w.lines[key] = line
	}
	return line.PushBack(&limitWaiter{turn: make(chan struct{}), wake: make(chan struct{}, 1)}), line.Len() - 1
}

// leave gives a place up, and the first one to who comes next.
func (w *waitLines) leave(key string, place *list.Element) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.lines[key]
	first := line.Front() == place
	line.Remove(place)
	next := line.Front()
	if next == nil {
		delete(w.lines, key)
	} else if first {
		close(next.Value.(*limitWaiter).turn)
	}
}

// wake lets the first of key's line ask again.
func (w *waitLines) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := w.lines[key]
	if line == nil {
		return
	}
	select {
	case line.Front().Value.(*limitWaiter).wake <- struct{}{}:
	default: // it is to ask again already
	}
}
