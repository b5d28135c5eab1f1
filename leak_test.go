package kv_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// useEverything leaves in s all that could hold a goroutine, a timer or memory.
func useEverything(t *testing.T, s *kv.Store) *kv.Watcher {
	ctx := context.Background() // an open watch is held by its ctx
	value := strings.Repeat("v", 1000)
	for i := range 2000 {
		require.NoError(t, s.Set(ctx, fmt.Sprint(i), value, time.Duration(i)*time.Second))
	}
	w, err := s.Watch(ctx, "")
	require.NoError(t, err)
	stopped, err := s.Watch(ctx, "1")
	require.NoError(t, err)
	stopped.Stop()
	for range s.Scan(ctx, kv.Range{}) {
		break
	}
	_, next, err := s.Page(ctx, kv.Range{}, "", 10)
	require.NoError(t, err)
	require.NotEmpty(t, next)
	_, _, err = s.Txn(ctx, nil, kv.OpSet("a", "b", time.Hour))
	require.NoError(t, err)
	return w
}

// TestCloseLeavesNoGoroutine: the bubble fails if a goroutine of it is left.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 {
			s := kv.New(nil)
			w := useEverything(t, s)
			time.Sleep(10 * time.Second) // some have expired
			require.NoError(t, s.Close())
			for range w.Events() { // ends
			}
			require.ErrorIs(t, w.Err(), kv.ErrClosed)
		}
	})
}

// TestIdleStoreHasNoGoroutine: not even while keys have deadlines.
func TestIdleStoreHasNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	var stores []*kv.Store
	for range 50 {
		s := kv.New(nil)
		require.NoError(t, s.Set(t.Context(), "key", "v", time.Hour))
		require.NoError(t, s.Set(t.Context(), "forever", "v", kv.NoExpiry))
		_, err := s.Count(t.Context(), "")
		require.NoError(t, err)
		stores = append(stores, s)
	}
	require.Less(t, runtime.NumGoroutine()-before, 50)
	for _, s := range stores {
		require.NoError(t, s.Close())
	}
}

// TestIdleStoreLetsTimePass: without deadlines a store in a bubble wakes nobody.
func TestIdleStoreLetsTimePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		require.NoError(t, s.Set(t.Context(), "key", "v", kv.NoExpiry))
		require.NoError(t, s.Set(t.Context(), "key", "v", time.Second))
		require.NoError(t, s.Set(t.Context(), "key", "v", kv.NoExpiry))
		begin := time.Now()
		time.Sleep(200 * 365 * 24 * time.Hour) // would take for ever if anything woke every few seconds
		require.Equal(t, 200*365*24*time.Hour, time.Since(begin))
		value, err := s.Get(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, "v", value)
		require.NoError(t, s.Close())
	})
}

// forgottenStore returns a weak pointer to a store, in full use, to which nothing else points.
//
//go:noinline
func forgottenStore(t *testing.T, use func(*kv.Store)) weak.Pointer[kv.Store] {
	s := kv.New(nil)
	use(s)
	return weak.Make(s)
}

// TestForgottenStoreIsCollected: whoever forgets Close leaks nothing, although keys have deadlines.
func TestForgottenStoreIsCollected(t *testing.T) {
	const large = 20 << 20
	for name, use := range map[string]func(*kv.Store){
		"with deadlines": func(s *kv.Store) { useEverything(t, s) },
		"without": func(s *kv.Store) {
			_ = s.Set(t.Context(), "key", "v", kv.NoExpiry)
		},
		"namespace":    func(s *kv.Store) { _ = s.Namespace("app").Set(t.Context(), "key", "v", time.Hour) },
		"after a scan": func(s *kv.Store) { _ = s.Set(t.Context(), "k", "v", 1); _, _ = s.Count(t.Context(), "") },
		"broken watch": func(s *kv.Store) {
			ctx, cancel := context.WithCancel(t.Context())
			_, _ = s.Watch(ctx, "")
			cancel()
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := liveHeap()
			store := forgottenStore(t, func(s *kv.Store) {
				require.NoError(t, s.Set(t.Context(), "large", strings.Repeat("x", large), time.Hour))
				use(s)
			})
			require.Eventually(t, func() bool { // a timer or a background step may hold on to it for a moment
				left := liveHeap() - before // collects first
				return left < large/2 && store.Value() == nil
			}, 20*time.Second, 10*time.Millisecond)
		})
	}
}

// TestAbandonedScanBlocksNobody: breaking out of the loop frees everything.
func TestAbandonedScanBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, nil)
		ctx := t.Context()
		for i := range 3000 {
			require.NoError(t, s.Set(ctx, fmt.Sprint(i), "v", time.Minute))
		}
		for range s.Scan(ctx, kv.Range{}) {
			for range s.Scan(ctx, kv.Range{Reverse: true}) {
				break
			}
			break
		}
		n, err := s.DeletePrefix(ctx, "1")
		require.NoError(t, err)
		require.Equal(t, 1111, n)
		time.Sleep(2 * time.Minute)
		require.Zero(t, s.Stats().Keys)
	})
}
