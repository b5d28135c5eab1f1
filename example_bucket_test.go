package kv_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/kvrecipes/kv"
)

type user struct {
	Name   string `json:"name"`
	Visits int    `json:"visits"`
}

func ExampleBucket() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	users := kv.NewBucket[user](store, "user", nil)

	if err := users.Set(ctx, "42", user{Name: "Ada"}, 24*time.Hour); err != nil {
		fmt.Println(err)
	}
	ada, err := users.Get(ctx, "42")
	fmt.Println(ada, err)
	text, err := store.Get(ctx, "user:42") // how the store has it
	fmt.Println(text, err)
	_, err = users.Get(ctx, "43")
	fmt.Println(errors.Is(err, kv.ErrNotFound))
	// Output:
	// {Ada 0} <nil>
	// {"name":"Ada","visits":0} <nil>
	// true
}

// Update changes a value in one atomic step, however many do so at once.
func ExampleBucket_Update() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	users := kv.NewBucket[user](store, "user", nil)

	visit := func(u user, exists bool) (user, error) {
		if !exists {
			u.Name = "guest"
		}
		u.Visits++
		return u, nil
	}
	fmt.Println(users.Update(ctx, "7", kv.KeepTTL, visit))
	fmt.Println(users.Update(ctx, "7", kv.KeepTTL, visit))
	// Output:
	// {guest 1} <nil>
	// {guest 2} <nil>
}

func ExampleBucket_Scan() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	prices := kv.NewBucket[float64](store, "price", nil)
	for fruit, price := range map[string]float64{"apple": 0.3, "apricot": 0.4, "banana": 0.25} {
		if err := prices.Set(ctx, fruit, price, kv.NoExpiry); err != nil {
			fmt.Println(err)
		}
	}
	for item, err := range prices.Scan(ctx, kv.Range{Prefix: "ap"}) {
		fmt.Println(item.Key, item.Value, err)
	}
	// Output:
	// apple 0.3 <nil>
	// apricot 0.4 <nil>
}

// bytesAsHex keeps bytes as hexadecimal text. JSON would keep them as base64.
type bytesAsHex struct{}

func (bytesAsHex) Encode(b []byte) (string, error)    { return hex.EncodeToString(b), nil }
func (bytesAsHex) Decode(text string) ([]byte, error) { return hex.DecodeString(text) }

func ExampleCodec() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	colors := kv.NewBucket(store, "color", &kv.BucketOptions[[]byte]{Codec: bytesAsHex{}})

	if err := colors.Set(ctx, "gopher", []byte{0, 173, 216}, kv.NoExpiry); err != nil {
		fmt.Println(err)
	}
	fmt.Println(store.Get(ctx, "color:gopher"))
	// Output: 00add8 <nil>
}

// A number without a type keeps all its digits.
func ExampleJSON() {
	codec := kv.JSON[map[string]any]()
	text, err := codec.Encode(map[string]any{"id": int64(9007199254740993), "zip": "02138"})
	fmt.Println(text, err)
	v, err := codec.Decode(text)
	fmt.Printf("%v (%T) %v (%T) %v\n", v["id"], v["id"], v["zip"], v["zip"], err)
	_, err = codec.Encode(map[string]any{"name": "Zo\xeb"}) // Latin-1, not UTF-8
	fmt.Println(err)
	// Output:
	// {"id":9007199254740993,"zip":"02138"} <nil>
	// 9007199254740993 (json.Number) 02138 (string) <nil>
	// JSON can't carry a string that is not valid UTF-8
}
