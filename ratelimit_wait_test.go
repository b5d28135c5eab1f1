package kv_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func TestRateLimiterWait(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 2, Window: time.Minute, Algorithm: algorithm})
		start := time.Now()
		//lint:ignore SA1012 a nil ctx is promised to work
		require.NoError(t, limiter.Wait(nil, "key"))
		require.NoError(t, limiter.Wait(t.Context(), "key"))
		require.Zero(t, time.Since(start), "nothing to wait for")

		retry := peek(t, limiter, "key").RetryAfter
		require.NoError(t, limiter.Wait(t.Context(), "key"))
		require.Equal(t, retry, time.Since(start))
		require.NotZero(t, peek(t, limiter, "key").Count, "what was waited for counts")
	})
}

func TestRateLimiterWaitKnowsThatTheDeadlineComesFirst(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 2, Window: time.Minute, Algorithm: algorithm})
		require.True(t, allowN(t, limiter, "key", 2).Allowed)
		before, retry, start := entries(t, s), peek(t, limiter, "key").RetryAfter, time.Now()

		for _, timeout := range []time.Duration{time.Nanosecond, retry - 1, retry} {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			err := limiter.Wait(ctx, "key")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, `kv: wait "key": context deadline exceeded`)
			cancel()
		}
		require.Zero(t, time.Since(start), "at once")
		require.Equal(t, before, entries(t, s))

		ctx, cancel := context.WithTimeout(t.Context(), retry+1)
		defer cancel()
		require.NoError(t, limiter.Wait(ctx, "key"))
		require.Equal(t, retry, time.Since(start))
	})
}

func TestRateLimiterWaitEndsWithItsContext(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 1, Window: time.Minute, Algorithm: algorithm})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, limiter.Wait(ctx, "key"), context.Canceled)
		require.Empty(t, entries(t, s), "a dead context takes nothing")

		require.True(t, allow(t, limiter, "key").Allowed)
		before, start := entries(t, s), time.Now()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(7*time.Second, cancel)
		require.ErrorIs(t, limiter.Wait(ctx, "key"), context.Canceled)
		require.Equal(t, 7*time.Second, time.Since(start))
		require.Equal(t, before, entries(t, s))
	})
}

// waiters are calls of Wait on "key", in the order in which they began.
type waiters struct {
	cancel []context.CancelFunc
	group  sync.WaitGroup

	mu    sync.Mutex
	errs  []error // guarded by mu until group is done, as is ended
	ended []int   // numbers of calls, in the order in which they ended (at the same time: any order)
	at    []time.Time
}

// soFar returns which have ended when nothing goes on any more at this time, and with what errors.
func (w *waiters) soFar() (ended []int, errs []error) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ended), slices.Clone(w.errs)
}

func startWaiters(t *testing.T, limiter *kv.RateLimiter, n int) *waiters {
	w := &waiters{errs: make([]error, n), at: make([]time.Time, n)}
	for i := range n {
		ctx, cancel := context.WithCancel(t.Context())
		w.cancel = append(w.cancel, cancel)
		w.group.Go(func() {
			err := limiter.Wait(ctx, "key")
			w.mu.Lock()
			defer w.mu.Unlock()
			w.errs[i], w.ended, w.at[i] = err, append(w.ended, i), time.Now()
		})
		synctest.Wait() // it stands in the line
	}
	return w
}

// Those who wait are served in the order in which they came, one whenever one is allowed.
func TestRateLimiterWaitServesInOrder(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 3, Window: time.Minute, Algorithm: algorithm})
		require.True(t, allowN(t, limiter, "key", 3).Allowed)
		start := time.Now()
		w := startWaiters(t, limiter, 20)
		require.True(t, allow(t, limiter, "other").Allowed, "another key does not wait")
		w.group.Wait()
		require.NoError(t, errors.Join(w.errs...))
		require.True(t, slices.IsSortedFunc(w.at, time.Time.Compare), w.at)
		require.LessOrEqual(t, time.Since(start), 8*time.Minute)
		require.Greater(t, time.Since(start), 5*time.Minute)
	})
}

// Who gives up harms nobody: neither the first in line, nor one in the middle, nor the last.
func TestRateLimiterWaiterGivesUp(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 1, Window: time.Minute, Algorithm: algorithm})
		require.True(t, allow(t, limiter, "key").Allowed)
		start := time.Now()
		w := startWaiters(t, limiter, 6)
		for _, i := range []int{3, 0, 5} {
			w.cancel[i]()
			_, errs := w.soFar()
			require.ErrorIs(t, errs[i], context.Canceled, "promptly")
		}
		require.Zero(t, time.Since(start))
		w.group.Wait()
		require.Equal(t, []int{3, 0, 5, 1, 2, 4}, w.ended)
		require.NoError(t, errors.Join(w.errs[1], w.errs[2], w.errs[4]))
		require.LessOrEqual(t, time.Since(start), 3*(time.Minute+time.Microsecond))
	})
}

// Who comes into a line knows at once that its deadline comes before its turn.
func TestRateLimiterWaitCountsThoseAhead(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 60, Window: time.Minute, Algorithm: algorithm})
		require.True(t, allowN(t, limiter, "key", 60).Allowed)
		first := peek(t, limiter, "key").RetryAfter
		w := startWaiters(t, limiter, 5)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), first+100*time.Millisecond)
		defer cancel()
		err := limiter.Wait(ctx, "key")
		if algorithm == kv.FixedWindow { // all of them are allowed when the window ends
			require.NoError(t, err)
		} else { // the sixth comes about five seconds after the first
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Zero(t, time.Since(start))
		}
		w.group.Wait()
		require.NoError(t, errors.Join(w.errs...))
	})
}

func TestRateLimiterWaitEndsWithTheStore(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s.Namespace("ns"), kv.Limit{Requests: 1, Window: time.Minute, Algorithm: algorithm})
		require.True(t, allow(t, limiter, "key").Allowed)
		start := time.Now()
		w := startWaiters(t, limiter, 3)
		require.NoError(t, s.Close())
		w.group.Wait()
		require.Zero(t, time.Since(start))
		for _, err := range append(w.errs, limiter.Wait(t.Context(), "key")) {
			require.ErrorIs(t, err, kv.ErrClosed)
		}
	})
}

// stuckEngine is one whose first Take hangs until released.
type stuckEngine struct {
	*kvtest.Faulty
	taken   atomic.Bool
	release chan struct{}
}

func (e *stuckEngine) Take(ctx context.Context, key string, q kv.Quota, n int64, dry bool) (kv.Usage, error) {
	if e.taken.CompareAndSwap(false, true) {
		<-e.release
	}
	return e.Faulty.Take(ctx, key, q, n, dry)
}

// Who stands behind one that hangs in the engine is told of the closing all the same.
func TestRateLimiterWaitEndsWithTheStoreBehindAStuckOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &stuckEngine{Faulty: kvtest.NewFaulty(kv.New(nil)), release: make(chan struct{})}
		s := kv.NewWithEngine(engine, nil)
		w := startWaiters(t, newLimiter(t, s, kv.Limit{Requests: 1, Window: time.Minute}), 2)
		require.NoError(t, s.Close())
		ended, errs := w.soFar()
		require.Equal(t, []int{1}, ended)
		require.ErrorIs(t, errs[1], kv.ErrClosed)
		close(engine.release)
		w.group.Wait()
	})
}

// What is given back wakes those who wait, as many as it is enough for, in their order.
func TestRateLimiterWaitIsWoken(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 4, Window: time.Hour, Algorithm: algorithm})
		require.True(t, allowN(t, limiter, "key", 4).Allowed)
		start := time.Now()
		w := startWaiters(t, limiter, 7)
		require.NoError(t, limiter.Refund(t.Context(), "key", 2))
		require.NoError(t, limiter.Refund(t.Context(), "other", 2))
		ended, _ := w.soFar()
		require.ElementsMatch(t, []int{0, 1}, ended)
		require.NoError(t, limiter.Reset(t.Context(), "key"))
		ended, _ = w.soFar()
		require.ElementsMatch(t, []int{0, 1, 2, 3, 4, 5}, ended)
		require.Zero(t, time.Since(start))
		w.group.Wait()
		require.NoError(t, errors.Join(w.errs...))
		require.Positive(t, time.Since(start))
	})
}

// Who stands in the line has counted nothing yet, even if there is something to be had: its turn comes first.
func TestRateLimiterWaitInLineCountsNothing(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 4, Window: time.Hour, Algorithm: algorithm})
		require.True(t, allowN(t, limiter, "key", 4).Allowed)
		first := startWaiters(t, limiter, 1)
		require.NoError(t, newLimiter(t, s, kv.Limit{Requests: 4, Window: time.Hour, Algorithm: algorithm}).Reset(t.Context(), "key"))
		second := startWaiters(t, limiter, 2)
		require.Empty(t, entries(t, s))
		first.group.Wait()
		second.group.Wait()
		require.NoError(t, errors.Join(append(first.errs, second.errs...)...))
		require.Equal(t, int64(3), peek(t, limiter, "key").Count-1)
	})
}

// An engine that fails ends the wait of whoever asks it then, and of nobody else.
func TestRateLimiterWaitWhileTheEngineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		limiter := newLimiter(t, s, kv.Limit{Requests: 1, Window: time.Minute})
		require.True(t, allow(t, limiter, "key").Allowed)
		w := startWaiters(t, limiter, 2)
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
		start := time.Now()
		require.ErrorIs(t, limiter.Wait(t.Context(), "key"), kvtest.ErrDown)
		require.Zero(t, time.Since(start))
		engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrDown}))
		w.group.Wait()
		require.ErrorIs(t, w.errs[0], kvtest.ErrDown, "it asked when its time had come")
		require.NoError(t, w.errs[1])
	})
}

// Waiting does not poll: each of many waiters costs the store a look when it comes,
// and then one call when it is denied and one when it is allowed.
func TestRateLimiterWaitDoesNotPoll(t *testing.T) {
	for _, algorithm := range limitAlgorithms {
		t.Run(algorithm.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := kvtest.NewFaulty(kv.New(nil))
				s := kv.NewWithEngine(engine, nil)
				defer s.Close()
				limiter := newLimiter(t, s, kv.Limit{Requests: 1, Window: time.Second, Algorithm: algorithm})
				require.True(t, allow(t, limiter, "key").Allowed)
				const n = 100
				w := startWaiters(t, limiter, n)
				w.group.Wait()
				require.NoError(t, errors.Join(w.errs...))
				require.LessOrEqual(t, engine.Count("Take"), 3*n+1)
			})
		})
	}
}
