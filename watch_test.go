package kv_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

func TestEventTypeString(t *testing.T) {
	require.Equal(t, "put delete expire unknown",
		fmt.Sprint(kv.EventPut, " ", kv.EventDelete, " ", kv.EventExpire, " ", kv.EventType(0)))
}

// TestExpiryIsReportedInTime: within the interval of the reaper.
func TestExpiryIsReportedInTime(t *testing.T) {
	for _, interval := range []time.Duration{0, 10 * time.Millisecond, time.Second, time.Minute} {
		t.Run(interval.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, &kv.Options{ReapInterval: interval})
				bound := max(interval, kv.DefaultReapInterval)
				if interval > 0 {
					bound = interval
				}
				w, err := s.Watch(t.Context(), "")
				require.NoError(t, err)
				defer w.Stop()
				for i := range 60 {
					ttl := time.Duration(i*i*i) * 7 * time.Millisecond
					require.NoError(t, s.Set(t.Context(), fmt.Sprint(i), "v", ttl+1))
				}
				expired := 0
				for e := range w.Events() {
					if e.Type == kv.EventPut {
						continue
					}
					late := time.Since(e.Entry.ExpiresAt)
					require.GreaterOrEqual(t, late, time.Duration(0), "expired before its deadline")
					require.LessOrEqual(t, late, bound)
					if expired++; expired == 60 {
						break
					}
				}
			})
		})
	}
}

// TestManyWatchers: each sees the keys under its prefix, whoever else watches.
func TestManyWatchers(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	watchers := map[string]*kv.Watcher{}
	for i := range 300 {
		prefix := fmt.Sprintf("%d:", i)
		w, err := s.Watch(ctx, prefix)
		require.NoError(t, err)
		defer w.Stop()
		watchers[prefix] = w
	}
	for i := range 300 {
		require.NoError(t, s.Set(ctx, fmt.Sprintf("%d:key", i), "v", 0))
		require.NoError(t, s.Set(ctx, fmt.Sprintf("%d-key", i), "v", 0))
	}
	for prefix, w := range watchers {
		require.Len(t, w.Events(), 1)
		require.Equal(t, prefix+"key", (<-w.Events()).Entry.Key)
	}
}

// TestEndedWatchesAreForgotten: whichever way they ended, they cost neither memory nor writers' time.
func TestEndedWatchesAreForgotten(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	before := liveHeap()
	for i := range 400 {
		watching, cancel := context.WithCancel(ctx)
		w, err := s.Watch(watching, "")
		require.NoError(t, err)
		switch i % 3 {
		case 0:
			w.Stop()
		case 1:
			cancel()
			for range w.Events() {
				t.Error("an event of nothing")
			}
		case 2:
			for range 3000 { // never read
				require.NoError(t, s.Set(ctx, "key", "v", 0))
			}
			require.ErrorIs(t, w.Err(), kv.ErrLagged)
		}
		cancel()
	}
	require.Less(t, liveHeap()-before, int64(2<<20))
	allocs := testing.AllocsPerRun(1000, func() { _ = s.Set(ctx, "key", "w", 0) })
	require.LessOrEqual(t, allocs, 1.0)
}

// TestWatchersComeAndGoWhileWriting: nobody blocks, nobody panics, and every watch ends as it should.
func TestWatchersComeAndGoWhileWriting(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	writing, stop := context.WithCancel(ctx)
	write := func(key string) func() error {
		return func() error {
			for writing.Err() == nil {
				if _, err := s.Incr(ctx, key, 1, time.Hour); err != nil {
					return err
				}
				if _, err := s.Delete(ctx, key+"2"); err != nil {
					return err
				}
			}
			return nil
		}
	}
	watch := func() error {
		defer stop()
		for i := range 100 {
			if err := watchSome(ctx, s, i); err != nil {
				return err
			}
		}
		return nil
	}
	require.NoError(t, inParallel(write("k1"), write("k3"), watch))
}

// watchSome reads a few events of a busy store and ends the watch in one of two ways.
func watchSome(ctx context.Context, s *kv.Store, i int) error {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.Watch(watching, "k")
	if err != nil {
		return err
	}
	for range i % 5 {
		if e, ok := <-w.Events(); ok && !strings.HasPrefix(e.Entry.Key, "k") {
			return fmt.Errorf("an event of %q", e.Entry.Key)
		}
	}
	if i%2 == 0 {
		w.Stop()
	}
	cancel()
	for range w.Events() { // ends
	}
	return nil
}
