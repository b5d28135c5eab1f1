package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

// lockers returns lockers of two processes.
func (e *env) lockers(opts *kv.LockerOptions) (a, b *kv.Locker) {
	return kv.NewLocker(e.store, opts), kv.NewLocker(e.peer(), opts)
}

func (e *env) lock(l *kv.Locker, name string) *kv.Lock {
	k, err := l.Lock(e.ctx, name)
	e.NoError(err)
	return k
}

// within fails the case if f has not returned after the engine's patience.
func (e *env) within(what string, f func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		e.NoError(err, what)
	case <-time.After(e.patience()):
		e.Fail(what + " does not come to an end")
	}
}

var lockCases = []testCase{
	{
		name:     "Locker",
		contract: "Lock waits; TryLock: ErrLocked; Unlock: ErrLockLost if it was not ours any more; Holder: Token, Remaining; ErrNotFound if free.",
		run: func(e *env) {
			a, b := e.lockers(nil)
			k := e.lock(a, "name")
			_, err := b.TryLock(e.ctx, "name")
			e.ErrorIs(err, kv.ErrLocked)
			holder, err := b.Holder(e.ctx, "name")
			e.NoError(err)
			e.Equal(k.Token(), holder.Token)
			e.Positive(holder.Remaining)
			other := e.lock(b, "another name")
			e.NoError(other.Unlock(e.ctx))
			e.NoError(k.Context().Err())
			e.NoError(k.Unlock(e.ctx))
			e.ErrorIs(context.Cause(k.Context()), context.Canceled)
			e.ErrorIs(k.Unlock(e.ctx), kv.ErrLockLost, "a second Unlock")
			_, err = b.Holder(e.ctx, "name")
			e.ErrorIs(err, kv.ErrNotFound)
			n, err := e.store.Count(e.ctx, "")
			e.NoError(err)
			e.LessOrEqual(n, 1, "more than the counter of the fences stays behind")
		},
	},
	{
		name:     "Locker/one holder",
		contract: "Never two holders whose contexts are both alive. Fence: strictly increasing over all acquisitions of the name.",
		run: func(e *env) {
			a, b := e.lockers(nil)
			var inside atomic.Int64
			var fence int64 // without any other guard than the lock
			turn := func(l *kv.Locker) error {
				k, err := l.Lock(e.ctx, "name")
				if err != nil {
					return err
				}
				if n := inside.Add(1); n != 1 {
					err = fmt.Errorf("%d holders at the same time", n)
				} else if k.Fence() <= fence {
					err = fmt.Errorf("fence %d after %d", k.Fence(), fence)
				}
				fence = k.Fence()
				inside.Add(-1)
				return errors.Join(err, k.Unlock(e.ctx))
			}
			e.parallel(8, func(g int) error {
				for range 10 {
					if err := turn([]*kv.Locker{a, b}[g%2]); err != nil {
						return err
					}
				}
				return nil
			})
		},
	},
	{
		name:     "Locker/waiters wake by event",
		contract: "A waiter wakes by event, not by polling.",
		run: func(e *env) {
			a, b := e.lockers(&kv.LockerOptions{TTL: time.Hour})
			k := e.lock(a, "name")
			begin := e.now()
			got := make(chan error, 1)
			go func() {
				k, err := b.Lock(e.ctx, "name")
				if err == nil {
					err = k.Unlock(e.ctx)
				}
				got <- err
			}()
			e.wait(e.unit())
			e.NoError(k.Unlock(e.ctx))
			e.within("waiting for a lock that was released", func() error { return <-got })
			e.Less(e.now().Sub(begin), 30*time.Minute)
		},
	},
	{
		name:     "Locker/crash",
		contract: "TTL: how long a crashed holder blocks the rest. A holder's context has ended before anyone else can hold the lock. Unlock never frees a successor's.",
		run: func(e *env) {
			a, b := e.lockers(&kv.LockerOptions{TTL: 4 * e.unit(), NoRenew: true})
			crashed := e.lock(a, "name") // never unlocked, never renewed
			successor := e.lock(b, "name")
			e.ErrorIs(crashed.Context().Err(), context.Canceled)
			e.ErrorIs(context.Cause(crashed.Context()), kv.ErrLockLost)
			e.Greater(successor.Fence(), crashed.Fence())
			e.ErrorIs(crashed.Unlock(e.ctx), kv.ErrLockLost)
			e.ErrorIs(crashed.Extend(e.ctx, time.Hour), kv.ErrLockLost)
			holder, err := a.Holder(e.ctx, "name")
			e.NoError(err)
			e.Equal(successor.Token(), holder.Token)
		},
	},
	{
		name:     "Locker/renewal",
		contract: "NoRenew: default: renewed at TTL/3 while held.",
		run: func(e *env) {
			a, b := e.lockers(&kv.LockerOptions{TTL: 8 * e.unit()})
			k := e.lock(a, "name")
			for range 4 {
				e.wait(4 * e.unit())
				_, err := b.TryLock(e.ctx, "name")
				e.ErrorIs(err, kv.ErrLocked)
				e.NoError(k.Context().Err())
			}
			e.NoError(k.Unlock(e.ctx))
		},
	},
	{
		name:     "Locker/Held",
		contract: "Held: for Txn on the store or any namespace of it: write only while the lock is held.",
		run: func(e *env) {
			l := kv.NewLocker(e.store, nil)
			prefix := ""
			if e.h.Namespace != "" {
				prefix = e.h.Namespace + ":"
			}
			key := "{" + prefix + kv.Key("lock", "name") + "}" // shares the slot of the lock's key
			k := e.lock(l, "name")
			write := func(value string, want bool) {
				ok, _, err := e.root.Txn(e.ctx, []kv.Cond{k.Held()}, kv.OpSet(key, value, 0))
				e.NoError(err)
				e.Equal(want, ok)
			}
			write("while held", true)
			forced, err := l.ForceUnlock(e.ctx, "name")
			e.NoError(err)
			e.True(forced)
			write("free", false)
			successor := e.lock(l, "name")
			write("another's", false)
			e.ErrorIs(k.Unlock(e.ctx), kv.ErrLockLost)
			e.NoError(successor.Unlock(e.ctx))
			value, err := e.root.Get(e.ctx, key)
			e.NoError(err)
			e.Equal("while held", value)
		},
	},
	{
		name:     "Locker/cancelled waiter",
		contract: "cancelling a waiter's ctx returns promptly and harms no other.",
		run: func(e *env) {
			a, b := e.lockers(nil)
			k := e.lock(a, "name")
			ctx, cancel := context.WithTimeout(e.ctx, e.unit())
			defer cancel()
			_, err := b.Lock(ctx, "name")
			e.ErrorIs(err, context.DeadlineExceeded)
			e.NoError(k.Unlock(e.ctx))
			k, err = b.TryLock(e.ctx, "name")
			e.NoError(err)
			e.NoError(k.Unlock(ctx), "unlocking uses context.WithoutCancel")
		},
	},
	{
		name:     "Locker/Do",
		contract: "Do releases on return, error, panic and Goexit.",
		run: func(e *env) {
			l := kv.NewLocker(e.store, nil)
			failed := errors.New("failed")
			e.ErrorIs(l.Do(e.ctx, "name", func(context.Context) error { return failed }), failed)
			e.PanicsWithValue("boom", func() {
				_ = l.Do(e.ctx, "name", func(context.Context) error { panic("boom") })
			})
			k, err := l.TryLock(e.ctx, "name")
			e.NoError(err)
			e.NoError(k.Unlock(e.ctx))
		},
	},
	{
		name:     "Locker/Close",
		contract: "closing the store ends every waiter with ErrClosed.",
		run: func(e *env) {
			l := kv.NewLocker(e.store, nil)
			e.lock(l, "name")
			waiting := make(chan error, 1)
			go func() {
				_, err := l.Lock(e.ctx, "name")
				waiting <- err
			}()
			e.wait(e.unit())
			e.NoError(e.root.Close())
			e.within("waiting for a lock of a closed store", func() error {
				if err := <-waiting; !errors.Is(err, kv.ErrClosed) {
					return fmt.Errorf("the waiter gets %w", err)
				}
				return nil
			})
		},
	},
}
