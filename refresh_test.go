package kv_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func TestGuardedStaleForServesTheOldValueWhileOneRefreshes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		opts := &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour, LockTTL: time.Second}
		here, there := kv.NewGuarded(s, opts), kv.NewGuarded(s, opts)
		_, err := here.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		var calls atomic.Int32
		refresh := computing(10*time.Second, "new", &calls) // longer than the lease
		get := func(want string) {
			t.Helper()
			for _, g := range []*kv.Guarded[string]{here, there} {
				began := time.Now()
				v, err := g.Get(t.Context(), "key", refresh)
				require.NoError(t, err)
				require.Equal(t, want, v)
				require.Zero(t, time.Since(began), "at once")
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute - 1)
		get("old")
		require.Zero(t, calls.Load(), "fresh")
		time.Sleep(time.Nanosecond)
		for range 10 {
			get("old")
			require.EqualValues(t, 1, calls.Load(), "one refresh, in both processes together")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		get("new")
		time.Sleep(time.Minute - 1)
		get("new")
		require.EqualValues(t, 1, calls.Load())
		n, err := s.Count(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, n, "the lease is gone")
	})
}

func TestGuardedStaleValueSurvivesFailedRefreshes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour})
		_, err := g.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		for _, compute := range []func(context.Context) (string, error){
			failing(errBoom),
			failing(kv.ErrNotFound),
			func(context.Context) (string, error) { panic(errBoom) },
		} {
			v, err := g.Get(t.Context(), "key", compute)
			require.NoError(t, err)
			require.Equal(t, "old", v)
			synctest.Wait()
		}
		time.Sleep(time.Hour - 1)
		v, err := g.Get(t.Context(), "key", failing(errBoom))
		require.NoError(t, err)
		require.Equal(t, "old", v)
		time.Sleep(time.Nanosecond)
		_, err = g.Get(t.Context(), "key", failing(errBoom))
		require.Same(t, errBoom, err, "after TTL + StaleFor it is gone")
	})
}

func TestGuardedStaleValueSurvivesARefreshingProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		opts := &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour, LockTTL: 2 * time.Second}
		dies, lives := kv.NewGuarded(p[0].Store, opts), kv.NewGuarded(p[1].Store, opts)
		_, err := dies.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		var calls atomic.Int32
		_, err = dies.Get(t.Context(), "key", computing(time.Hour, "never", &calls))
		require.NoError(t, err)
		synctest.Wait()
		p[0].cutOff()
		for range 2 {
			v, err := lives.Get(t.Context(), "key", noCompute(t))
			require.NoError(t, err)
			require.Equal(t, "old", v)
			time.Sleep(time.Second)
		}
		v, err := lives.Get(t.Context(), "key", constant("new"))
		require.NoError(t, err)
		require.Equal(t, "old", v)
		synctest.Wait()
		v, err = lives.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "new", v, "refreshed when the dead process's lease had ended")
		require.NoError(t, p[0].Close())
	})
}

func TestGuardedRefreshRemembersErrNotFoundIfAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour, NegativeTTL: time.Minute})
		_, err := g.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		_, err = g.Get(t.Context(), "key", failing(kv.ErrNotFound))
		require.NoError(t, err)
		synctest.Wait()
		_, err = g.Get(t.Context(), "key", noCompute(t))
		require.ErrorIs(t, err, kv.ErrNotFound)
		time.Sleep(time.Minute)
		v, err := g.Get(t.Context(), "key", constant("back"))
		require.NoError(t, err)
		require.Equal(t, "back", v)
	})
}

func TestGuardedBetaRefreshesEarlyBehindTheCaller(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, beta := range []float64{0, 1e9} {
			g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Hour, Beta: beta})
			var calls atomic.Int32
			_, err := g.Get(t.Context(), "key", computing(time.Second, "1", &calls))
			require.NoError(t, err)
			began := time.Now()
			v, err := g.Get(t.Context(), "key", computing(time.Second, "2", &calls))
			require.NoError(t, err)
			require.Equal(t, "1", v)
			require.Zero(t, time.Since(began))
			time.Sleep(time.Second)
			synctest.Wait()
			v, err = g.Get(t.Context(), "key", computing(0, "3", &calls))
			require.NoError(t, err)
			if beta == 0 {
				require.Equal(t, "1", v)
				require.EqualValues(t, 1, calls.Load())
			} else {
				require.Equal(t, "2", v)
			}
			synctest.Wait()
		}
	})
}

// The clocks of processes are theirs; freshness is decided on the store's.
func TestGuardedFreshnessOnTheStoresClock(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		shared := kv.New(nil)
		defer shared.Close()
		s := kv.NewWithEngine(&skewed{kvtest.NewFaulty(shared), -100 * time.Hour}, nil)
		opts := &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour}
		_, err := kv.NewGuarded(s, opts).Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		reader := kv.NewGuarded(s, opts)
		time.Sleep(time.Minute - 1)
		_, err = reader.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		synctest.Wait()
		time.Sleep(time.Nanosecond)
		_, err = reader.Get(t.Context(), "key", constant("new"))
		require.NoError(t, err)
		synctest.Wait()
		v, err := reader.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

// skewed is an engine on a machine whose clock is elsewhere.
type skewed struct {
	*kvtest.Faulty
	ahead time.Duration
}

func (e *skewed) Now(ctx context.Context) (time.Time, error) {
	now, err := e.Faulty.Now(ctx)
	return now.Add(e.ahead), err
}

func TestGuardedHitCostsOneGetDuringARefresh(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 1)[0]
		g := kv.NewGuarded(p.Store, &kv.GuardedOptions[string]{TTL: 1, StaleFor: time.Hour})
		_, err := g.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		var calls atomic.Int32
		_, err = g.Get(t.Context(), "key", computing(100*time.Millisecond, "new", &calls))
		require.NoError(t, err)
		synctest.Wait()
		before := p.engine.Count()
		for range 100 {
			_, err = g.Get(t.Context(), "key", noCompute(t))
			require.NoError(t, err)
		}
		synctest.Wait()
		require.Equal(t, before+100, p.engine.Count())
		time.Sleep(100 * time.Millisecond)
	})
}

func TestGuardedRefreshThatHangsIsInNoNewOnesWay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour})
		_, err := g.Get(t.Context(), "key", constant("1"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		var calls atomic.Int32
		_, err = g.Get(t.Context(), "key", computing(10*time.Minute, "late", &calls))
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, g.Invalidate(t.Context(), "key"))
		_, err = g.Get(t.Context(), "key", constant("2"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		v, err := g.Get(t.Context(), "key", constant("3"))
		require.NoError(t, err)
		require.Equal(t, "2", v)
		synctest.Wait()
		v, err = g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "3", v)
		time.Sleep(10 * time.Minute)
	})
}

func TestGuardedInvalidateDiscardsARunningRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour})
		_, err := g.Get(t.Context(), "key", constant("1"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		var calls atomic.Int32
		_, err = g.Get(t.Context(), "key", computing(time.Minute, "2", &calls))
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, g.Invalidate(t.Context(), "key"))
		// The same value again, so that only its version tells it from the one that is being refreshed.
		v, err := g.Get(t.Context(), "key", constant("1"))
		require.NoError(t, err)
		require.Equal(t, "1", v, "not the old refresh's")
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		v, err = g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "1", v)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		_, err = g.Get(t.Context(), "key", constant("3"))
		require.NoError(t, err)
		synctest.Wait()
		v, err = g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "3", v, "and the old refresh is in no new one's way")
	})
}

func TestGuardedPanicOfARefreshIsLogged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var log bytes.Buffer
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		defer slog.SetDefault(before)
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: 1, StaleFor: time.Hour})
		_, err := g.Get(t.Context(), "key", constant("v"))
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = g.Get(t.Context(), "key", computeThatPanics)
		require.NoError(t, err)
		synctest.Wait()
		require.Contains(t, log.String(), "not found")
		require.Contains(t, log.String(), "computeThatPanics")
	})
}

func TestGuardedRefreshEndsByTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour, Timeout: time.Second})
		_, err := g.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		stuck := make(chan struct{})
		_, err = g.Get(t.Context(), "key", func(context.Context) (string, error) { <-stuck; return "late", nil })
		require.NoError(t, err)
		time.Sleep(time.Second)
		synctest.Wait()
		_, err = g.Get(t.Context(), "key", constant("new"))
		require.NoError(t, err)
		synctest.Wait()
		close(stuck)
		synctest.Wait()
		v, err := g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

// A refresh belongs to no caller: it goes on when the one that began it leaves.
func TestGuardedRefreshOutlivesItsCaller(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour})
		type ctxKey struct{}
		_, err := g.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, "new"))
		_, err = g.Get(ctx, "key", func(ctx context.Context) (string, error) {
			time.Sleep(time.Second)
			return ctx.Value(ctxKey{}).(string), ctx.Err()
		})
		require.NoError(t, err)
		cancel()
		time.Sleep(time.Second)
		synctest.Wait()
		v, err := g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

// A caller that read the old value, but asks for its refresh only after another
// process has finished one, must not compute it a second time.
func TestGuardedRefreshLooksAgainUnderItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, b, p := twoProcesses(t, &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour})
		_, err := a.Get(t.Context(), "key", constant("old"))
		require.NoError(t, err)
		_, err = b.Get(t.Context(), "key", noCompute(t)) // and measures the store's time
		require.NoError(t, err)
		time.Sleep(time.Minute)
		p[1].engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: time.Second, Applied: true}, "Get"))
		slow := getting(t.Context(), b, "key", noCompute(t))
		synctest.Wait()
		_, err = a.Get(t.Context(), "key", constant("new"))
		require.NoError(t, err)
		require.Equal(t, got{"old", nil, time.Second}, <-slow)
		synctest.Wait()
		v, err := b.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}
