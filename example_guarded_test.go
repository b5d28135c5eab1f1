package kv_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

func ExampleGuarded() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	type product struct {
		Name  string
		Cents int
	}
	products := kv.NewGuarded(store, &kv.GuardedOptions[product]{TTL: time.Minute, StaleFor: time.Hour})

	var lookups atomic.Int32
	slowLookup := func(context.Context) (product, error) {
		time.Sleep(10 * time.Millisecond)
		return product{"lamp", 4900 + int(lookups.Add(1))}, nil
	}
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() { products.Get(ctx, "7", slowLookup) })
	}
	all.Wait()
	p, err := products.Get(ctx, "7", slowLookup)
	fmt.Println(p, err, "lookups:", lookups.Load())

	products.Invalidate(ctx, "7") // the price has changed
	p, err = products.Get(ctx, "7", slowLookup)
	fmt.Println(p, err, "lookups:", lookups.Load())
	// Output:
	// {lamp 4901} <nil> lookups: 1
	// {lamp 4902} <nil> lookups: 2
}

func ExampleGuardedGet() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	for range 2 {
		page, err := kv.GuardedGet(ctx, store, "page:/", time.Minute, func(context.Context) (string, error) {
			fmt.Println("rendering")
			return "<h1>Hello</h1>", nil
		})
		fmt.Println(page, err)
	}
	// Output:
	// rendering
	// <h1>Hello</h1> <nil>
	// <h1>Hello</h1> <nil>
}
