package kv_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLockServesInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := kv.NewLocker(newLockStore(t), nil)
		first := tryLock(t, l, "x")
		var served []int
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				k, err := l.Lock(t.Context(), "x")
				if assert.NoError(t, err) {
					served = append(served, i) // guarded by the lock
					time.Sleep(time.Millisecond)
					assert.NoError(t, k.Unlock(t.Context()))
				}
			})
			synctest.Wait() // it waits now
		}
		require.NoError(t, first.Unlock(t.Context()))
		all.Wait()
		require.Len(t, served, 50)
		for i, who := range served {
			require.Equal(t, i, who)
		}
	})
}

func TestLockOtherNamesDontWait(t *testing.T) {
	l := kv.NewLocker(newLockStore(t), nil)
	for i := range 1000 {
		k, err := l.Lock(t.Context(), fmt.Sprint(i))
		require.NoError(t, err)
		defer func() { require.NoError(t, k.Unlock(t.Context())) }()
	}
}

// waitFor lets a goroutine wait for the lock, and returns what Lock returns.
func waitFor(ctx context.Context, l *kv.Locker, name string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := l.Lock(ctx, name)
		done <- err
	}()
	return done
}

func TestLockCancelOfAWaiterIsPromptAndHarmsNobody(t *testing.T) {
	const n = 9
	for gone := range n { // the first, one in the middle, the last
		synctest.Test(t, func(t *testing.T) {
			l := kv.NewLocker(newLockStore(t), nil)
			held := tryLock(t, l, "x")
			ctx, cancel := context.WithCancel(t.Context())
			waiters := make([]<-chan error, n)
			var order []int // guarded by the lock
			var all sync.WaitGroup
			for i := range n {
				if i == gone {
					waiters[i] = waitFor(ctx, l, "x")
				} else {
					all.Go(func() {
						k, err := l.Lock(t.Context(), "x")
						if assert.NoError(t, err) {
							order = append(order, i)
							assert.NoError(t, k.Unlock(t.Context()))
						}
					})
				}
				synctest.Wait()
			}
			began := time.Now()
			cancel()
			require.ErrorIs(t, <-waiters[gone], context.Canceled)
			require.Zero(t, time.Since(began))
			require.NoError(t, held.Unlock(t.Context()))
			all.Wait()
			require.Len(t, order, n-1)
			require.IsIncreasing(t, order)
			require.Zero(t, time.Since(began))
		})
	}
}

func TestLockWithADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := kv.NewLocker(newLockStore(t), nil)
		tryLock(t, l, "x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := l.Lock(ctx, "x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		_, err = l.Lock(ctx, "free")
		require.ErrorIs(t, err, context.DeadlineExceeded, "a ctx that has ended gets no lock")
		_, err = l.TryLock(ctx, "free")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		tryLock(t, l, "free")
	})
}

func TestTryLockNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := newProcesses(t)
		la, lb := kv.NewLocker(a, nil), kv.NewLocker(b, nil)
		k := tryLock(t, la, "x")
		waiter := waitFor(t.Context(), la, "x")
		synctest.Wait()
		began := time.Now()
		for _, l := range []*kv.Locker{la, lb} {
			_, err := l.TryLock(t.Context(), "x")
			require.ErrorIs(t, err, kv.ErrLocked)
			require.ErrorContains(t, err, `kv: trylock "x"`)
		}
		require.Zero(t, time.Since(began))
		require.NoError(t, k.Unlock(t.Context()))
		require.NoError(t, <-waiter)
	})
}

func TestLockWakesByEventNotByPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, engine := newProcesses(t)
		k := tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}), "x")
		waiter := waitFor(t.Context(), kv.NewLocker(b, &kv.LockerOptions{TTL: lockTTL}), "x")
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		calls := engine.Count()
		require.LessOrEqual(t, calls, 20+2*int(10*time.Hour/(lockTTL/2)), "it looks when the deadline that it saw comes, not more often")
		began := time.Now()
		require.NoError(t, k.Unlock(t.Context()))
		require.NoError(t, <-waiter)
		require.Zero(t, time.Since(began))
		require.LessOrEqual(t, engine.Count()-calls, 4)
	})
}

func TestLockWakesWithAnyPrefix(t *testing.T) {
	for _, prefix := range []string{"lock", ".", "..", "%", "a:b"} {
		synctest.Test(t, func(t *testing.T) {
			a, b, _, _ := newProcesses(t)
			o := kv.LockerOptions{Prefix: prefix, TTL: lockTTL}
			k := tryLock(t, kv.NewLocker(a, &o), "x")
			waiter := waitFor(t.Context(), kv.NewLocker(b, &o), "x")
			time.Sleep(lockTTL / 10)
			began := time.Now()
			require.NoError(t, k.Unlock(t.Context()))
			require.NoError(t, <-waiter)
			require.Zero(t, time.Since(began), prefix)
		})
	}
}

func TestLockCostsNoWatchUnlessSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, engine, _ := newProcesses(t)
		l := kv.NewLocker(s, nil)
		for range 10 {
			require.NoError(t, l.Do(t.Context(), "x", func(context.Context) error { return nil }))
			k := tryLock(t, l, "x")
			_, err := l.TryLock(t.Context(), "x")
			require.ErrorIs(t, err, kv.ErrLocked)
			require.NoError(t, k.Unlock(t.Context()))
		}
		require.Zero(t, engine.Count("Watch"))
		k := tryLock(t, l, "x")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 2000 { // more than a watcher's buffer holds
			waitFor(ctx, l, "x")
		}
		synctest.Wait()
		require.Equal(t, 1, engine.Count("Watch"), "all of them share one")
		cancel()
		synctest.Wait()
		engine.BreakWatches() // it would be opened again
		synctest.Wait()
		require.Equal(t, 1, engine.Count("Watch"), "and the last one closes it")
		require.NoError(t, k.Unlock(t.Context()))
	})
}

func TestLockOfACrashedHolderFreesAfterItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, engineA, _ := newProcesses(t)
		began := time.Now()
		k := tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}), "x")
		engineA.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
		require.NoError(t, <-waitFor(t.Context(), kv.NewLocker(b, nil), "x"))
		require.Equal(t, lockTTL, time.Since(began), "not at the reaper's pleasure, but at the deadline")
		lost(t, k)
	})
}

func TestLockSurvivesABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, engine := newProcesses(t)
		k := tryLock(t, kv.NewLocker(a, nil), "x")
		waiter := waitFor(t.Context(), kv.NewLocker(b, nil), "x")
		synctest.Wait()
		engine.BreakWatches()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, k.Unlock(t.Context()))
		require.NoError(t, <-waiter)
		require.Zero(t, time.Since(began))
	})
}

func TestCloseEndsWaitersAndRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, engine, _ := newProcesses(t)
		la, lb := kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}), kv.NewLocker(b, nil)
		k := tryLock(t, la, "x")
		ctx := k.Context()
		waiters := make([]<-chan error, 20)
		for i := range waiters {
			waiters[i] = waitFor(t.Context(), la, "x")
			synctest.Wait()
		}
		other := waitFor(t.Context(), lb, "x")
		time.Sleep(lockTTL / 2)
		began := time.Now()
		require.NoError(t, a.Close())
		for _, waiter := range waiters {
			require.ErrorIs(t, <-waiter, kv.ErrClosed)
		}
		require.Zero(t, time.Since(began))
		_, err := la.Lock(t.Context(), "y")
		require.ErrorIs(t, err, kv.ErrClosed)
		_, err = la.TryLock(t.Context(), "y")
		require.ErrorIs(t, err, kv.ErrClosed)
		swaps := engine.Count("CompareAndSwap")
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), kv.ErrLockLost)
		require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrClosed)
		require.NoError(t, b.Close()) // and with it the data, in this test
		require.ErrorIs(t, <-other, kv.ErrClosed)
		time.Sleep(time.Hour)
		require.Equal(t, swaps, engine.Count("CompareAndSwap"))
	})
}
