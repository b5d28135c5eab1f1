package kv_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

// twoProcesses are two Guarded with stores of their own on the same data.
func twoProcesses(t *testing.T, opts *kv.GuardedOptions[string]) (a, b *kv.Guarded[string], p []process) {
	p = openProcesses(t, 2)
	return kv.NewGuarded(p[0].Store, opts), kv.NewGuarded(p[1].Store, opts), p
}

func TestGuardedComputeIsDetachedFromItsFirstCaller(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, nil)
		type ctxKey struct{}
		var calls atomic.Int32
		first, leave := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, "of the first"))
		a := getting(first, g, "key", func(ctx context.Context) (string, error) {
			calls.Add(1)
			time.Sleep(time.Minute)
			require.NoError(t, ctx.Err())
			return ctx.Value(ctxKey{}).(string), nil
		})
		synctest.Wait()
		b := getting(t.Context(), g, "key", noCompute(t))
		synctest.Wait()
		time.Sleep(time.Second)
		leave()
		gone := <-a
		require.ErrorIs(t, gone.err, context.Canceled)
		require.Equal(t, time.Second, gone.after, "who leaves does so at once")
		require.Equal(t, got{"of the first", nil, time.Minute}, <-b)
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestGuardedComputeEndsWhenTheLastWaiterHasLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, p := twoProcesses(t, nil)
		var ended atomic.Bool
		stuck := make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		var waiters []<-chan got
		for range 10 {
			waiters = append(waiters, getting(ctx, a, "key", func(ctx context.Context) (string, error) {
				<-ctx.Done()
				ended.Store(true)
				<-stuck // it does not heed it, though
				return "late", nil
			}))
			synctest.Wait()
		}
		other := getting(t.Context(), b, "key", constant("other process"))
		synctest.Wait()
		require.False(t, ended.Load())
		leave()
		for _, w := range waiters {
			require.ErrorIs(t, (<-w).err, context.Canceled)
		}
		require.Equal(t, got{"other process", nil, 0}, <-other, "the lease is free at once")
		synctest.Wait()
		require.True(t, ended.Load())

		_, err := p[0].Delete(t.Context(), "guarded:key")
		require.NoError(t, err)
		require.Equal(t, got{"next", nil, 0}, <-getting(t.Context(), a, "key", constant("next")))
		close(stuck)
		synctest.Wait()
		require.Equal(t, got{"next", nil, 0}, <-getting(t.Context(), b, "key", noCompute(t)), "what came too late is nobody's")
	})
}

func TestGuardedCallerWhoHasGoneComputesNothing(t *testing.T) {
	g, _ := newGuarded(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.Get(ctx, "key", noCompute(t))
	require.ErrorIs(t, err, context.Canceled)
}

func TestGuardedWaiterOfAnotherProcessComputesAfterLockTTL(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, _ := twoProcesses(t, &kv.GuardedOptions[string]{LockTTL: 3 * time.Second})
		var calls atomic.Int32
		slow := getting(t.Context(), a, "key", computing(5*time.Second, "first", &calls))
		time.Sleep(time.Second)
		late := getting(t.Context(), b, "key", computing(10*time.Second, "last", &calls))
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		require.EqualValues(t, 1, calls.Load())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.EqualValues(t, 2, calls.Load(), "LockTTL after it began to wait")
		require.Equal(t, got{"first", nil, 5 * time.Second}, <-slow)

		// Until the last taker is done, the value of the one before serves.
		for _, g := range []*kv.Guarded[string]{a, b} {
			require.Equal(t, got{"first", nil, 0}, <-getting(t.Context(), g, "key", noCompute(t)))
		}
		require.Equal(t, got{"last", nil, 13 * time.Second}, <-late)
		for _, g := range []*kv.Guarded[string]{a, b} {
			require.Equal(t, got{"last", nil, 0}, <-getting(t.Context(), g, "key", noCompute(t)), "the last taker's stays")
		}
	})
}

func TestGuardedEarlierTakerDoesNotReplaceTheLast(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, _ := twoProcesses(t, &kv.GuardedOptions[string]{LockTTL: 3 * time.Second})
		var calls atomic.Int32
		slow := getting(t.Context(), a, "key", computing(time.Minute, "first", &calls))
		synctest.Wait()
		late := getting(t.Context(), b, "key", computing(time.Second, "last", &calls))
		require.Equal(t, got{"last", nil, 4 * time.Second}, <-late)
		require.Equal(t, got{"first", nil, time.Minute}, <-slow, "who waited for it gets it")
		require.Equal(t, got{"last", nil, 0}, <-getting(t.Context(), a, "key", noCompute(t)))
	})
}

func TestGuardedLongComputeIsCached(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{LockTTL: time.Second})
		var calls atomic.Int32
		require.Equal(t, got{"v", nil, time.Hour}, <-getting(t.Context(), g, "key", computing(time.Hour, "v", &calls)))
		require.Equal(t, got{"v", nil, 0}, <-getting(t.Context(), g, "key", noCompute(t)))
	})
}

// With callers in two processes at all times, each taking the lease over from the
// other every LockTTL, a compute that takes longer must not go on for ever without being kept.
func TestGuardedLongComputeIsCachedUnderLoad(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, _ := twoProcesses(t, &kv.GuardedOptions[string]{LockTTL: 2 * time.Second})
		var calls atomic.Int32
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 300 * time.Millisecond)
				v, err := []*kv.Guarded[string]{a, b}[i%2].Get(t.Context(), "key", computing(10500*time.Millisecond, "v", &calls))
				require.NoError(t, err)
				require.Equal(t, "v", v)
			})
		}
		wg.Wait()
		require.EqualValues(t, 2, calls.Load())
	})
}

func TestGuardedCrashedProcessBlocksForLockTTL(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, p := twoProcesses(t, &kv.GuardedOptions[string]{LockTTL: 3 * time.Second})
		var calls atomic.Int32
		crashed := getting(t.Context(), a, "key", computing(time.Hour, "never", &calls))
		synctest.Wait()
		p[0].cutOff()
		time.Sleep(2 * time.Second)
		// The lease ends a second later, before this caller has waited for LockTTL.
		r := <-getting(t.Context(), b, "key", constant("v"))
		require.NoError(t, r.err)
		require.GreaterOrEqual(t, r.after, time.Second)
		require.LessOrEqual(t, r.after, time.Second+200*time.Millisecond, "the time that an expiry may take to be reported")
		require.NoError(t, p[0].Close())
		<-crashed
	})
}

func TestGuardedErrorMakesOtherProcessesComputeThemselves(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, _ := twoProcesses(t, nil)
		failed := getting(t.Context(), a, "key", func(context.Context) (string, error) {
			time.Sleep(time.Second)
			return "", errBoom
		})
		synctest.Wait()
		var others []<-chan got
		var calls atomic.Int32
		for range 20 {
			others = append(others, getting(t.Context(), b, "key", computing(time.Second, "v", &calls)))
		}
		require.Equal(t, got{"", errBoom, time.Second}, <-failed)
		for _, o := range others {
			require.Equal(t, got{"v", nil, 2 * time.Second}, <-o)
		}
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestGuardedInvalidateDuringACompute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, _ := twoProcesses(t, &kv.GuardedOptions[string]{LockTTL: time.Minute})
		for name, by := range map[string]*kv.Guarded[string]{"here": a, "there": b} {
			var calls atomic.Int32
			before := getting(t.Context(), a, name, computing(10*time.Second, "old", &calls))
			synctest.Wait()
			waits := getting(t.Context(), b, name, computing(2*time.Second, "new", &calls))
			time.Sleep(time.Second)
			require.NoError(t, by.Invalidate(t.Context(), name))

			// Joiners after the Invalidate, in the process that computes and in the other one.
			var after []<-chan got
			for range 5 {
				after = append(after,
					getting(t.Context(), a, name, computing(2*time.Second, "new", &calls)),
					getting(t.Context(), b, name, computing(2*time.Second, "new", &calls)))
				synctest.Wait()
			}
			for _, r := range after {
				require.Equal(t, got{"new", nil, 2 * time.Second}, <-r)
			}
			require.Equal(t, got{"new", nil, 3 * time.Second}, <-waits, "it waited for the key, not for the compute")
			require.Equal(t, got{"old", nil, 10 * time.Second}, <-before, "its call began before")
			require.EqualValues(t, 2, calls.Load())
			for _, g := range []*kv.Guarded[string]{a, b} {
				require.Equal(t, got{"new", nil, 0}, <-getting(t.Context(), g, name, noCompute(t)))
			}
		}
	})
}

func TestGuardedInvalidateWithNobodyAfterwards(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, p := twoProcesses(t, nil)
		var calls atomic.Int32
		before := getting(t.Context(), a, "key", computing(time.Second, "old", &calls))
		synctest.Wait()
		require.NoError(t, b.Invalidate(t.Context(), "key"))
		require.Equal(t, "old", (<-before).value)
		n, err := p[0].Count(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, n, "nothing was stored")
	})
}

// A flight that waits for another process finds a value, but before it can
// pass it on the value is invalidated and somebody else joins.
func TestGuardedJoinerDoesNotGetWhatWasFoundBeforeItCame(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, p := twoProcesses(t, nil)
		var calls atomic.Int32
		getting(t.Context(), a, "key", computing(500*time.Millisecond, "old", &calls))
		synctest.Wait()
		first := getting(t.Context(), b, "key", noCompute(t))
		synctest.Wait()
		p[1].engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: time.Second, Applied: true}, "Get")) // of the flight, when it is woken
		time.Sleep(time.Second)
		require.NoError(t, a.Invalidate(t.Context(), "key"))
		second := getting(t.Context(), b, "key", constant("new"))
		require.Equal(t, got{"old", nil, 1500 * time.Millisecond}, <-first)
		require.Equal(t, got{"new", nil, 500 * time.Millisecond}, <-second)
	})
}

func TestGuardedWaiterThatLeavesWhileAnotherProcessComputes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, _ := twoProcesses(t, nil)
		var calls atomic.Int32
		computes := getting(t.Context(), a, "key", computing(time.Second, "v", &calls))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		left := <-getting(ctx, b, "key", noCompute(t))
		require.ErrorIs(t, left.err, context.DeadlineExceeded)
		require.Equal(t, time.Millisecond, left.after)
		require.Equal(t, got{"v", nil, time.Second}, <-computes)
	})
}

// A caller that saw the key before the lease was in it finds the flight that has begun meanwhile.
func TestGuardedSlowReaderJoinsTheFlight(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _, p := twoProcesses(t, nil)
		p[0].engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: time.Second, Applied: true}, "Get"))
		slow := getting(t.Context(), g, "key", noCompute(t))
		synctest.Wait()
		var calls atomic.Int32
		first := getting(t.Context(), g, "key", computing(10*time.Second, "v", &calls)) // for several LockTTL
		require.Equal(t, got{"v", nil, 10 * time.Second}, <-slow)
		require.Equal(t, got{"v", nil, 10 * time.Second}, <-first)
	})
}

// A flight that everybody has left may hold the lease for a little longer: nobody joins it.
func TestGuardedNobodyJoinsAFlightThatWasLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _, p := twoProcesses(t, nil)
		p[0].engine.Inject(kvtest.Always(kvtest.Fault{Delay: 100 * time.Millisecond}, "CompareAndDelete"))
		ctx, leave := context.WithCancel(t.Context())
		var calls atomic.Int32
		left := getting(ctx, g, "key", computing(time.Hour, "never", &calls))
		synctest.Wait()
		leave()
		require.ErrorIs(t, (<-left).err, context.Canceled)
		require.Equal(t, got{"v", nil, 100 * time.Millisecond}, <-getting(t.Context(), g, "key", constant("v")))
	})
}

func TestGuardedLeftBeforeItHasTheLeaseComputesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _, p := twoProcesses(t, nil)
		p[0].engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Second}, "SetNX"))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		require.Equal(t, 500*time.Millisecond, (<-getting(ctx, g, "key", noCompute(t))).after)
		time.Sleep(time.Second)
		synctest.Wait()
		n, err := p[0].Count(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, n, "and gives the lease back")
	})
}

// The flight of before an Invalidate ends while the next one is under way.
func TestGuardedEndOfAnOldFlightLeavesTheNewOneToJoin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, nil)
		var calls atomic.Int32
		old := getting(t.Context(), g, "key", computing(10*time.Second, "old", &calls))
		synctest.Wait()
		require.NoError(t, g.Invalidate(t.Context(), "key"))
		fresh := getting(t.Context(), g, "key", computing(time.Minute, "new", &calls))
		require.Equal(t, "old", (<-old).value)
		require.Equal(t, got{"new", nil, 50 * time.Second}, <-getting(t.Context(), g, "key", noCompute(t)))
		require.Equal(t, got{"new", nil, time.Minute}, <-fresh)
	})
}

func TestGuardedTakeOverOfUnknownOutcome(t *testing.T) {
	for _, applied := range []bool{true, false} {
		inBubble(t, func(t *testing.T) {
			a, b, p := twoProcesses(t, nil)
			var calls atomic.Int32
			getting(t.Context(), a, "key", computing(time.Minute, "first", &calls))
			synctest.Wait()
			p[1].engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: applied}, "CompareAndSwap"))
			require.Equal(t, got{"last", nil, 3 * time.Second}, <-getting(t.Context(), b, "key", computing(time.Second, "last", &calls)))
			require.Equal(t, got{"last", nil, 0}, <-getting(t.Context(), a, "key", noCompute(t)))
			time.Sleep(time.Minute)
		})
	}
}

// hangs is an engine whose SetNX goes on after Close, until it is let go.
type hangs struct {
	*kvtest.Faulty
	let chan struct{}
}

func (e *hangs) SetNX(context.Context, string, string, time.Duration) (bool, error) {
	<-e.let
	return false, kv.ErrClosed
}

func TestGuardedEndsWithTheStoreThoughTheEngineHangs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		e := &hangs{kvtest.NewFaulty(kv.New(nil)), make(chan struct{})}
		s := kv.NewWithEngine(e, nil)
		waits := getting(t.Context(), kv.NewGuarded[string](s, nil), "key", noCompute(t))
		synctest.Wait()
		require.NoError(t, s.Close())
		require.ErrorIs(t, (<-waits).err, kv.ErrClosed)
		close(e.let)
	})
}

func TestGuardedStoreThatFailsWhileWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, p := twoProcesses(t, nil)
		var calls atomic.Int32
		computes := getting(t.Context(), a, "key", computing(time.Second, "v", &calls))
		synctest.Wait()
		waits := getting(t.Context(), b, "key", noCompute(t))
		synctest.Wait()
		p[1].cutOff()
		p[1].engine.BreakWatches()
		r := <-waits
		require.True(t, errors.Is(r.err, kvtest.ErrDown), "%v", r.err)
		require.Equal(t, got{"v", nil, time.Second}, <-computes)
	})
}
