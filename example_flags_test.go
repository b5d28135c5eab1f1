package kv_test

import (
	"context"
	"fmt"

	"github.com/kvrecipes/kv"
)

func ExampleFlags() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	flags, err := kv.NewFlags(store, nil) // once, when the process starts
	if err != nil {
		fmt.Println(err)
		return
	}
	defer flags.Close()

	// Who gets the new checkout? Whoever is in at 30 % stays in at 100 %.
	for _, percent := range []string{"0", "30", "100"} {
		if err := flags.Set(ctx, "checkout", percent); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(percent, " %:")
		for _, user := range []string{"ada", "bob", "cyd", "dan", "eve"} {
			if flags.Enabled("checkout", user) {
				fmt.Print(" ", user)
			}
		}
		fmt.Println()
	}
	fmt.Println(flags.Set(ctx, "checkout", "a few"))
	// Output:
	// 0 %:
	// 30 %: bob dan
	// 100 %: ada bob cyd dan eve
	// kv: set "checkout": invalid flag value: want "on", "off" or a percentage with up to three decimals
}
