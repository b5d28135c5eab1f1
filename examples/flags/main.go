// Flags rolls a new checkout out to 1, 30 and 100 % of the users and back, from
// one process, while another serves requests.
//
//	go run ./examples/flags
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/kvrecipes/kv"
)

const users = 100_000

func main() {
	store := kv.New(nil) // two real processes would share one on Valkey or Redis
	defer store.Close()
	if err := run(context.Background(), store); err != nil {
		fmt.Fprintln(os.Stderr, "flags:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, store *kv.Store) error {
	operator, err := kv.NewFlags(store, &kv.FlagsOptions{OnError: func(string, error) {}}) // the shop's will do
	if err != nil {
		return err
	}
	defer operator.Close()
	reports := make(chan string, 1)
	shop, err := kv.NewFlags(store, &kv.FlagsOptions{OnError: func(flag string, err error) { reports <- err.Error() }})
	if err != nil {
		return err
	}
	defer shop.Close()

	fmt.Printf("Who of %d users gets the new checkout in the shop?\n\n", users)
	if err := rollOut(ctx, operator, shop); err != nil {
		return err
	}
	if err := nonsense(ctx, store, shop, reports); err != nil {
		return err
	}
	return printSpeed(ctx, operator)
}

// rollOut changes the flag in the operator's process, and looks at the shop.
func rollOut(ctx context.Context, operator, shop *kv.Flags) error {
	last, lastPercent := make([]bool, users), 0
	for _, percent := range []int{0, 1, 30, 100, 30, 0} {
		if err := operator.Set(ctx, "checkout", fmt.Sprint(percent)); err != nil {
			return err
		}
		got, err := untilItShows(operator, shop)
		if err != nil {
			return err
		}
		share := 100 * float64(count(got)) / users
		fmt.Printf("  %3d %%  %-50s  %6d users = %6.2f %%\n", percent, strings.Repeat("#", int(share/2)), count(got), share)
		if math.Abs(share-float64(percent)) > 0.5 {
			return fmt.Errorf("%d %% of users are %.2f %%", percent, share)
		}
		if differ(got, last) != abs(count(got)-count(last)) {
			return fmt.Errorf("from %d to %d %% some users have come and others gone", lastPercent, percent)
		}
		last, lastPercent = got, percent
	}
	fmt.Println("\nOn the way up nobody lost it, on the way down nobody got it.")
	return nil
}

// untilItShows has the users come to the shop, again and again, until each gets
// the answer that the operator, who made the change, gets already.
func untilItShows(operator, shop *kv.Flags) ([]bool, error) {
	want := visit(operator)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if got := visit(shop); differ(got, want) == 0 {
			return got, nil
		}
	}
	return nil, errors.New("the shop never saw the change")
}

// visit has each user ask once.
func visit(f *kv.Flags) []bool {
	got := make([]bool, users)
	for i := range got {
		got[i] = f.Enabled("checkout", unit(i))
	}
	return got
}

func unit(i int) string { return fmt.Sprintf("user-%06d", i) }

// nonsense gets into the store past Flags.Set, which would refuse it.
func nonsense(ctx context.Context, store *kv.Store, shop *kv.Flags, reports <-chan string) error {
	if err := store.Set(ctx, kv.Key("feature", "checkout"), "a few", kv.NoExpiry); err != nil {
		return err
	}
	fmt.Printf("\nSomebody wrote \"a few\" by hand. OnError says:\n  %s\n", <-reports)
	if n := count(visit(shop)); n != 0 {
		return fmt.Errorf("nonsense turned the flag on for %d users", n)
	}
	return nil
}

func printSpeed(ctx context.Context, f *kv.Flags) error {
	if err := f.Set(ctx, "checkout", "30"); err != nil {
		return err
	}
	const questions = 5_000_000
	began := time.Now()
	for range questions {
		f.Enabled("checkout", "user-000001")
	}
	fmt.Printf("\nOne question takes %d ns: no network, no lock, no allocation.\n", time.Since(began).Nanoseconds()/questions)
	return nil
}

func count(got []bool) int { return differ(got, make([]bool, len(got))) }

func differ(a, b []bool) int {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func abs(n int) int { return max(n, -n) }
