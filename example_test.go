package kv_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/kvrecipes/kv"
)

func Example() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.Set(ctx, "greeting", "hello", time.Minute)
	value, err := store.Get(ctx, "greeting")
	fmt.Println(value, err)

	_, err = store.Get(ctx, "nothing")
	fmt.Println(errors.Is(err, kv.ErrNotFound))
	// Output:
	// hello <nil>
	// true
}

func ExampleStore_Namespace() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	shop := store.Namespace("shop")
	_ = shop.Set(ctx, "currency", "EUR", kv.NoExpiry)

	value, _ := store.Get(ctx, "shop:currency")
	fmt.Println(value)
	// Output: EUR
}

func ExampleStore_Put() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.Put(ctx, kv.Entry{
		Key:       "report",
		Value:     "all is well",
		Metadata:  `{"author":"ada"}`,
		ExpiresAt: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	})
	e, _ := store.Entry(ctx, "report")
	fmt.Println(e.Value, e.Metadata, e.ExpiresAt.UTC().Year())
	// Output: all is well {"author":"ada"} 2100
}

// A token that works once, however many ask with it at the same time.
func ExampleStore_GetDelete() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.Set(ctx, "reset:4f1c", "ada", 15*time.Minute)
	user, err := store.GetDelete(ctx, "reset:4f1c")
	fmt.Println(user, err)
	_, err = store.GetDelete(ctx, "reset:4f1c")
	fmt.Println(err)
	// Output:
	// ada <nil>
	// kv: getdelete "reset:4f1c": not found
}

func ExampleStore_SetNX() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	for _, node := range []string{"a", "b"} {
		first, _ := store.SetNX(ctx, "leader", node, time.Minute)
		fmt.Println(node, first)
	}
	// Output:
	// a true
	// b false
}

// A lease is renewed by whoever still has it, and by nobody else.
func ExampleStore_CompareAndSwap() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.Set(ctx, "lease", "mine", time.Minute)
	renewed, _ := store.CompareAndSwap(ctx, "lease", "mine", "mine", time.Hour)
	fmt.Println(renewed)
	renewed, _ = store.CompareAndSwap(ctx, "lease", "yours", "yours", time.Hour)
	fmt.Println(renewed)
	// Output:
	// true
	// false
}

func ExampleStore_CompareAndDelete() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.Set(ctx, "lease", "mine", time.Minute)
	released, _ := store.CompareAndDelete(ctx, "lease", "yours")
	fmt.Println(released)
	released, _ = store.CompareAndDelete(ctx, "lease", "mine")
	fmt.Println(released)
	// Output:
	// false
	// true
}

// The ttl belongs to the call that creates the counter, so a window ends when it should.
func ExampleStore_Incr() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	for range 3 {
		n, _ := store.Incr(ctx, "visits:today", 1, 24*time.Hour)
		fmt.Println(n)
	}
	// Output:
	// 1
	// 2
	// 3
}

func ExampleStore_Update() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	longer := func(old string, exists bool) (string, error) {
		if !exists {
			return "once", nil
		}
		return old + " upon a time", nil
	}
	for range 2 {
		value, _ := store.Update(ctx, "story", kv.NoExpiry, longer)
		fmt.Println(value)
	}
	// Output:
	// once
	// once upon a time
}

func ExampleStore_GetExpire() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.Set(ctx, "session", "ada", time.Minute)
	user, _ := store.GetExpire(ctx, "session", time.Hour) // slides
	left, _ := store.TTL(ctx, "session")
	fmt.Println(user, left > 59*time.Minute)
	// Output: ada true
}

func ExampleStore_Scan() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	_ = store.SetMany(ctx, map[string]string{"user:2": "bob", "user:1": "ada", "order:1": "tea"}, kv.NoExpiry)
	for e, err := range store.Scan(ctx, kv.Range{Prefix: "user:"}) {
		if err != nil {
			break
		}
		fmt.Println(e.Key, e.Value)
	}
	// Output:
	// user:1 ada
	// user:2 bob
}

// A page at a time, as a web page or an API shows them; the cursor may travel in a URL.
func ExampleStore_Page() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	for i := range 5 {
		_ = store.Set(ctx, "item:"+strconv.Itoa(i), "", kv.NoExpiry)
	}
	cursor := ""
	for {
		entries, next, err := store.Page(ctx, kv.Range{Prefix: "item:"}, cursor, 2)
		if err != nil {
			break
		}
		fmt.Println("page of", len(entries), "from", entries[0].Key)
		if cursor = next; next == "" {
			break
		}
	}
	// Output:
	// page of 2 from item:0
	// page of 2 from item:2
	// page of 1 from item:4
}

// Each operation has its own result, and its own error.
func ExampleStore_Batch() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	results, err := store.Batch(ctx,
		kv.OpSet("name", "ada", kv.NoExpiry),
		kv.OpIncr("visits", 1, time.Hour),
		kv.OpIncr("name", 1, time.Hour),
		kv.OpGet("name"),
	)
	fmt.Println(err)
	for _, r := range results {
		fmt.Printf("%v %q %d %v\n", r.OK, r.Value, r.Int, r.Err)
	}
	// Output:
	// <nil>
	// true "" 0 <nil>
	// true "" 1 <nil>
	// false "" 0 kv: incr "name": value is not a base-10 int64
	// true "ada" 0 <nil>
}

// Money moves as a whole or not at all.
func ExampleStore_Txn() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	_ = store.SetMany(ctx, map[string]string{"account:ada": "100", "account:bob": "0"}, kv.NoExpiry)

	for range 2 {
		ok, results, err := store.Txn(ctx,
			[]kv.Cond{kv.IfValue("account:ada", "100")},
			kv.OpIncr("account:ada", -30, kv.NoExpiry),
			kv.OpIncr("account:bob", 30, kv.NoExpiry),
		)
		if err == nil && ok {
			fmt.Println("moved:", results[0].Int, results[1].Int)
		} else {
			fmt.Println("nothing moved")
		}
	}
	// Output:
	// moved: 70 30
	// nothing moved
}

func ExampleStore_Watch() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()

	w, err := store.Watch(ctx, "user:")
	if err != nil {
		return
	}
	_ = store.Set(ctx, "user:1", "ada", kv.NoExpiry)
	_ = store.Set(ctx, "order:1", "tea", kv.NoExpiry)
	_, _ = store.Delete(ctx, "user:1")
	w.Stop() // what has arrived can still be read

	for e := range w.Events() {
		fmt.Println(e.Type, e.Entry.Key, e.Entry.Value)
	}
	fmt.Println(w.Err())
	// Output:
	// put user:1 ada
	// delete user:1 ada
	// <nil>
}

func ExampleKey() {
	fmt.Println(kv.Key("session", "4711"))
	fmt.Println(kv.Key("file", "c:100%"))
	// Output:
	// session:4711
	// file:c%3A100%25
}
