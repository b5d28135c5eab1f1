package kv_test

import (
	"context"
	"testing"
	"time"

	"github.com/kvrecipes/kv"
)

// BenchmarkGuarded compares hits with a plain Get of the same store, and shows
// what a miss costs beyond its compute.
func BenchmarkGuarded(b *testing.B) {
	ctx := context.Background()
	type product struct {
		Name  string
		Cents int
	}
	page := constant("a page of some length, as it was rendered")
	b.Run("plain Get", func(b *testing.B) {
		s := newBusyStore(b)
		if err := s.Set(ctx, "guarded:key", "a page of some length, as it was rendered", time.Hour); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Get(ctx, "guarded:key"); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, opts := range map[string]kv.GuardedOptions[string]{
		"hit":                    {TTL: time.Hour, Codec: rawCodec{}},
		"hit, StaleFor and Beta": {TTL: time.Hour, StaleFor: time.Hour, Beta: 1, Codec: rawCodec{}},
	} {
		b.Run(name, func(b *testing.B) {
			g := kv.NewGuarded(newBusyStore(b), &opts)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Get(ctx, "key", page); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("hit, JSON", func(b *testing.B) {
		g := kv.NewGuarded(newBusyStore(b), &kv.GuardedOptions[product]{TTL: time.Hour})
		find := func(context.Context) (product, error) { return product{"lamp", 4900}, nil }
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Get(ctx, "key", find); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("GuardedGet hit", func(b *testing.B) {
		s := newBusyStore(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := kv.GuardedGet(ctx, s, "key", time.Hour, page); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		g := kv.NewGuarded(newBusyStore(b), &kv.GuardedOptions[string]{TTL: time.Second, Codec: rawCodec{}})
		key := newKeys()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := g.Get(ctx, key(), page); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGuardedStampede is one miss for which 100 callers wait.
func BenchmarkGuardedStampede(b *testing.B) {
	ctx := context.Background()
	g := kv.NewGuarded(newBusyStore(b), &kv.GuardedOptions[string]{TTL: time.Second, Codec: rawCodec{}})
	key := newKeys()
	page := constant("a page")
	b.ReportAllocs()
	for b.Loop() {
		k, done := key(), make(chan error)
		for range 100 {
			go func() {
				_, err := g.Get(ctx, k, page)
				done <- err
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
}
