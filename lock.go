package kv

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// LockerOptions configure a [Locker]. The zero value of each field is its default.
type LockerOptions struct {
	Prefix  string        // of the keys; "": "lock"
	TTL     time.Duration // how long a crashed holder blocks the rest; 0: 30 s
	NoRenew bool          // the lock ends with its TTL; default: it is renewed at TTL/3 while held
	MaxHold time.Duration // the longest that a lock is held, however often renewed or extended; 0: no bound
}

const (
	defaultLockPrefix = "lock"
	defaultLockTTL    = 30 * time.Second
)

// Locker makes locks by name that hold across goroutines and, on an engine that
// processes share, across processes. Any string is a name. A Locker is safe for
// concurrent use; make one and keep it, because waiters are served first come, first served within one Locker.
//
// Most callers want [Locker.Do], which can't forget to unlock. Use [Locker.Lock]
// where the lock outlives a function, and [Locker.TryLock] where whoever comes
// second has nothing to do.
//
// # What a lock is
//
// A lock is a lease: a key ([Key](Prefix, name)) that holds a random token until its deadline, renewed at
// TTL/3 while the lock is held. If its holder crashes, it frees itself after TTL.
// A renewal that fails is tried again until the local deadline, which lies TTL/20 before the
// store's; then the lock is lost and [Lock.Context] ends, before anyone else can have the lock.
//
// No lease can stop a process that was paused while its lock expired from
// acting late when it resumes. Where that matters, let what you write to check [Lock.Fence], or write to the store under [Lock.Held].
//
// Nothing stays in the store when a lock is free but one counter per prefix, for the fences.
type Locker struct {
	s      *Store
	prefix string
	fences string // key of the counter
	lease  leaseOptions
	wakes  *wakes

	mu    sync.Mutex
	lines map[string]*line // by key, of locks that somebody waits for; guarded by mu
}

// NewLocker returns a Locker on s. opts may be nil.
func NewLocker(s *Store, opts *LockerOptions) *Locker {
	var o LockerOptions
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = defaultLockPrefix
	}
	setDefault(&o.TTL, defaultLockTTL)
	keys := Key(o.Prefix, "")
	l := &Locker{
		s:      s,
		prefix: keys,
		fences: keys + "%fence", // no name escapes to this
		lease:  leaseOptions{ttl: o.TTL, noRenew: o.NoRenew, maxHold: o.MaxHold},
		wakes:  newWakes(s, keys),
		lines:  make(map[string]*line),
	}
	l.wakes.gone = true
	return l
}

// Lock waits until it holds the lock of name. It returns ctx's error promptly
// when ctx ends first, and [ErrClosed] when the store closes.
//
// Within one Locker waiters are served in the order in which they came; only
// the first of them competes with other Lockers and processes. It wakes when the
// key is deleted or expires, and at the latest when the key's deadline comes.
//
// An error of the store ends the wait. [ErrLockLost] means that the store was so slow, or the lock
// forced open so soon, that it was lost before Lock could return it.
func (l *Locker) Lock(ctx context.Context, name string) (*Lock, error) {
	ctx = background(ctx)
	k, err := l.lock(ctx, name)
	return k, recipeError("lock", name, err)
}

// TryLock takes the lock of name if it is free, and else returns [ErrLocked] at
// once. It may overtake those who wait in [Locker.Lock].
func (l *Locker) TryLock(ctx context.Context, name string) (*Lock, error) {
	k, err := l.try(background(ctx), name, keyIn(l.prefix, name))
	return k, recipeError("trylock", name, err)
}

// Do calls f while it holds the lock of name, and releases it when f returns, panics or
// calls [runtime.Goexit]. f's context ends with ctx, and with cause [ErrLockLost] when the lock is lost.
//
// Do returns f's error, joined with that of [Lock.Unlock] if there is one: [ErrLockLost]
// says that f may not have been alone to its end.
func (l *Locker) Do(ctx context.Context, name string, f func(context.Context) error) (err error) {
	ctx = background(ctx)
	k, err := l.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer func() {
		if unlockErr := k.Unlock(ctx); unlockErr != nil {
			err = errors.Join(err, unlockErr)
		}
	}()
	if ctx.Done() == nil {
		return f(k.Context())
	}
	inner, cancel := context.WithCancelCause(k.Context())
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	return f(&leaseContext{inner, &k.lease})
}

// Holder says who holds a lock.
type Holder struct {
	Token     string        // as [Lock.Token]
	Remaining time.Duration // until the lock frees itself unless it is renewed
}

// Holder returns who holds the lock of name, or [ErrNotFound] if it is free. By
// the time it returns, that may have changed: it is for people who look, not for programs that decide.
func (l *Locker) Holder(ctx context.Context, name string) (Holder, error) {
	e, err := l.s.Entry(ctx, keyIn(l.prefix, name))
	if err != nil {
		return Holder{}, recipeError("holder", name, err)
	}
	if e.ExpiresAt.IsZero() { // not one of ours, but it blocks all the same
		return Holder{Token: e.Value}, nil
	}
	now, err := l.s.Now(ctx)
	if err != nil {
		return Holder{}, recipeError("holder", name, err)
	}
	remaining := e.ExpiresAt.Sub(now)
	if remaining <= 0 {
		return Holder{}, recipeError("holder", name, ErrNotFound)
	}
	return Holder{Token: e.Value, Remaining: remaining}, nil
}

// ForceUnlock frees the lock of name, whoever holds it, and says whether it was
// held. It is for people who know that the holder is gone. A holder who is not learns of
// it at its next renewal, up to TTL/3 later, and may overlap with a successor until then;
// its [Lock.Held] fails at once and its [Lock.Fence] is lower than every later one.
func (l *Locker) ForceUnlock(ctx context.Context, name string) (bool, error) {
	n, err := l.s.Delete(ctx, keyIn(l.prefix, name))
	return n > 0, recipeError("forceunlock", name, err)
}

// Lock is a lock that is held. Call [Lock.Unlock] when done. Its methods are safe for concurrent use.
type Lock struct {
	name  string
	lease lease
	fence int64
}

// Context returns a context with the values, but not the cancellation, of the
// one that Lock was given. It ends with cause [ErrLockLost] when the lock is lost,
// before anyone else can hold it, and with cause [context.Canceled] after Unlock. Use it for the work that the lock protects.
func (k *Lock) Context() context.Context { return k.lease.context() }

// Token returns the random token that the lock's key holds.
func (k *Lock) Token() string { return k.lease.value }

// Fence returns the lock's fencing token: it is greater than that of every
// acquisition of the same name before. Whoever takes writes from holders can refuse those with a lower fence than one it has
// seen (Kleppmann, "How to do distributed locking", 2016).
func (k *Lock) Fence() int64 { return k.fence }

// Held returns a condition for [Store.Txn], on the store or any namespace of
// it, that holds while this lock is held: a write under it can't come too late. On a
// cluster what is written must share the hash slot of the lock's key: put both into a namespace with a hash tag, or
// begin the key with the lock's in braces, "{lock:order-7}:state".
func (k *Lock) Held() Cond {
	c := IfValue(k.lease.s.whole(k.lease.key), k.lease.value)
	c.whole = true
	return c
}

// Extend makes the lock last ttl from now on, and renewals, too; but no longer
// than MaxHold in all. A ttl that is not positive is [ErrInvalidTTL]. [ErrLockLost] if the lock was not ours any more.
// After another error the lock is as it was or has the new ttl; its Context knows.
func (k *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	return recipeError("extend", k.name, k.lease.extend(ctx, ttl))
}

// Unlock ends the lock's Context and frees the lock, even if ctx has ended. It returns [ErrLockLost] if the
// lock was not ours any more, also when called again, and never frees a successor's.
// After another error it may be called again; else the lock frees itself after its TTL.
func (k *Lock) Unlock(ctx context.Context) error {
	return recipeError("unlock", k.name, k.lease.release(ctx))
}

// lock waits for its turn in the line of name, and then for the lock.
func (l *Locker) lock(ctx context.Context, name string) (*Lock, error) {
	key := keyIn(l.prefix, name)
	if err := l.s.check(key); err != nil {
		return nil, err
	}
	w := l.join(name, key)
	defer l.leave(w)
	if err := w.await(ctx, l.s.done()); err != nil {
		return nil, err
	}
	return l.compete(ctx, w.line)
}

// compete takes the lock as the first of its line.
func (l *Locker) compete(ctx context.Context, line *line) (*Lock, error) {
	for {
		k, err := l.try(ctx, line.name, line.key)
		if !errors.Is(err, ErrLocked) {
			return k, err
		}
		if line.wake == nil { // subscribe, then look again
			if line.wake, err = l.wakes.subscribe(line.key); err != nil {
				return nil, err
			}
			continue
		}
		remaining, err := l.s.TTL(ctx, line.key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := line.wake.wait(ctx, remaining); err != nil {
			return nil, err
		}
	}
}

// try takes the lock if it is free, and draws its fence.
func (l *Locker) try(ctx context.Context, name, key string) (*Lock, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	token := newToken()
	taken, began, err := takeLease(ctx, l.s, key, token, l.lease.ttl)
	if err != nil {
		return nil, err
	}
	if !taken {
		return nil, ErrLocked
	}
	k := &Lock{name: name}
	k.lease.hold(ctx, l.s, key, token, began, l.lease)
	if k.fence, err = l.drawFence(ctx, &k.lease); err != nil {
		_ = k.lease.release(ctx) // the error that matters is err
		return nil, err
	}
	return k, nil
}

// drawFence draws the next fence for a lease that has been taken. Drawn before, fences could go
// backwards; and if the key was lost meanwhile, by time or by ForceUnlock, a
// successor may have drawn a lower one. So it looks again afterwards.
func (l *Locker) drawFence(ctx context.Context, lease *lease) (int64, error) {
	fence, err := l.s.Incr(ctx, l.fences, 1, NoExpiry)
	if err != nil {
		return 0, err
	}
	token, err := l.s.Get(ctx, lease.key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if token != lease.value || !lease.alive() {
		return 0, ErrLockLost
	}
	return fence, nil
}

// line is the queue of those who wait for one lock within one Locker.
type line struct {
	name, key string
	waiters   list.List // of *waiter, the first competes; guarded by Locker.mu
	wake      *wake     // used by the first waiter alone, nil until one has to wait for an event
}

type waiter struct {
	line *line
	turn chan struct{} // closed when the waiter is the first of its line
	at   *list.Element // guarded by Locker.mu
}

// join puts a new waiter at the end of the line of name.
func (l *Locker) join(name, key string) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.lines[key]
	if in == nil {
		in = &line{name: name, key: key}
		l.lines[key] = in
	}
	w := &waiter{line: in, turn: make(chan struct{})}
	w.at = in.waiters.PushBack(w)
	if in.waiters.Len() == 1 {
		close(w.turn)
	}
	return w
}

// leave takes w out of its line, and gives its turn to the next if it was first.
func (l *Locker) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := w.line
	wasFirst := in.waiters.Front() == w.at
	in.waiters.Remove(w.at)
	if next := in.waiters.Front(); next != nil {
		if wasFirst {
			close(next.Value.(*waiter).turn)
		}
		return
	}
	delete(l.lines, in.key)
	if in.wake != nil {
		in.wake.cancel()
	}
}

// await returns nil when it is w's turn.
func (w *waiter) await(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-w.turn:
		return nil
	default:
	}
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return ErrClosed
	}
}

// recipeError returns err of a recipe's op on key: what the store's methods
// beneath said of their own keys is left out.
func recipeError(op, key string, err error) error {
	if inner, ok := err.(*Error); ok {
		err = inner.Err
	}
	return wrap(op, key, err)
}
