package kv_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/kvrecipes/kv"
)

// BenchmarkRateLimiter shows the cost of one decision: allowed (state written) and denied (nothing
// written), on one key and on many.
func BenchmarkRateLimiter(b *testing.B) {
	for _, algorithm := range limitAlgorithms {
		b.Run(algorithm.String(), func(b *testing.B) {
			b.Run("allowed", func(b *testing.B) { benchmarkAllow(b, wideLimit(algorithm), 1) })
			b.Run("allowed/keys=10000", func(b *testing.B) { benchmarkAllow(b, wideLimit(algorithm), 10_000) })
			b.Run("denied", func(b *testing.B) {
				benchmarkAllow(b, kv.Limit{Requests: 1, Window: time.Hour, Algorithm: algorithm}, 1)
			})
		})
	}
}

// wideLimit never denies, and refills slowly enough for every state to live on.
func wideLimit(algorithm kv.Algorithm) kv.Limit {
	if algorithm == kv.TokenBucket {
		return kv.Limit{Requests: 1, Window: time.Second, Algorithm: algorithm, Burst: 2e9}
	}
	return kv.Limit{Requests: 2e9, Window: time.Hour, Algorithm: algorithm}
}

func benchmarkAllow(b *testing.B, limit kv.Limit, keys int) {
	store := kv.New(nil)
	defer store.Close()
	limiter, err := kv.NewRateLimiter(store, limit, nil)
	if err != nil {
		b.Fatal(err)
	}
	names := make([]string, keys)
	for i := range names {
		names[i] = "user-" + strconv.Itoa(i)
	}
	ctx := context.Background()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := limiter.Allow(ctx, names[i%keys]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRateLimiterParallel is many goroutines on one key.
func BenchmarkRateLimiterParallel(b *testing.B) {
	for _, algorithm := range limitAlgorithms {
		b.Run(algorithm.String(), func(b *testing.B) {
			store := kv.New(nil)
			defer store.Close()
			limiter, err := kv.NewRateLimiter(store, wideLimit(algorithm), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := limiter.Allow(context.Background(), "user"); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkQuotaTake is the arithmetic and the text alone.
func BenchmarkQuotaTake(b *testing.B) {
	for _, refill := range refills {
		b.Run(refillNames[refill], func(b *testing.B) {
			q := kv.Quota{Refill: refill, Capacity: 1e6, Amount: 1e6, Period: time.Hour}
			state := take(b, q, "", someTime, 10).next
			b.ReportAllocs()
			for now := someTime; b.Loop(); now++ {
				_, _, _, _ = q.Take(state, now, 1)
			}
		})
	}
}

func BenchmarkBucket(b *testing.B) {
	store := kv.New(nil)
	defer store.Close()
	ctx := context.Background()
	users := kv.NewBucket[user](store, "user", nil)
	if err := users.Set(ctx, "42", user{Name: "Ada"}, kv.NoExpiry); err != nil {
		b.Fatal(err)
	}
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = users.Get(ctx, "42")
		}
	})
	b.Run("set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = users.Set(ctx, "42", user{Name: "Ada"}, kv.NoExpiry)
		}
	})
}
