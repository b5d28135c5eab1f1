package kv_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvrecipes/kv"
)

func ExampleLocker_Do() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	locks := kv.NewLocker(store, nil)

	// One at a time for each order, in this process and every other on the same store.
	err := locks.Do(ctx, "order:7", func(ctx context.Context) error {
		fmt.Println("charging") // ctx ends if the lock is lost
		return ctx.Err()
	})
	fmt.Println(err)
	// Output:
	// charging
	// <nil>
}

// The nightly report is made once, by whichever server comes first.
func ExampleLocker_TryLock() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	locks := kv.NewLocker(store, &kv.LockerOptions{TTL: time.Minute})

	for _, server := range []string{"a", "b"} {
		lock, err := locks.TryLock(ctx, "report")
		if errors.Is(err, kv.ErrLocked) {
			fmt.Println(server, "has nothing to do")
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		defer lock.Unlock(ctx)
		fmt.Println(server, "makes the report")
	}
	// Output:
	// a makes the report
	// b has nothing to do
}

// A process that was paused while its lock expired acts late when it resumes;
// no lock can prevent that. A write on the condition that the lock is held can't be late.
func ExampleLock_Held() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	locks := kv.NewLocker(store, nil)

	paused, _ := locks.Lock(ctx, "order:7")
	locks.ForceUnlock(ctx, "order:7") // as if it had expired meanwhile
	holder, _ := locks.Lock(ctx, "order:7")

	for _, lock := range []*kv.Lock{paused, holder} {
		written, _, err := store.Txn(ctx, []kv.Cond{lock.Held()}, kv.OpSet("order:7", "paid", kv.NoExpiry))
		fmt.Println(written, err)
	}
	fmt.Println(holder.Fence() > paused.Fence())
	// Output:
	// false <nil>
	// true <nil>
	// true
}
