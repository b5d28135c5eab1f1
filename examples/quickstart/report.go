package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"

	"github.com/kvrecipes/kv"
)

type wordCount struct {
	word  string
	count int
}

// printWords shows the most frequent words, and then the dictionary near one of them.
func printWords(ctx context.Context, words *kv.Store) error {
	all, err := collect(ctx, words)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Println("\nThere are no words in them.")
		return nil
	}
	slices.SortStableFunc(all, func(a, b wordCount) int { return cmp.Compare(b.count, a.count) })
	top := all[:min(12, len(all))]
	fmt.Printf("\nThe most frequent of %s different words\n", group(len(all)))
	for _, w := range top {
		fmt.Printf("  %-14s%12s  %s\n", w.word, group(w.count), bar(w.count, top[0].count, 40))
	}
	longest := slices.MaxFunc(top, func(a, b wordCount) int { return cmp.Compare(len(a.word), len(b.word)) })
	letters := []rune(longest.word)
	return printPrefix(ctx, words, string(letters[:min(4, len(letters))]))
}

func collect(ctx context.Context, words *kv.Store) (all []wordCount, err error) {
	for e, err := range words.Scan(ctx, kv.Range{}) {
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(e.Value)
		if err != nil {
			return nil, err
		}
		all = append(all, wordCount{e.Key, n})
	}
	return all, nil
}

// printPrefix shows the first words with a prefix. A scan yields keys in order,
// and costs no more than what is taken from it.
func printPrefix(ctx context.Context, words *kv.Store, prefix string) error {
	fmt.Printf("\nThe first words that begin with %q\n", prefix)
	shown := 0
	for e, err := range words.Scan(ctx, kv.Range{Prefix: prefix}) {
		if err != nil {
			return err
		}
		fmt.Printf("  %-20s%6s\n", e.Key, e.Value)
		if shown++; shown == 6 {
			break
		}
	}
	return nil
}

// printNotes shows some notes that are left, and waits until the last has expired.
func printNotes(ctx context.Context, c *counter, expiries *expiries) error {
	fmt.Printf("\nNotes about files, which expire %v after they are written\n", noteTTL)
	now, err := c.notes.Now(ctx)
	if err != nil {
		return err
	}
	shown := 0
	for e, err := range c.notes.Scan(ctx, kv.Range{Reverse: true}) {
		if err != nil {
			return err
		}
		fmt.Printf("  %s: %s words, %s, gone in %.2f s\n", e.Key, e.Value, e.Metadata, e.ExpiresAt.Sub(now).Seconds())
		if shown++; shown == 4 {
			break
		}
	}
	written := int(c.tally.files.Load())
	seen := expiries.wait(ctx, written)
	left, err := c.notes.Count(ctx, "")
	if err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d notes have outlived their deadline", left)
	}
	fmt.Printf("  %s written, none left; the watch saw %s of them expire\n", group(written), group(seen))
	return ctx.Err()
}

func printCost(c *counter, stats kv.Stats) {
	operations, took := c.tally.operations(), c.tally.took
	fmt.Println("\nWhat it took")
	fmt.Printf("  %s operations in %.1f s on %d cores, reading the files included: %s a second\n", group(operations),
		took.Seconds(), runtime.GOMAXPROCS(0), group(int(float64(operations)/took.Seconds())))
	if stats.Keys > 0 {
		fmt.Printf("  %s keys, %.1f bytes each with their values\n", group(int(stats.Keys)), float64(stats.Bytes)/float64(stats.Keys))
	}
	for _, reason := range slices.Sorted(maps.Keys(c.folder.passedOver)) {
		fmt.Printf("  passed over: %s (%s)\n", reason, group(c.folder.passedOver[reason]))
	}
	if rest := c.folder.unread(); rest > 0 {
		fmt.Printf("  not reached in time: %s files (see -for)\n", group(rest))
	}
}
