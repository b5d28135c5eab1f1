package kv

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"
)

// lease is a claim on a key: the key holds value, which contains a random
// token, until the lease's deadline. It is written only by compare-and-swap and
// compare-and-delete of that value, so no lease ever touches a successor's.
//
// The local deadline counts from before the last successful write was sent and
// lies leaseMargin before the store's. It is never later than what the store may
// believe: see sending and doubtLocked for writes of which nobody knows yet whether they have happened.
//
// Renewal is a timer, not a goroutine: a lease that is released within a third
// of its ttl starts none.
type lease struct {
	s          *Store
	key, value string
	parent     context.Context // gives values to context and to renewals
	bound      time.Time       // end of maxHold; zero: none

	mu       sync.Mutex
	state    leaseState              // guarded by mu
	cause    error                   // guarded by mu; why state left leaseHeld first
	unsure   bool                    // guarded by mu; the write that should have finished the lease failed
	noRenew  bool                    // guarded by mu
	ttl      time.Duration           // guarded by mu; what renewals ask for
	doubt    time.Duration           // guarded by mu; the shortest ttl that a write of unknown outcome asked for; 0: none
	deadline time.Time               // guarded by mu
	renewAt  time.Time               // guarded by mu
	backoff  time.Duration           // guarded by mu; after the last failed renewal, 0 after a good one
	writing  chan struct{}           // guarded by mu; closed after the write under way, nil if there is none
	timer    *time.Timer             // guarded by mu; fires at renewAt or deadline
	ctx      context.Context         // guarded by mu; nil until somebody asks
	cancel   context.CancelCauseFunc // guarded by mu; of ctx
}

type leaseState uint8

const (
	leaseHeld  leaseState = iota
	leaseLost             // the deadline passed, or the key was not ours any more
	leaseEnded            // completed, released or abandoned
)

type leaseOptions struct {
	ttl     time.Duration // of the key
	noRenew bool
	maxHold time.Duration // 0: no bound
}

// leaseMargin is how long before the store's deadline the local one lies: a
// twentieth of ttl. It covers clocks that run at different rates, the store's
// resolution and a timer that fires late.
func leaseMargin(ttl time.Duration) time.Duration { return ttl / 20 }

// renewAfter is when a lease is renewed.
func renewAfter(ttl time.Duration) time.Duration { return ttl / 3 }

// attemptLimit is how long one renewal may take before it is given up and tried anew.
func attemptLimit(ttl time.Duration) time.Duration { return max(ttl/6, time.Millisecond) }

// nextBackoff is the pause before a renewal that failed is tried again: a sixtieth of ttl, doubling up
// to a twentieth, so that an attempt always falls into the last twentieth before the local deadline.
func nextBackoff(last, ttl time.Duration) time.Duration {
	return max(min(max(2*last, ttl/60), ttl/20), time.Microsecond)
}

// undoLimit bounds how long a caller waits for a write of unknown outcome to be taken back.
const undoLimit = 5 * time.Second

// newToken returns 130 random bits, printable. They come from the kernel, which knows when a virtual machine was
// restored from a snapshot: two copies of one process must not draw the same.
func newToken() string { return rand.Text() }

// takeLease writes value, which contains a fresh token, under key if the key is free. began is
// a local time before that write, for [lease.hold].
//
// If the outcome of the write is unknown, it looks whether our token is there. If that can't be
// told, it takes the token back, best effort, and returns the error: should the write land even
// later, then nobody holds a lease by it and the key frees itself after ttl.
func takeLease(ctx context.Context, s *Store, key, value string, ttl time.Duration) (taken bool, began time.Time, err error) {
	began = time.Now()
	taken, err = s.SetNX(ctx, key, value, ttl)
	if !errors.Is(err, ErrUnknownOutcome) {
		return taken, began, err
	}
	ctx = background(ctx)
	if ctx.Err() == nil {
		if found, getErr := s.Get(ctx, key); getErr == nil {
			return found == value, began, nil
		}
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(attemptLimit(ttl), undoLimit))
	defer cancel()
	_, _ = s.CompareAndDelete(undo, key, value)
	return false, began, err
}

// holdLease returns a new lease that is held, see [lease.hold].
func holdLease(parent context.Context, s *Store, key, value string, began time.Time, o leaseOptions) *lease {
	l := new(lease)
	l.hold(parent, s, key, value, began, o)
	return l
}

// hold starts keeping a lease whose key has just been written with value
// and o.ttl by a call that began at began. The lease's context has the values of parent, not its cancellation.
func (l *lease) hold(parent context.Context, s *Store, key, value string, began time.Time, o leaseOptions) {
	l.s, l.key, l.value, l.parent, l.noRenew = s, key, value, background(parent), o.noRenew
	if o.maxHold > 0 {
		l.bound = began.Add(o.maxHold)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewedLocked(began, o.ttl)
	l.timer = time.AfterFunc(time.Until(l.nextLocked()), l.fire)
}

// context ends with cause ErrLockLost when the lease is lost, before anyone
// else can have the key, and with context.Canceled when it is completed, released or abandoned.
func (l *lease) context() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil {
		inner, cancel := context.WithCancelCause(context.WithoutCancel(l.parent))
		l.ctx, l.cancel = &leaseContext{inner, l}, cancel
		if l.state != leaseHeld {
			cancel(l.cause)
		}
	}
	return l.ctx
}

// leaseContext is a context that ends with a lease.
type leaseContext struct {
	context.Context
	lease *lease
}

// Err looks at the clock: on a machine so busy that timers come late, a lost
// lease must not look held.
func (c *leaseContext) Err() error {
	c.lease.alive()
	return c.Context.Err()
}

// alive says that the local deadline has not passed and the lease has neither been lost nor ended.
func (l *lease) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heldLocked(time.Now())
}

// extend gives the lease ttl from now on, and later renewals, too. ErrLockLost if it is not ours any more.
func (l *lease) extend(ctx context.Context, ttl time.Duration) error {
	if ttl <= 0 {
		return ErrInvalidTTL
	}
	ctx = background(ctx)
	if err := l.startWrite(ctx); err != nil {
		return err
	}
	return l.write(ctx, ttl)
}

// complete ends the lease and leaves value in its key for ttl. ErrLockLost if
// the key was not ours any more; nothing is written then. After another error it may be called again.
func (l *lease) complete(ctx context.Context, value string, ttl time.Duration) error {
	ctx = detached(ctx)
	swap := func() (bool, error) { return l.s.CompareAndSwap(ctx, l.key, l.value, value, ttl) }
	swapped := func() bool {
		found, err := l.s.Get(ctx, l.key)
		return err == nil && found == value
	}
	return l.finish(swap, swapped)
}

// release ends the lease and deletes its key. ErrLockLost if the key was not
// ours any more. After another error it may be called again; else the key frees itself at its deadline.
func (l *lease) release(ctx context.Context) error {
	ctx = detached(ctx)
	del := func() (bool, error) { return l.s.CompareAndDelete(ctx, l.key, l.value) }
	deleted := func() bool { // until the deadline nothing but our delete removed it
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Now().Before(l.deadline)
	}
	return l.finish(del, deleted)
}

// abandon ends the lease here and writes nothing: the key frees itself at its deadline.
func (l *lease) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(leaseEnded, context.Canceled)
}

// finish ends the lease, its context first, and then does write. A write whose outcome is unknown
// is repeated once; one that then finds nothing to do succeeded if did says so.
func (l *lease) finish(write func() (bool, error), did func() bool) error {
	unsure, ok := l.end()
	if !ok {
		return ErrLockLost
	}
	done, err := write()
	if errors.Is(err, ErrUnknownOutcome) {
		unsure = true
		done, err = write()
	}
	if err != nil {
		l.mu.Lock()
		l.unsure = true
		l.mu.Unlock()
		return err
	}
	if done || unsure && did() {
		return nil
	}
	return ErrLockLost
}

// end marks the lease as ended. ok is false if it was before, unless finishing it failed, which unsure says.
func (l *lease) end() (unsure, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	unsure, l.unsure = l.unsure, false
	ok = unsure || l.state != leaseEnded
	l.leaveLocked(leaseEnded, context.Canceled)
	return unsure, ok
}

// fire is called by the timer: it is time to renew, or the deadline has come.
func (l *lease) fire() {
	ttl, due := l.startRenewal()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.parent), attemptLimit(ttl))
	defer cancel()
	_ = l.write(ctx, ttl) // a failure is tried again by the timer, a loss ends the context
}

func (l *lease) startRenewal() (ttl time.Duration, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.heldLocked(now) {
		return 0, false
	}
	due = l.writing == nil && !l.noRenew && !now.Before(l.renewAt)
	if due {
		l.writing = make(chan struct{})
	}
	l.scheduleLocked(now)
	return l.ttl, due
}

// startWrite waits until no other write of the lease is under way and reserves
// the next one: two at once could reach the store in either order.
func (l *lease) startWrite(ctx context.Context) error {
	for {
		l.mu.Lock()
		now := time.Now()
		held, busy := l.heldLocked(now), l.writing
		if held && busy == nil {
			l.writing = make(chan struct{})
			l.scheduleLocked(now)
		}
		l.mu.Unlock()
		if !held {
			return ErrLockLost
		}
		if busy == nil {
			return nil
		}
		select {
		case <-busy:
		case <-l.context().Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write gives the key the deadline now + ttl. It requires a reservation by
// startRenewal or startWrite, and frees it.
func (l *lease) write(ctx context.Context, ttl time.Duration) error {
	w := l.sending(ttl)
	swapped, err := l.s.CompareAndSwap(ctx, l.key, l.value, l.value, ttl)
	held, lost := l.sent(w, swapped, err)
	if swapped && lost {
		l.drop()
	}
	if err == nil && !held {
		return ErrLockLost
	}
	return err
}

// leaseWrite is a write that is under way.
type leaseWrite struct {
	began  time.Time
	ttl    time.Duration
	before time.Time // the lease's deadline if the write does not happen
}

// sending returns a write that is sent next. From now on it may have happened: if it makes the lease
// shorter, the local deadline moves at once.
func (l *lease) sending(ttl time.Duration) leaseWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	w := leaseWrite{began: now, ttl: ttl, before: l.deadline}
	if d := l.boundLocked(now, ttl); l.state == leaseHeld && d.Before(l.deadline) {
		l.deadline = d
		l.scheduleLocked(now)
	}
	return w
}

// sent books what became of w, and says whether the lease is still held, and whether it is lost.
func (l *lease) sent(w leaseWrite, swapped bool, err error) (held, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.writing)
	l.writing = nil
	now := time.Now()
	if l.heldLocked(now) {
		switch {
		case err != nil:
			l.failedLocked(w, now, err)
		case swapped:
			l.renewedLocked(w.began, w.ttl)
		default:
			l.leaveLocked(leaseLost, ErrLockLost)
		}
	}
	if l.heldLocked(now) {
		l.scheduleLocked(now)
	}
	return l.state == leaseHeld, l.state == leaseLost
}

// drop frees the key after a renewal that succeeded too late: without it the key would block others
// for one more ttl. Best effort.
func (l *lease) drop() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.parent), time.Second)
	defer cancel()
	_, _ = l.s.CompareAndDelete(ctx, l.key, l.value)
}

func (l *lease) renewedLocked(began time.Time, ttl time.Duration) {
	l.ttl, l.backoff = ttl, 0
	if l.doubt > 0 {
		ttl = min(ttl, l.doubt)
	}
	l.deadline = l.boundLocked(began, ttl)
	l.renewAt = began.Add(renewAfter(ttl))
}

func (l *lease) failedLocked(w leaseWrite, now time.Time, err error) {
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		l.doubtLocked(w.ttl)
	case errors.Is(err, ErrClosed):
		l.noRenew = true
		fallthrough
	default: // it did not happen
		l.deadline = w.before
	}
	l.backoff = nextBackoff(l.backoff, l.ttl)
	l.renewAt = now.Add(l.backoff)
}

// doubtLocked takes into account that a write which asked for ttl may have happened, or may yet
// happen, even after later ones: from now on the lease trusts no longer ttl than that.
func (l *lease) doubtLocked(ttl time.Duration) {
	if l.doubt == 0 || ttl < l.doubt {
		l.doubt = ttl
	}
}

// boundLocked returns the local deadline of a write that asked for ttl.
func (l *lease) boundLocked(began time.Time, ttl time.Duration) time.Time {
	d := began.Add(ttl - leaseMargin(ttl))
	if !l.bound.IsZero() && l.bound.Before(d) {
		return l.bound
	}
	return d
}

// heldLocked says whether the lease is held at now, and loses it if its deadline has passed.
func (l *lease) heldLocked(now time.Time) bool {
	if l.state == leaseHeld && !now.Before(l.deadline) {
		l.leaveLocked(leaseLost, ErrLockLost)
	}
	return l.state == leaseHeld
}

func (l *lease) leaveLocked(state leaseState, cause error) {
	if l.state == leaseHeld {
		l.cause = cause
	}
	l.state = state
	l.timer.Stop()
	if l.cancel != nil {
		l.cancel(l.cause) // runs no code of users; the first cause counts
	}
}

func (l *lease) scheduleLocked(now time.Time) { l.timer.Reset(l.nextLocked().Sub(now)) }

// nextLocked returns when the timer has something to do.
func (l *lease) nextLocked() time.Time {
	if l.writing == nil && !l.noRenew && l.renewAt.Before(l.deadline) {
		return l.renewAt
	}
	return l.deadline
}

// detached returns ctx's values without its cancellation: a client that went
// away must not keep its lease from being completed or released.
func detached(ctx context.Context) context.Context {
	ctx = background(ctx)
	if ctx.Done() == nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}
