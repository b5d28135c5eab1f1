package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// watchCounter is the engine in memory, which counts its watches and refuses them on demand.
type watchCounter struct {
	Engine
	open, opened atomic.Int32
	refuse       atomic.Pointer[error]

	mu   sync.Mutex
	sink *Sink // guarded by mu; the latest
}

func newWatchCounter(t *testing.T) (*watchCounter, *Store) {
	var o *Options
	e := &watchCounter{Engine: newMemory(o.withDefaults())}
	s := NewWithEngine(e, nil)
	t.Cleanup(func() { _ = s.Close() })
	return e, s
}

func (e *watchCounter) Watch(ctx context.Context, prefix string, sink *Sink) (func(), error) {
	e.opened.Add(1)
	if err := e.refuse.Load(); err != nil {
		return nil, *err
	}
	stop, err := e.Engine.Watch(ctx, prefix, sink)
	e.open.Add(1)
	e.mu.Lock()
	e.sink = sink
	e.mu.Unlock()
	var once sync.Once
	return func() { once.Do(func() { e.open.Add(-1); stop() }) }, err
}

func (e *watchCounter) breakWatch() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sink.Fail(ErrLagged)
}

// settle waits for the wake-up that comes with the watch's opening.
func settle(t *testing.T, k *wake) {
	t.Helper()
	synctest.Wait()
	require.NoError(t, k.wait(t.Context(), 0))
}

// sleeps checks that k is not woken within d, and that this takes d.
func sleeps(t *testing.T, k *wake, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	require.ErrorIs(t, k.wait(ctx, 0), context.DeadlineExceeded)
}

func TestWakesByEventOfItsKeyAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newWatchCounter(t)
		ns := s.Namespace("tenant")
		w := newWakes(ns, "job:")
		k, err := w.subscribe("job:1")
		require.NoError(t, err)
		defer k.cancel()
		settle(t, k)
		wakes := func(change func() error) {
			require.NoError(t, change())
			began := time.Now()
			require.NoError(t, k.wait(t.Context(), time.Hour))
			require.Zero(t, time.Since(began))
		}
		wakes(func() error { return ns.Set(t.Context(), "job:1", "a", time.Minute) })
		wakes(func() error { _, err := s.Delete(t.Context(), "tenant:job:1"); return err })
		require.NoError(t, ns.Set(t.Context(), "job:2", "a", NoExpiry))
		require.NoError(t, s.Set(t.Context(), "job:1", "a", NoExpiry))
		sleeps(t, k, time.Hour)
	})
}

func TestWakesOnExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newWatchCounter(t)
		w := newWakes(s, "job:")
		w.gone = true
		k, err := w.subscribe("job:1")
		require.NoError(t, err)
		defer k.cancel()
		settle(t, k)
		require.NoError(t, s.Set(t.Context(), "job:1", "a", time.Minute))
		began := time.Now()
		require.NoError(t, k.wait(t.Context(), 0), "no write wakes it, the expiry does")
		require.InDelta(t, time.Minute, time.Since(began), float64(DefaultReapInterval))
	})
}

// What changed between subscribe and wait, also before the watch is open, must not be missed.
func TestWakesMissNothingAfterSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newWatchCounter(t)
		w := newWakes(s, "job:")
		for i := range 1000 {
			key := fmt.Sprint("job:", i)
			k, err := w.subscribe(key)
			require.NoError(t, err)
			go func() { _ = s.Set(t.Context(), key, "a", NoExpiry) }()
			for {
				if _, err := s.Get(t.Context(), key); err == nil {
					break
				}
				require.NoError(t, k.wait(t.Context(), time.Hour))
			}
			k.cancel()
		}
		require.Less(t, time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), time.Minute, "no wake-up came by its timer")
	})
}

func TestWakesShareOneWatchWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newWatchCounter(t)
		w := newWakes(s, "job:")
		require.Zero(t, e.opened.Load())
		for round := range 3 {
			var waiters []*wake
			for i := range 100 {
				k, err := w.subscribe(fmt.Sprint("job:", i%10))
				require.NoError(t, err)
				waiters = append(waiters, k)
			}
			synctest.Wait()
			require.EqualValues(t, 1, e.open.Load())
			require.EqualValues(t, round+1, e.opened.Load())
			for i, k := range waiters {
				require.EqualValues(t, 1, e.open.Load(), "until the last has left (%d)", i)
				k.cancel()
				k.cancel()
				synctest.Wait()
			}
			require.Zero(t, e.open.Load())
			require.Empty(t, w.keys)
		}
	})
}

func TestWakesEveryWaiterOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newWatchCounter(t)
		w := newWakes(s, "job:")
		var woken atomic.Int32
		for i := range 50 {
			k, err := w.subscribe("job:1")
			require.NoError(t, err)
			defer k.cancel()
			if i == 0 {
				settle(t, k)
			}
			go func() {
				if k.wait(t.Context(), 0) == nil {
					woken.Add(1)
				}
			}()
		}
		synctest.Wait()
		require.Zero(t, woken.Load())
		require.NoError(t, s.Set(t.Context(), "job:1", "a", NoExpiry))
		synctest.Wait()
		require.EqualValues(t, 50, woken.Load())
	})
}

func TestWakesSurviveABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newWatchCounter(t)
		w := newWakes(s, "job:")
		k, err := w.subscribe("job:1")
		require.NoError(t, err)
		defer k.cancel()
		settle(t, k)
		began := time.Now()
		e.breakWatch()
		require.NoError(t, k.wait(t.Context(), time.Hour), "look again: something may have been missed")
		synctest.Wait()
		require.EqualValues(t, 1, e.open.Load(), "and it is open again")
		require.NoError(t, s.Set(t.Context(), "job:1", "a", NoExpiry))
		require.NoError(t, k.wait(t.Context(), time.Hour))
		require.Zero(t, time.Since(began))
	})
}

func TestWakesWithoutAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newWatchCounter(t)
		refusal := errors.New("no connection")
		e.refuse.Store(&refusal)
		w := newWakes(s, "job:")
		k, err := w.subscribe("job:1")
		require.NoError(t, err)
		defer k.cancel()
		began := time.Now()
		woken := 0
		for ; time.Since(began) < time.Hour; woken++ {
			require.NoError(t, k.wait(t.Context(), time.Minute))
		}
		require.Greater(t, woken, 700, "looking is all that is left")
		require.Less(t, e.opened.Load(), int32(800), "the pause grows to 5 s")
		e.refuse.Store(nil)
		time.Sleep(maxWatchPause)
		settle(t, k)
		require.NoError(t, s.Set(t.Context(), "job:1", "a", NoExpiry))
		began = time.Now()
		require.NoError(t, k.wait(t.Context(), time.Hour))
		require.Zero(t, time.Since(began), "by event again")
	})
}

func TestWakeWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newWatchCounter(t)
		w := newWakes(s, "job:")
		k, err := w.subscribe("job:1")
		require.NoError(t, err)
		defer k.cancel()
		settle(t, k)
		began := time.Now()
		require.NoError(t, k.wait(t.Context(), time.Second))
		require.Equal(t, time.Second, time.Since(began))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, k.wait(ctx, time.Hour), context.Canceled)
		time.AfterFunc(time.Second, func() { _ = s.Close() })
		require.ErrorIs(t, k.wait(t.Context(), 0), ErrClosed)
		_, err = w.subscribe("job:1")
		require.ErrorIs(t, err, ErrClosed)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}
