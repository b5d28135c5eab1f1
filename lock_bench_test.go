package kv_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/kvrecipes/kv"
)

// newBusyStore returns a store that serves other things, too.
func newBusyStore(b *testing.B) *kv.Store {
	s := kv.New(nil)
	b.Cleanup(func() { _ = s.Close() })
	for i := range 10_000 {
		if err := s.Set(b.Context(), kv.Key("session", strconv.Itoa(i)), "somebody", time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func BenchmarkLock(b *testing.B) {
	ctx := context.Background()
	names := make([]string, 1024)
	for i := range names {
		names[i] = "order " + strconv.Itoa(i)
	}
	bench := func(name string, step func(l *kv.Locker, name string) error) {
		b.Run(name, func(b *testing.B) {
			l := kv.NewLocker(newBusyStore(b), nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := step(l, names[i%len(names)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	bench("TryLock+Unlock", func(l *kv.Locker, name string) error {
		k, err := l.TryLock(ctx, name)
		if err != nil {
			return err
		}
		return k.Unlock(ctx)
	})
	bench("TryLock+Context+Unlock", func(l *kv.Locker, name string) error {
		k, err := l.TryLock(ctx, name)
		if err != nil {
			return err
		}
		_ = k.Context()
		return k.Unlock(ctx)
	})
	bench("Lock+Unlock", func(l *kv.Locker, name string) error {
		k, err := l.Lock(ctx, name)
		if err != nil {
			return err
		}
		return k.Unlock(ctx)
	})
	bench("Do", func(l *kv.Locker, name string) error {
		return l.Do(ctx, name, func(context.Context) error { return nil })
	})
	request, end := context.WithCancel(ctx)
	defer end()
	bench("Do for a request", func(l *kv.Locker, name string) error {
		return l.Do(request, name, func(context.Context) error { return nil })
	})
}

// BenchmarkLockContended hands one lock around between goroutines that all wait for it.
func BenchmarkLockContended(b *testing.B) {
	ctx := context.Background()
	l := kv.NewLocker(newBusyStore(b), nil)
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			k, err := l.Lock(ctx, "order")
			if err != nil {
				b.Error(err)
				return
			}
			if err := k.Unlock(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
