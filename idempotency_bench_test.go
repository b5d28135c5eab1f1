package kv_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/kvrecipes/kv"
)

// createOrder is work that costs nothing.
func createOrder(context.Context) (kv.Response, error) {
	return kv.Response{
		Status: 201,
		Header: map[string][]string{"Content-Type": {"application/json"}, "Location": {"/orders/7"}},
		Body:   []byte(`{"order":7,"cents":4900,"currency":"EUR"}`),
	}, nil
}

// newKeys returns a function that returns another key at each call, for work that was never done.
func newKeys() func() string {
	n := 0
	return func() string {
		n++
		return strconv.Itoa(n)
	}
}

func BenchmarkIdempotency(b *testing.B) {
	ctx := context.Background()
	// Results live for a second, so that the new ones of long runs don't fill the memory.
	open := func(b *testing.B) *kv.Idempotency {
		return kv.NewIdempotency(newBusyStore(b), &kv.IdempotencyOptions{TTL: time.Second})
	}
	b.Run("Execute/new", func(b *testing.B) {
		i, key := open(b), newKeys()
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := i.Execute(ctx, key(), "fingerprint", createOrder); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Execute/replay", func(b *testing.B) {
		i := kv.NewIdempotency(newBusyStore(b), nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := i.Execute(ctx, "order", "fingerprint", createOrder); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Process/new", func(b *testing.B) {
		i, key := open(b), newKeys()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := i.Process(ctx, key(), func(context.Context) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Process/duplicate", func(b *testing.B) {
		i := kv.NewIdempotency(newBusyStore(b), nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := i.Process(ctx, "event", func(context.Context) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AlreadyProcessed/duplicate", func(b *testing.B) {
		i := kv.NewIdempotency(newBusyStore(b), nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := i.AlreadyProcessed(ctx, "event"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
