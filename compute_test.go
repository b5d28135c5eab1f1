package kv_test

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func computeThatPanics(context.Context) (string, error) { panic(kv.ErrNotFound) }

func TestGuardedPanicAndGoexitAreErrorsForAllWhoWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		// An ErrNotFound that is the value of a panic is none that compute said.
		g, s := newGuarded(t, &kv.GuardedOptions[string]{NegativeTTL: time.Hour})
		for name, end := range map[string]func(context.Context) (string, error){
			"panic":  computeThatPanics,
			"goexit": func(context.Context) (string, error) { runtime.Goexit(); return "", nil },
		} {
			var calls atomic.Int32
			compute := func(ctx context.Context) (string, error) {
				calls.Add(1)
				time.Sleep(time.Second)
				return end(ctx)
			}
			var waiters []<-chan got
			for range 50 {
				waiters = append(waiters, getting(t.Context(), g, name, compute))
			}
			for _, w := range waiters {
				r := <-w
				require.Error(t, r.err)
				require.Empty(t, r.value)
				require.Equal(t, time.Second, r.after, "none hangs, none computes in series")
				var p *kv.PanicError
				if name == "panic" {
					require.ErrorAs(t, r.err, &p)
					require.Equal(t, kv.ErrNotFound, p.Value)
					require.Contains(t, string(p.Stack), "computeThatPanics")
					require.Contains(t, p.Error(), "not found")
				}
			}
			require.EqualValues(t, 1, calls.Load())
			n, err := s.Count(t.Context(), "guarded:"+name)
			require.NoError(t, err)
			require.Zero(t, n)
			require.Equal(t, got{"v", nil, 0}, <-getting(t.Context(), g, name, constant("v")))
		}
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
