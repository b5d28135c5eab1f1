package kv_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/kvrecipes/kv"
)

var algorithms = []kv.Algorithm{kv.FixedWindow, kv.SlidingWindow, kv.TokenBucket}

// BenchmarkRateLimiter shows the cost of one decision: allowed (state written) and denied (nothing
// written), on one key and on many.
func BenchmarkRateLimiter(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm.String(), func(b *testing.B) {
			b.Run("allowed", func(b *testing.B) { benchmarkAllow(b, algorithm, 1<<40, 1) })
			b.Run("allowed/keys=10000", func(b *testing.B) { benchmarkAllow(b, algorithm, 1<<40, 10_000) })
			b.Run("denied", func(b *testing.B) { benchmarkAllow(b, algorithm, 1, 1) })
		})
	}
}

func benchmarkAllow(b *testing.B, algorithm kv.Algorithm, requests int64, keys int) {
	store := kv.New(nil)
	defer store.Close()
	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: requests, Window: time.Hour, Algorithm: algorithm}, nil)
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
	for _, algorithm := range algorithms {
		b.Run(algorithm.String(), func(b *testing.B) {
			store := kv.New(nil)
			defer store.Close()
			limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: 1 << 40, Window: time.Hour, Algorithm: algorithm}, nil)
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
	for _, refill := range []kv.Refill{kv.RefillWindow, kv.RefillSliding, kv.RefillSteady} {
		b.Run(strconv.Itoa(int(refill)), func(b *testing.B) {
			q := kv.Quota{Refill: refill, Capacity: 1 << 40, Amount: 1 << 40, Period: time.Hour}
			now := int64(1_700_000_000_000_000)
			state, _, _, err := q.Take("", now, 1)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				now++
				state, _, _, _ = q.Take(state, now, 1)
			}
		})
	}
}
