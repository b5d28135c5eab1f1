package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// faults that a renewal may meet; some of them happen although they fail.
var renewalFaults = map[string]kvtest.Fault{
	"down":                 {Err: kvtest.ErrDown},
	"unknown, applied":     {Err: kvtest.ErrUnknown, Applied: true},
	"unknown, not applied": {Err: kvtest.ErrUnknown},
	"hangs":                {Delay: time.Hour},
	"hangs after applying": {Delay: time.Hour, Applied: true},
}

func TestLockSurvivesRenewalsThatFailForAWhile(t *testing.T) {
	for name, fault := range renewalFaults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, engine, _ := newProcesses(t)
				k := tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}), "x")
				successor := kv.NewLocker(b, nil)
				for range 10 {
					require.NoError(t, k.Extend(t.Context(), lockTTL))
					engine.Inject(kvtest.Always(fault, "CompareAndSwap"))
					time.Sleep(lockTTL * 3 / 4) // a renewal that hangs gives up before the local deadline
					engine.Heal()
					time.Sleep(lockTTL / 4)
					require.NoError(t, k.Context().Err())
					_, err := successor.TryLock(t.Context(), "x")
					require.ErrorIs(t, err, kv.ErrLocked)
				}
				require.NoError(t, k.Unlock(t.Context()))
			})
		})
	}
}

// The last attempt comes in the last twentieth before the local deadline, which is the last twentieth before the store's.
func TestLockRenewsInTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, engine, _ := newProcesses(t)
		k := tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}), "x")
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
		time.Sleep(lockTTL * 9 / 10)
		engine.Heal()
		time.Sleep(lockTTL / 10)
		require.NoError(t, k.Context().Err())
		require.NoError(t, k.Unlock(t.Context()))
		require.Less(t, engine.Count("CompareAndSwap"), 40, "retries back off")
	})
}

func TestLockIsLostWhenRenewalFailsForGood(t *testing.T) {
	for name, fault := range renewalFaults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, engine, _ := newProcesses(t)
				k := tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}), "x")
				engine.Inject(kvtest.Always(fault, "CompareAndSwap"))
				began := time.Now()
				next := make(chan *kv.Lock, 1)
				go func() {
					successor, err := kv.NewLocker(b, nil).Lock(t.Context(), "x")
					assert.NoError(t, err)
					assert.Error(t, k.Context().Err(), "the lock's context ends before anyone else holds it")
					next <- successor
				}()
				<-k.Context().Done()
				lost(t, k)
				require.Equal(t, lockTTL*19/20, time.Since(began), "the local deadline")
				successor := <-next
				engine.Heal()
				require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrLockLost)
				require.ErrorIs(t, k.Extend(t.Context(), time.Hour), kv.ErrLockLost)
				require.Greater(t, successor.Fence(), k.Fence())
				require.NoError(t, successor.Unlock(t.Context()))
			})
		})
	}
}

func TestTryLockThroughAnUnknownOutcome(t *testing.T) {
	a, b, engine, _ := newProcesses(t)
	la, lb := kv.NewLocker(a, nil), kv.NewLocker(b, nil)

	engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, "SetNX"))
	k := tryLock(t, la, "x")
	_, err := lb.TryLock(t.Context(), "x")
	require.ErrorIs(t, err, kv.ErrLocked)
	require.NoError(t, k.Unlock(t.Context()))

	k = tryLock(t, lb, "x")
	engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, "SetNX"))
	_, err = la.TryLock(t.Context(), "x")
	require.ErrorIs(t, err, kv.ErrLocked, "it was another's")
	require.NoError(t, k.Unlock(t.Context()))

	engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown}, "SetNX"))
	_, err = la.TryLock(t.Context(), "x")
	require.ErrorIs(t, err, kv.ErrUnknownOutcome)
	require.ErrorIs(t, err, kvtest.ErrDown)
	tryLock(t, lb, "x")
}

func TestUnlockThroughAnUnknownOutcome(t *testing.T) {
	for _, applied := range []bool{true, false} {
		a, b, engine, _ := newProcesses(t)
		k := tryLock(t, kv.NewLocker(a, nil), "x")
		engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: applied}, "CompareAndDelete"))
		require.NoError(t, k.Unlock(t.Context()))
		tryLock(t, kv.NewLocker(b, nil), "x")
		require.ErrorIs(t, k.Unlock(t.Context()), kv.ErrLockLost)
	}
}

func TestUnlockMayBeTriedAgain(t *testing.T) {
	a, b, engine, _ := newProcesses(t)
	k := tryLock(t, kv.NewLocker(a, nil), "x")
	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
	require.ErrorIs(t, k.Unlock(t.Context()), kvtest.ErrDown)
	require.Equal(t, context.Canceled, context.Cause(k.Context()))
	engine.Heal()
	require.NoError(t, k.Unlock(t.Context()))
	tryLock(t, kv.NewLocker(b, nil), "x")
}

// A client that went away must not keep its lock from being freed, however long that takes.
func TestUnlockIgnoresTheEndOfCtx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, engine, _ := newProcesses(t)
		engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Second}))
		ctx, cancel := context.WithCancel(t.Context())
		k, err := kv.NewLocker(a, nil).Lock(ctx, "x")
		require.NoError(t, err)
		time.AfterFunc(time.Second/2, cancel)
		require.NoError(t, k.Unlock(ctx))
		require.Error(t, ctx.Err())
		tryLock(t, kv.NewLocker(b, nil), "x")
	})
}

// A lock that can't have its fence is given back.
func TestLockWithoutAFenceIsFreed(t *testing.T) {
	for _, method := range []string{"Incr", "Get"} {
		a, b, engine, _ := newProcesses(t)
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}, method))
		_, err := kv.NewLocker(a, nil).Lock(t.Context(), "x")
		require.ErrorIs(t, err, kvtest.ErrDown, method)
		tryLock(t, kv.NewLocker(b, nil), "x")
	}
}

// at returns a plan that does f once, when the method is called.
func at(method string, f func()) kvtest.Plan {
	var once sync.Once
	return func(c kvtest.Call) kvtest.Fault {
		if c.Method == method {
			once.Do(f)
		}
		return kvtest.Fault{}
	}
}

// Whoever was forced out before it drew its fence must not draw a higher one than its successor.
func TestLockForcedOpenBeforeItsFenceIsDrawn(t *testing.T) {
	a, b, engine, _ := newProcesses(t)
	la, lb := kv.NewLocker(a, nil), kv.NewLocker(b, nil)
	var successor *kv.Lock
	engine.Inject(at("Incr", func() {
		_, err := lb.ForceUnlock(t.Context(), "x")
		assert.NoError(t, err)
		successor = tryLock(t, lb, "x")
	}))
	_, err := la.TryLock(t.Context(), "x")
	require.ErrorIs(t, err, kv.ErrLockLost)
	require.NoError(t, successor.Context().Err())
	require.NoError(t, successor.Unlock(t.Context()))
}

// Between the write of the key and the fence the lock may expire: then it was never held.
func TestLockExpiredBeforeItsFenceIsDrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, engine, _ := newProcesses(t)
		engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: lockTTL * 19 / 20}, "Incr"))
		_, err := kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL, NoRenew: true}).Lock(t.Context(), "x")
		require.ErrorIs(t, err, kv.ErrLockLost)
		tryLock(t, kv.NewLocker(b, nil), "x")

		engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: 10 * lockTTL}, "Incr"))
		_, err = kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}).Lock(t.Context(), "y")
		require.NoError(t, err, "a lock that is renewed meanwhile is held")
	})
}

// The local deadline counts from before the write was sent: a slow answer must not make the lease longer.
func TestLockCountsFromBeforeTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, engine, _ := newProcesses(t)
		began := time.Now()
		engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: lockTTL / 2, Applied: true}, "SetNX"))
		k := tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL, NoRenew: true}), "x")
		<-k.Context().Done()
		require.Equal(t, lockTTL*19/20, time.Since(began))

		k = tryLock(t, kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL, NoRenew: true}), "y")
		began = time.Now()
		engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: lockTTL / 2, Applied: true}, "CompareAndSwap"))
		require.NoError(t, k.Extend(t.Context(), lockTTL))
		<-k.Context().Done()
		require.Equal(t, lockTTL*19/20, time.Since(began))
	})
}

// randomFaults is an engine's bad day.
func randomFaults(seed uint64) kvtest.Plan {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1))
	return func(kvtest.Call) kvtest.Fault {
		mu.Lock()
		defer mu.Unlock()
		f := kvtest.Fault{Applied: random.IntN(2) == 0}
		switch random.IntN(12) {
		case 0:
			f.Err = kvtest.ErrUnknown
		case 1:
			f.Err, f.Applied = kvtest.ErrDown, false
		case 2:
			f.Delay = time.Duration(random.Int64N(int64(2 * lockTTL)))
		case 3, 4:
			f.Delay = time.Duration(random.Int64N(int64(lockTTL / 10)))
		}
		return f
	}
}

// holders checks that never two locks of one name have contexts that are both alive, and that fences grow.
type holders struct {
	t *testing.T

	mu     sync.Mutex
	locks  map[string][]*kv.Lock // by name, in the order of acquisition; guarded by mu
	served int                   // guarded by mu
}

func (h *holders) add(name string, k *kv.Lock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k.Context().Err() != nil { // lost since: it may be listed after its successor
		return
	}
	h.served++
	for _, before := range h.locks[name] {
		assert.Error(h.t, before.Context().Err(), "two holders of %s", name)
		assert.Greater(h.t, k.Fence(), before.Fence())
	}
	h.locks[name] = append(h.locks[name], k)
}

func TestLockRandomSchedules(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, engineA, engineB := newProcesses(t)
				if seed%3 != 0 {
					engineA.Inject(randomFaults(seed))
				}
				if seed%3 == 2 {
					engineB.Inject(randomFaults(seed + 1000))
				}
				lockers := []*kv.Locker{
					kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL}),
					kv.NewLocker(a, &kv.LockerOptions{TTL: lockTTL, MaxHold: 2 * lockTTL}),
					kv.NewLocker(b, &kv.LockerOptions{TTL: lockTTL, NoRenew: true}),
					kv.NewLocker(b, &kv.LockerOptions{TTL: lockTTL / 2}),
				}
				all := &holders{t: t, locks: make(map[string][]*kv.Lock)}
				var workers sync.WaitGroup
				for i := range 16 {
					workers.Go(func() {
						random := rand.New(rand.NewPCG(seed, uint64(i)))
						for range 30 {
							useLock(t, random, lockers[random.IntN(len(lockers))], all)
						}
					})
				}
				workers.Wait()
				require.Greater(t, all.served, 10)
				engineA.Heal()
				engineB.Heal()
				time.Sleep(time.Hour) // what nobody holds any more frees itself
				n, err := a.Count(t.Context(), "")
				require.NoError(t, err)
				require.Equal(t, 1, n, "nothing but the counter of the fences stays behind")
			})
		})
	}
}

// useLock does what a random user does with a lock of one of two names.
func useLock(t *testing.T, random *rand.Rand, l *kv.Locker, all *holders) {
	name := fmt.Sprint("n", random.IntN(2))
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(5*lockTTL))))
	defer cancel()
	take := l.Lock
	if random.IntN(3) == 0 {
		take = l.TryLock
	}
	k, err := take(ctx, name)
	if err != nil {
		expected := errors.Is(err, kv.ErrLocked) || errors.Is(err, kv.ErrLockLost) || errors.Is(err, kvtest.ErrDown) ||
			errors.Is(err, context.DeadlineExceeded)
		assert.True(t, expected, "%v", err)
		return
	}
	all.add(name, k)
	for range random.IntN(3) {
		time.Sleep(time.Duration(random.Int64N(int64(lockTTL))))
		if random.IntN(4) == 0 {
			_ = k.Extend(ctx, time.Duration(1+random.Int64N(int64(2*lockTTL)))) // may fail or come too late
		}
	}
	for k.Unlock(ctx) != nil {
		if errors.Is(context.Cause(k.Context()), kv.ErrLockLost) || random.IntN(2) == 0 {
			return // a holder that dies without unlocking, or has nothing to unlock
		}
	}
}

// On a real clock, with leases so short that they expire and are renewed all the time.
func TestLockShortLeasesOnARealClock(t *testing.T) {
	s := newLockStore(t)
	all := &holders{t: t, locks: make(map[string][]*kv.Lock)}
	var workers sync.WaitGroup
	for i := range 8 {
		l := kv.NewLocker(s, &kv.LockerOptions{TTL: 2 * time.Millisecond, NoRenew: i%2 == 0})
		workers.Go(func() {
			for range 40 {
				k, err := l.Lock(t.Context(), "x")
				if errors.Is(err, kv.ErrLockLost) { // on a busy machine 2 ms pass at once
					continue
				}
				if !assert.NoError(t, err) {
					return
				}
				all.add("x", k)
				if i%4 < 2 {
					_ = k.Unlock(t.Context()) // nil or ErrLockLost
				} else if i%2 == 1 {
					assert.Eventually(t, func() bool { return k.Unlock(t.Context()) != nil }, time.Minute, time.Millisecond)
				}
			}
		})
	}
	workers.Wait()
}
