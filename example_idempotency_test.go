package kv_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/kvrecipes/kv"
)

func ExampleIdempotency_Execute() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	requests := kv.NewIdempotency(store, nil)

	// The client sends its request again, as it did not get the first answer.
	for range 2 {
		resp, replay, err := requests.Execute(ctx, "the client's key", "hash of the request", func(context.Context) (kv.Response, error) {
			fmt.Println("charging")
			return kv.Response{Status: 201, Body: []byte("order 7")}, nil
		})
		fmt.Println(resp.Status, string(resp.Body), replay, err)
	}
	_, _, err := requests.Execute(ctx, "the client's key", "hash of another request", nil)
	fmt.Println(errors.Is(err, kv.ErrMismatch))
	// Output:
	// charging
	// 201 order 7 false <nil>
	// 201 order 7 true <nil>
	// true
}

func ExampleOnce() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	requests := kv.NewIdempotency(store, nil)

	type order struct{ ID, Cents int }
	for range 2 {
		o, replay, err := kv.Once(ctx, requests, "order of basket 12", "", func(context.Context) (order, error) {
			return order{ID: 7, Cents: 4900}, nil
		})
		fmt.Println(o, replay, err)
	}
	// Output:
	// {7 4900} false <nil>
	// {7 4900} true <nil>
}

// A payment provider delivers an event until it is accepted, and sometimes once more.
func ExampleIdempotency_Process() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	webhooks := kv.NewIdempotency(store, nil)

	databaseUp := false
	for range 3 {
		processed, err := webhooks.Process(ctx, "evt_123", func(context.Context) error {
			if !databaseUp {
				return errors.New("database is down")
			}
			return nil
		})
		fmt.Println(processed, err)
		databaseUp = true
	}
	// Output:
	// false database is down
	// true <nil>
	// false <nil>
}

func ExampleIdempotency_AlreadyProcessed() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	webhooks := kv.NewIdempotency(store, nil)

	for range 2 {
		seen, err := webhooks.AlreadyProcessed(ctx, "evt_123")
		fmt.Println(seen, err)
	}
	// Output:
	// false <nil>
	// true <nil>
}
