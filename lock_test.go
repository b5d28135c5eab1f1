package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const lockTTL = time.Minute

func newLockStore(t *testing.T) *kv.Store {
	s := kv.New(nil)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// newProcesses returns the stores of two processes on the same data, and the engines by which they reach it.
func newProcesses(t *testing.T) (a, b *kv.Store, engineA, engineB *kvtest.Faulty) {
	shared := newLockStore(t)
	engineA, engineB = kvtest.NewFaulty(shared), kvtest.NewFaulty(shared)
	a, b = kv.NewWithEngine(engineA, nil), kv.NewWithEngine(engineB, nil)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b, engineA, engineB
}

func tryLock(t *testing.T, l *kv.Locker, name string) *kv.Lock {
	t.Helper()
	k, err := l.TryLock(t.Context(), name)
	require.NoError(t, err)
	return k
}

// lost checks that the lock's context has ended because the lock was lost.
func lost(t *testing.T, k *kv.Lock) {
	t.Helper()
	require.ErrorIs(t, k.Context().Err(), context.Canceled)
	require.ErrorIs(t, context.Cause(k.Context()), kv.ErrLockLost)
}

func lockTTLOf(t *testing.T, s *kv.Store, name string) time.Duration {
	t.Helper()
	ttl, err := s.TTL(t.Context(), kv.Key("lock", name))
	require.NoError(t, err)
	return ttl
}

func TestLockExcludes(t *testing.T) {
	s := newLockStore(t)
	lockers := []*kv.Locker{kv.NewLocker(s, nil), kv.NewLocker(s, nil), kv.NewLocker(s, &kv.LockerOptions{TTL: time.Second})}
	var inside atomic.Int32
	var fence int64 // guarded by the lock
	visit := func(k *kv.Lock) {
		assert.EqualValues(t, 1, inside.Add(1))
		assert.Greater(t, k.Fence(), fence)
		fence = k.Fence()
		runtime.Gosched()
		inside.Add(-1)
		assert.NoError(t, k.Unlock(t.Context()))
	}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			l := lockers[i%len(lockers)]
			for round := range 40 {
				k, err := l.TryLock(t.Context(), "x")
				if round%4 == 0 && err == nil {
					visit(k)
					continue
				}
				if err == nil {
					assert.NoError(t, k.Unlock(t.Context()))
				} else {
					assert.ErrorIs(t, err, kv.ErrLocked)
				}
				if k, err = l.Lock(t.Context(), "x"); assert.NoError(t, err) {
					visit(k)
				}
			}
		})
	}
	all.Wait()
}

func TestUnlockAfterExpiryLeavesTheSuccessorAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		l := kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		first := tryLock(t, l, "x")
		time.Sleep(lockTTL)
		lost(t, first)
		second := tryLock(t, l, "x")
		for range 2 {
			err := first.Unlock(t.Context())
			require.ErrorIs(t, err, kv.ErrLockLost)
			require.ErrorContains(t, err, `kv: unlock "x"`)
		}
		require.ErrorIs(t, first.Extend(t.Context(), time.Hour), kv.ErrLockLost)
		require.Equal(t, lockTTL, lockTTLOf(t, s, "x"))
		require.NoError(t, second.Context().Err())
		require.NoError(t, second.Unlock(t.Context()))
		lost(t, first)
	})
}

func TestSecondUnlock(t *testing.T) {
	s, _, engine, _ := newProcesses(t)
	l := kv.NewLocker(s, nil)
	k := tryLock(t, l, "x")
	require.NoError(t, k.Unlock(t.Context()))
	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
	require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrLockLost, "nobody needs to be asked")
	engine.Heal()
	successor := tryLock(t, l, "x")
	require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrLockLost)
	require.NoError(t, successor.Unlock(t.Context()))
}

func TestUnlockWorksAfterTheClientWentAway(t *testing.T) {
	s, _, _, _ := newProcesses(t)
	l := kv.NewLocker(s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	k, err := l.Lock(ctx, "x")
	require.NoError(t, err)
	cancel()
	require.NoError(t, k.Unlock(ctx))
	tryLock(t, l, "x")
}

type ctxKey struct{}

func TestLockContext(t *testing.T) {
	l := kv.NewLocker(newLockStore(t), nil)
	parent, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "v"), time.Hour)
	k, err := l.Lock(parent, "x")
	require.NoError(t, err)
	ctx := k.Context()
	child, cancelChild := context.WithCancel(ctx)
	defer cancelChild()
	require.Equal(t, "v", child.Value(ctxKey{}))
	cancel()
	require.NoError(t, ctx.Err(), "it has the values, not the cancellation")
	_, limited := ctx.Deadline()
	require.False(t, limited)
	require.NoError(t, k.Unlock(t.Context()))
	for _, c := range []context.Context{ctx, child, k.Context()} {
		<-c.Done()
		require.ErrorIs(t, c.Err(), context.Canceled)
		require.Equal(t, context.Canceled, context.Cause(c))
	}
	require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrLockLost)
	require.Equal(t, context.Canceled, context.Cause(ctx))
}

func TestLockContextAskedForLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := kv.NewLocker(newLockStore(t), &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		freed, expired := tryLock(t, l, "a"), tryLock(t, l, "b")
		require.NoError(t, freed.Unlock(t.Context()))
		require.Equal(t, context.Canceled, context.Cause(freed.Context()))
		time.Sleep(lockTTL)
		require.ErrorIs(t, expired.Unlock(t.Context()), kv.ErrLockLost)
		lost(t, expired)
	})
}

// The lock's context must have ended before anyone else can have the lock.
func TestLockContextEndsAMarginBeforeTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		l := kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		k := tryLock(t, l, "x")
		<-k.Context().Done()
		lost(t, k)
		require.Equal(t, lockTTL/20, lockTTLOf(t, s, "x"), "the margin that Locker's doc states")
		require.NoError(t, k.Unlock(t.Context()), "nobody else has had it, so it is ours to free")
		tryLock(t, l, "x")
	})
}

// The hosted recipe's compare-and-swap loses the deadline: then a crash locks for ever.
func TestLockKeyHasADeadlineThroughEveryStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		k := tryLock(t, kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL}), "x")
		for _, step := range []func(){
			func() {},
			func() { time.Sleep(lockTTL / 3) },
			func() { require.NoError(t, k.Extend(t.Context(), time.Hour)) },
			func() { time.Sleep(time.Hour / 3) },
			func() { require.NoError(t, k.Extend(t.Context(), time.Second)) },
			func() { time.Sleep(time.Hour) },
		} {
			step()
			synctest.Wait()
			require.Positive(t, lockTTLOf(t, s, "x"))
			require.LessOrEqual(t, lockTTLOf(t, s, "x"), time.Hour)
			require.NoError(t, k.Context().Err())
		}
	})
}

func TestLockExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		l := kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		k := tryLock(t, l, "x")
		for _, ttl := range []time.Duration{0, -1, -time.Hour} {
			require.ErrorIs(t, k.Extend(t.Context(), ttl), kv.ErrInvalidTTL)
		}
		require.NoError(t, k.Extend(t.Context(), time.Hour))
		require.Equal(t, time.Hour, lockTTLOf(t, s, "x"))
		time.Sleep(time.Hour * 9 / 10)
		require.NoError(t, k.Context().Err())
		require.NoError(t, k.Extend(t.Context(), time.Second), "shorter works, too")
		time.Sleep(time.Second)
		lost(t, k)
		tryLock(t, l, "x")

		renewed := tryLock(t, kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL}), "y")
		require.NoError(t, renewed.Extend(t.Context(), time.Hour))
		time.Sleep(time.Hour/3 - 1)
		synctest.Wait()
		require.Equal(t, time.Hour-time.Hour/3+1, lockTTLOf(t, s, "y"))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, time.Hour, lockTTLOf(t, s, "y"), "later renewals use it")
	})
}

func TestLockMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		l := kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL, MaxHold: time.Hour})
		began := time.Now()
		k := tryLock(t, l, "x")
		require.NoError(t, k.Extend(t.Context(), lockTTL))
		time.Sleep(time.Hour - 1)
		require.NoError(t, k.Context().Err())
		time.Sleep(time.Nanosecond)
		lost(t, k)
		require.ErrorIs(t, k.Extend(t.Context(), time.Hour), kv.ErrLockLost)
		require.NoError(t, <-waitFor(t.Context(), l, "x"))
		require.LessOrEqual(t, time.Since(began), time.Hour+lockTTL)

		k = tryLock(t, l, "y")
		require.NoError(t, k.Extend(t.Context(), 5*time.Hour))
		time.Sleep(time.Hour)
		lost(t, k)
	})
}

func TestLockFencesGrowThroughEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		l := kv.NewLocker(s, &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		random := rand.New(rand.NewPCG(1, 2))
		last := make(map[string]int64)
		for range 2000 {
			name := fmt.Sprint("n", random.IntN(3))
			k := tryLock(t, l, name)
			require.Greater(t, k.Fence(), last[name])
			last[name] = k.Fence()
			switch random.IntN(3) {
			case 0:
				require.NoError(t, k.Unlock(t.Context()))
			case 1:
				time.Sleep(lockTTL)
			case 2:
				forced, err := l.ForceUnlock(t.Context(), name)
				require.NoError(t, err)
				require.True(t, forced)
			}
		}
	})
}

func TestLockLeavesOneKeyPerPrefix(t *testing.T) {
	s := newLockStore(t)
	l := kv.NewLocker(s, &kv.LockerOptions{Prefix: "jobs"})
	for i := range 1000 {
		require.NoError(t, tryLock(t, l, fmt.Sprint(i)).Unlock(t.Context()))
	}
	n, err := s.Count(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestHolderAndForceUnlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := kv.NewLocker(newLockStore(t), &kv.LockerOptions{TTL: lockTTL})
		_, err := l.Holder(t.Context(), "x")
		require.ErrorIs(t, err, kv.ErrNotFound)
		forced, err := l.ForceUnlock(t.Context(), "x")
		require.NoError(t, err)
		require.False(t, forced)

		k := tryLock(t, l, "x")
		time.Sleep(time.Second)
		h, err := l.Holder(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, kv.Holder{Token: k.Token(), Remaining: lockTTL - time.Second}, h)
		waiter := waitFor(t.Context(), l, "x")
		synctest.Wait()
		forced, err = l.ForceUnlock(t.Context(), "x")
		require.NoError(t, err)
		require.True(t, forced)
		require.NoError(t, <-waiter, "a waiter wakes")
		time.Sleep(lockTTL / 3)
		synctest.Wait()
		lost(t, k)
		require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrLockLost)
		h, err = l.Holder(t.Context(), "x")
		require.NoError(t, err)
		require.NotEqual(t, k.Token(), h.Token)
	})
}

func TestLockHeldGuardsWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockStore(t)
		ns := s.Namespace("tenant").Namespace("a")
		l := kv.NewLocker(ns, &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		stores := []*kv.Store{s, ns, s.Namespace("tenant"), s.Namespace("other")}
		holds := func(want bool, k *kv.Lock) {
			t.Helper()
			for _, on := range stores {
				ok, _, err := on.Txn(t.Context(), []kv.Cond{k.Held()}, kv.OpIncr("writes", 1, kv.NoExpiry))
				require.NoError(t, err)
				require.Equal(t, want, ok)
			}
		}
		k := tryLock(t, l, "x")
		holds(true, k)
		require.NoError(t, k.Unlock(t.Context()))
		holds(false, k)

		k = tryLock(t, l, "x")
		_, err := l.ForceUnlock(t.Context(), "x")
		require.NoError(t, err)
		holds(false, k)

		k = tryLock(t, l, "x")
		time.Sleep(lockTTL)
		holds(false, k)
		successor := tryLock(t, l, "x")
		holds(false, k)
		holds(true, successor)
		n, err := s.Get(t.Context(), "writes")
		require.NoError(t, err)
		require.Equal(t, "2", n)
	})
}

func TestLockAnyStringIsAName(t *testing.T) {
	s := newLockStore(t)
	l := kv.NewLocker(s, nil)
	other := kv.NewLocker(s, &kv.LockerOptions{Prefix: "lock:a"})
	names := []string{"", ".", "..", "a", "a:b", "b", ":", "%", "%fence", "fence", "%25fence", "{a}", "\x00", "\xff", "lock", "lock:", strings.Repeat("n", 507)}
	for _, name := range names {
		k, err := l.Lock(t.Context(), name)
		require.NoError(t, err, "%q", name)
		defer func() { require.NoError(t, k.Unlock(t.Context())) }()
		if len(name) < 500 {
			k, err := other.TryLock(t.Context(), name)
			require.NoError(t, err, "%q", name)
			defer func() { require.NoError(t, k.Unlock(t.Context())) }()
		}
	}
	long := strings.Repeat("n", 508)
	_, err := l.Lock(t.Context(), long)
	require.ErrorIs(t, err, kv.ErrInvalidKey)
	_, err = l.TryLock(t.Context(), long)
	require.ErrorIs(t, err, kv.ErrInvalidKey)
	require.ErrorIs(t, l.Do(t.Context(), long, nil), kv.ErrInvalidKey)
	_, err = l.Holder(t.Context(), long)
	require.ErrorIs(t, err, kv.ErrInvalidKey)
	_, err = l.ForceUnlock(t.Context(), long)
	require.ErrorIs(t, err, kv.ErrInvalidKey)
	var e *kv.Error
	require.True(t, errors.As(err, &e))
	require.Equal(t, long, e.Key, "the name as its user knows it")
}

func TestDoReleasesHoweverFEnds(t *testing.T) {
	s := newLockStore(t)
	l := kv.NewLocker(s, nil)
	failure := errors.New("f failed")
	ends := map[string]func(context.Context) error{
		"return": func(context.Context) error { return nil },
		"error":  func(context.Context) error { return failure },
		"panic":  func(context.Context) error { panic(failure) },
		"goexit": func(context.Context) error { runtime.Goexit(); return nil },
	}
	for name, f := range ends {
		var err error
		var recovered any
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { recovered = recover() }()
			err = l.Do(t.Context(), "x", func(ctx context.Context) error {
				_, lockErr := l.TryLock(ctx, "x")
				assert.ErrorIs(t, lockErr, kv.ErrLocked, name)
				return f(ctx)
			})
		}()
		<-done
		switch name {
		case "error":
			require.Equal(t, failure, err, "as it is")
		case "panic":
			require.Equal(t, failure, recovered, "it goes on to the caller")
		default:
			require.NoError(t, err)
			require.Nil(t, recovered)
		}
		require.NoError(t, tryLock(t, l, "x").Unlock(t.Context()), name)
	}
}

func TestDoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := kv.NewLocker(newLockStore(t), &kv.LockerOptions{TTL: lockTTL, NoRenew: true})
		cause := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), ctxKey{}, "v"))
		var kept context.Context
		err := l.Do(ctx, "x", func(ctx context.Context) error {
			kept = ctx
			assert.Equal(t, "v", ctx.Value(ctxKey{}))
			assert.NoError(t, ctx.Err())
			cancel(cause)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.Equal(t, cause, err, "it ends with ctx, and the lock is released all the same")
		require.Error(t, kept.Err())

		began := time.Now()
		err = l.Do(t.Context(), "x", func(ctx context.Context) error {
			<-ctx.Done()
			assert.Less(t, time.Since(began), lockTTL)
			assert.ErrorIs(t, context.Cause(ctx), kv.ErrLockLost)
			time.Sleep(lockTTL) // f takes no notice
			return nil
		})
		require.ErrorIs(t, err, kv.ErrLockLost, "it may not have been alone")
		failure := errors.New("f failed")
		err = l.Do(t.Context(), "x", func(ctx context.Context) error {
			time.Sleep(lockTTL)
			return failure
		})
		require.ErrorIs(t, err, kv.ErrLockLost)
		require.ErrorIs(t, err, failure)
	})
}

func TestLockTakesANilContext(t *testing.T) {
	l := kv.NewLocker(newLockStore(t), nil)
	var none context.Context
	k, err := l.Lock(none, "x")
	require.NoError(t, err)
	require.NoError(t, k.Context().Err())
	require.NoError(t, k.Extend(none, time.Hour))
	require.NoError(t, k.Unlock(none))
	require.NoError(t, l.Do(none, "x", func(context.Context) error { return nil }))
}
