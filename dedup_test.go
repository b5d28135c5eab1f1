package kv_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func TestAlreadyProcessedMarksAtomically(t *testing.T) {
	i := newIdem(t, nil)
	var first atomic.Int32
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			seen, err := i.AlreadyProcessed(t.Context(), "event")
			require.NoError(t, err)
			if !seen {
				first.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, first.Load())
}

func TestAlreadyProcessedForgetsAfterTTL(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{TTL: time.Hour})
		for range 2 {
			seen, err := i.AlreadyProcessed(t.Context(), "event")
			require.NoError(t, err)
			require.False(t, seen)
			time.Sleep(time.Hour - 1)
			seen, err = i.AlreadyProcessed(t.Context(), "event")
			require.NoError(t, err)
			require.True(t, seen, "and asking does not prolong it")
			time.Sleep(time.Nanosecond)
		}
	})
}

func TestAlreadyProcessedOfACallerWhoHasGone(t *testing.T) {
	i := newIdem(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := i.AlreadyProcessed(ctx, "event")
	require.ErrorIs(t, err, context.Canceled)
	seen, err := i.AlreadyProcessed(t.Context(), "event")
	require.NoError(t, err)
	require.False(t, seen, "its event is not lost")
}

func TestProcessMarksAfterSuccessOnly(t *testing.T) {
	i := newIdem(t, nil)
	ctx := t.Context()
	runs := 0
	handler := func(err error) func(context.Context) error {
		return func(context.Context) error { runs++; return err }
	}
	for range 3 {
		processed, err := i.Process(ctx, "event", handler(errBoom))
		require.Same(t, errBoom, err)
		require.False(t, processed)
	}
	require.Equal(t, 3, runs, "no event is lost")
	processed, err := i.Process(ctx, "event", handler(nil))
	require.NoError(t, err)
	require.True(t, processed)
	for range 3 {
		processed, err = i.Process(ctx, "event", handler(nil))
		require.NoError(t, err)
		require.False(t, processed)
	}
	require.Equal(t, 4, runs)
	seen, err := i.AlreadyProcessed(ctx, "event")
	require.NoError(t, err)
	require.True(t, seen)
	seen, err = i.AlreadyProcessed(ctx, "marked")
	require.NoError(t, err)
	require.False(t, seen)
	processed, err = i.Process(ctx, "marked", handler(nil))
	require.NoError(t, err)
	require.False(t, processed, "marked by the other method")
}

func TestProcessReleasesOnPanicAndGoexit(t *testing.T) {
	i := newIdem(t, nil)
	for _, f := range []func(context.Context) error{
		func(context.Context) error { panic(errBoom) },
		func(context.Context) error { runtime.Goexit(); return nil },
	} {
		done := make(chan any)
		go func() {
			defer func() { done <- recover() }()
			_, _ = i.Process(t.Context(), "event", f)
			t.Error("returned")
		}()
		<-done
	}
	processed, err := i.Process(t.Context(), "event", func(context.Context) error { return nil })
	require.NoError(t, err)
	require.True(t, processed)
}

func TestProcessReportsARunningDuplicate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, nil)
		ctx := t.Context()
		go func() {
			processed, err := i.Process(ctx, "event", func(context.Context) error { time.Sleep(time.Hour); return nil })
			require.NoError(t, err)
			require.True(t, processed)
		}()
		synctest.Wait()
		for range 10 {
			processed, err := i.Process(ctx, "event", func(context.Context) error { t.Error("twice"); return nil })
			require.ErrorIs(t, err, kv.ErrInProgress)
			require.False(t, processed)
			seen, err := i.AlreadyProcessed(ctx, "event")
			require.ErrorIs(t, err, kv.ErrInProgress)
			require.False(t, seen)
			time.Sleep(5 * time.Minute) // over the claim's ttl
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		seen, err := i.AlreadyProcessed(ctx, "event")
		require.NoError(t, err)
		require.True(t, seen)
	})
}

func TestProcessWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{Wait: time.Minute})
		go func() {
			_, _ = i.Process(t.Context(), "event", func(context.Context) error { time.Sleep(time.Second); return nil })
		}()
		synctest.Wait()
		began := time.Now()
		processed, err := i.Process(t.Context(), "event", func(context.Context) error { t.Error("twice"); return nil })
		require.NoError(t, err)
		require.False(t, processed)
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestProcessLostClaim(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		type ctxKey struct{}
		ctx := context.WithValue(context.Background(), ctxKey{}, "value") // one that can't end by itself
		processed, err := kv.NewIdempotency(p[0].Store, nil).Process(ctx, "event", func(ctx context.Context) error {
			require.Equal(t, "value", ctx.Value(ctxKey{}))
			p[0].cutOff()
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), kv.ErrLockLost)
			time.Sleep(time.Minute)
			p[0].engine.Heal()
			return nil
		})
		require.ErrorIs(t, err, kv.ErrLockLost)
		require.False(t, processed)
		processed, err = kv.NewIdempotency(p[1].Store, nil).Process(ctx, "event", func(context.Context) error { return nil })
		require.NoError(t, err)
		require.True(t, processed, "nobody else had it: it is not lost")
	})
}

func TestAlreadyProcessedUnknownOutcome(t *testing.T) {
	p := openProcesses(t, 1)[0]
	i := kv.NewIdempotency(p.Store, nil)
	p.engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, "SetNX"))
	seen, err := i.AlreadyProcessed(t.Context(), "applied")
	require.NoError(t, err)
	require.False(t, seen, "the mark is this call's own")
	seen, err = i.AlreadyProcessed(t.Context(), "applied")
	require.NoError(t, err)
	require.True(t, seen)

	p.engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown}, "SetNX"))
	_, err = i.AlreadyProcessed(t.Context(), "not applied")
	require.ErrorIs(t, err, kv.ErrUnknownOutcome)
	seen, err = i.AlreadyProcessed(t.Context(), "not applied")
	require.NoError(t, err)
	require.False(t, seen, "an event whose mark is in doubt is not lost")

	p.engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown}, "SetNX"))
	seen, err = i.AlreadyProcessed(t.Context(), "applied")
	require.NoError(t, err)
	require.True(t, seen, "another's mark is not taken for this call's")
}

func TestKeysAndEventsAreDifferentSpaces(t *testing.T) {
	i := newIdem(t, nil)
	ctx := t.Context()
	names := []string{"x", "", "key:x", "event:x", ":", "%", ".", ".."}
	for _, name := range names {
		_, replay, err := i.Execute(ctx, name, "fp", respond(name))
		require.NoError(t, err)
		require.False(t, replay, name)
		seen, err := i.AlreadyProcessed(ctx, name)
		require.NoError(t, err)
		require.False(t, seen, name)
	}
	for _, name := range names {
		resp, replay, err := i.Execute(ctx, name, "fp", mustNotRun(t))
		require.NoError(t, err)
		require.True(t, replay)
		require.Equal(t, name, string(resp.Body))
	}
}
