package kv_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
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

func TestGuardedTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{Timeout: time.Second})
		stuck := make(chan struct{})
		for name, compute := range map[string]func(context.Context) (string, error){
			"heeds": func(ctx context.Context) (string, error) {
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, time.Second, time.Until(deadline))
				<-ctx.Done()
				return "", ctx.Err()
			},
			"ignores": func(context.Context) (string, error) { <-stuck; return "late", nil },
		} {
			var waiters []<-chan got
			for range 10 {
				waiters = append(waiters, getting(t.Context(), g, name, compute))
			}
			for _, w := range waiters {
				r := <-w
				require.ErrorIs(t, r.err, context.DeadlineExceeded)
				require.Equal(t, time.Second, r.after)
			}
			require.Equal(t, got{"v", nil, 0}, <-getting(t.Context(), g, name, constant("v")))
		}
		close(stuck)
		synctest.Wait()
		require.Equal(t, got{"v", nil, 0}, <-getting(t.Context(), g, "ignores", noCompute(t)))
	})
}
