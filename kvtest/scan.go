package kvtest

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"

	"github.com/kvrecipes/kv"
)

// oddKeys are keys that a wrong order or a wrong end of a prefix gets wrong, in byte order.
var oddKeys = []string{
	"\x00", "\x00\x00", "\x00a", " ", "-1", "0", "1", "10", "2", ":", "A", "B", "Z", "a", "a\x00", "a\x00b", "a!", "a:", "a:\xff",
	"a;", "aa", "ab", "a\xc3\xa9", "a\xff", "a\xff\x00", "a\xffz", "a\xff\xff", "a\xff\xff\xff", "b", "{", "{a", "é", "ÿ", "\xfe", "\xff", "\xff\x00", "\xff\xff",
}

func (e *env) setAll(keys []string) {
	entries := make(map[string]string, len(keys))
	for _, key := range keys {
		entries[key] = "v " + key
	}
	e.NoError(e.store.SetMany(e.ctx, entries, kv.NoExpiry))
}

// selects says whether key is in r.
func selects(r kv.Range, key string) bool {
	return strings.HasPrefix(key, r.Prefix) && key >= r.From && (r.To == "" || key < r.To)
}

// inRange returns which of keys, which are in order, are in r, in its order.
func inRange(r kv.Range, keys []string) []string {
	in := []string{}
	for _, key := range keys {
		if selects(r, key) {
			in = append(in, key)
		}
	}
	if r.Reverse {
		slices.Reverse(in)
	}
	return in
}

// oddRanges returns ranges of all kinds over oddKeys; on an unordered engine, prefixes alone.
func (e *env) oddRanges() iter.Seq[kv.Range] {
	bounds := []string{"", "\x00", "0", "a", "a\x00", "a:", "ab", "a\xff", "a\xff\xff", "b", "zz", "\xff", "\xff\xff", "\xff\xff\xff"}
	return func(yield func(kv.Range) bool) {
		for _, prefix := range bounds {
			if e.h.Unordered {
				if !yield(kv.Range{Prefix: prefix}) {
					return
				}
				continue
			}
			for _, from := range bounds {
				for _, to := range bounds {
					r := kv.Range{Prefix: prefix, From: from, To: to}
					back := r
					back.Reverse = true
					if !yield(r) || !yield(back) {
						return
					}
				}
			}
		}
	}
}

var scanCases = []testCase{
	{
		name:     "Scan/ranges",
		contract: "Range: Prefix; From, To: whole keys: From <= key < To in byte order, within Prefix; \"\" is open; Reverse. In memory: byte order of the key, each key at most once.",
		run: func(e *env) {
			e.Empty(e.keysOf(e.store, kv.Range{}))
			e.setAll(oddKeys)
			inOrder := slices.Sorted(slices.Values(oddKeys))
			for r := range e.oddRanges() {
				want, got := inRange(r, inOrder), e.keysOf(e.store, r)
				if e.h.Unordered {
					slices.Sort(got)
				}
				if !slices.Equal(want, got) { // thousands of ranges: say only what is wrong
					e.Equalf(want, got, "%+q", r)
				}
			}
		},
	},
	{
		name:     "Scan/entries",
		contract: "each entry is a value that the key really had during the scan; KeysOnly: entries come without value and metadata.",
		run: func(e *env) {
			e.setAll(oddKeys)
			for entry, err := range e.store.Scan(e.ctx, kv.Range{}) {
				e.NoError(err)
				e.Equal(kv.Entry{Key: entry.Key, Value: "v " + entry.Key}, entry)
			}
			n := 0
			for entry, err := range e.store.Scan(e.ctx, kv.Range{KeysOnly: true}) {
				e.NoError(err)
				e.Empty(entry.Value)
				n++
			}
			e.Equal(len(oddKeys), n)
		},
	},
	{
		name:     "Scan/twice",
		contract: "Scan: a sequence can be ranged over again, and sees then what is there then.",
		run: func(e *env) {
			e.set("a", "1", kv.NoExpiry)
			seq := e.store.Scan(e.ctx, kv.Range{})
			e.set("b", "2", kv.NoExpiry)
			for range 2 {
				n := 0
				for _, err := range seq {
					e.NoError(err)
					n++
				}
				e.Equal(2, n)
			}
			next, stop := iter.Pull2(seq)
			_, err, ok := next()
			e.NoError(err)
			e.True(ok)
			stop()
			e.set("c", "3", kv.NoExpiry)
		},
	},
	{
		name:     "Scan/unsupported",
		contract: "On Valkey the order is not promised (Range.Reverse, From, To are ErrUnsupported there).",
		when:     unordered,
		run: func(e *env) {
			for _, r := range []kv.Range{{Reverse: true}, {From: "a"}, {To: "b"}} {
				for _, err := range e.store.Scan(e.ctx, r) {
					e.ErrorIs(err, kv.ErrUnsupported)
				}
				_, _, err := e.store.Page(e.ctx, r, "", 10)
				e.ErrorIs(err, kv.ErrUnsupported)
			}
		},
	},
	{
		name:     "Scan/break, panic and Goexit in the body",
		contract: "Breaking out of the loop frees everything. Panic or runtime.Goexit in a scan body passes through and the store works on.",
		run: func(e *env) {
			e.fill("key", 3000)
			n := 0
			for range e.store.Scan(e.ctx, kv.Range{}) {
				if n++; n == 7 {
					break
				}
			}
			e.PanicsWithValue("boom", func() {
				for range e.store.Scan(e.ctx, kv.Range{}) {
					panic("boom")
				}
			})
			e.exits(func() {
				for range e.store.Scan(e.ctx, kv.Range{}) {
					runtime.Goexit()
				}
			})
			e.set("key0000", "new", kv.NoExpiry)
			deleted, err := e.store.DeletePrefix(e.ctx, "")
			e.NoError(err)
			e.Equal(3000, deleted)
		},
	},
	{
		name:     "Scan/the body writes",
		contract: "Scans hold no lock while the caller's loop body runs: the body may write, delete and scan.",
		run: func(e *env) {
			keys := e.fill("key", 1500)
			seen := map[string]int{}
			for entry, err := range e.store.Scan(e.ctx, kv.Range{Prefix: "key"}) {
				e.NoError(err)
				seen[entry.Key]++
				i := len(seen)
				e.set(entry.Key, "again", kv.NoExpiry)
				e.set(fmt.Sprintf("key%04d new", i), "v", kv.NoExpiry)
				e.set(fmt.Sprint("other", i), "v", kv.NoExpiry)
				_, err := e.store.Delete(e.ctx, fmt.Sprint("other", i-1))
				e.NoError(err)
				_, _, err = e.store.Txn(e.ctx, nil, kv.OpIncr(e.key("txn"), 1, 0))
				e.NoError(err)
				if i%500 == 0 {
					n, err := e.store.Count(e.ctx, "other")
					e.NoError(err)
					e.Equal(1, n)
				}
			}
			for _, key := range keys {
				e.Equalf(1, seen[key], "how often %q came", key)
			}
			for key, n := range seen {
				e.Equalf(1, n, "how often %q came", key)
			}
		},
	},
	{
		name:     "Scan/the body deletes",
		contract: "keys written or deleted meanwhile may or may not be; every key that is live throughout the scan is returned.",
		run: func(e *env) {
			e.fill("a", 1000)
			stay := e.fill("stay", 1000)
			e.fill("z", 1000)
			seen := map[string]int{}
			for entry, err := range e.store.Scan(e.ctx, kv.Range{}) {
				e.NoError(err)
				if seen[entry.Key]++; len(seen) == 10 {
					for _, prefix := range []string{"a", "z"} {
						_, err := e.store.DeletePrefix(e.ctx, prefix)
						e.NoError(err)
					}
				}
			}
			for _, key := range stay {
				e.Equalf(1, seen[key], "how often %q came", key)
			}
			e.Len(e.keysOf(e.store, kv.Range{}), len(stay))
		},
	},
	{
		name:     "Scan/keys expire meanwhile",
		contract: "No scan ever treats a key as live at or after its deadline.",
		run: func(e *env) {
			entries := map[string]string{}
			for i := range 2000 {
				entries[fmt.Sprintf("%04d", i)] = "v"
			}
			e.NoError(e.store.SetMany(e.ctx, entries, e.unit()))
			e.set("stay", "v", kv.NoExpiry)
			n, stayed := 0, false
			var gone bool
			for entry, err := range e.store.Scan(e.ctx, kv.Range{KeysOnly: true}) {
				e.NoError(err)
				if entry.Key == "stay" {
					stayed = true
					continue
				}
				e.Falsef(gone && e.h.Virtual, "%q came after its deadline", entry.Key)
				if n++; n == 100 {
					e.wait(e.unit() + e.slack())
					gone = true
				}
			}
			e.True(stayed)
		},
	},
	{
		name:     "Scan/ctx",
		contract: "In memory, point operations ignore ctx, and Update, scans and watches end with its error.",
		run: func(e *env) {
			e.fill("key", 3000)
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			var last error
			after := 0
			for _, err := range e.store.Scan(ctx, kv.Range{}) {
				if last != nil {
					e.Fail("an entry after the error")
				}
				if err != nil {
					last = err
					continue
				}
				if ctx.Err() != nil {
					after++
				}
				cancel()
			}
			e.ErrorIs(last, context.Canceled)
			e.named(last, "scan", "")
			e.Less(after, 2999, "the scan goes on although its ctx has ended")
			_, err := e.store.Count(ctx, "key")
			e.ErrorIs(err, context.Canceled)
			e.named(err, "count", "key")
			_, err = e.store.DeletePrefix(ctx, "key")
			e.ErrorIs(err, context.Canceled)
			e.named(err, "deleteprefix", "key")
			e.True(e.exists("key0000"))
		},
	},
	{
		name:     "Count",
		contract: "Count returns how many live keys begin with prefix.",
		run: func(e *env) {
			e.setAll(oddKeys)
			e.pastDeadlines("a expired")
			for r := range e.oddRanges() {
				if r.From == "" && r.To == "" && !r.Reverse {
					n, err := e.store.Count(e.ctx, r.Prefix)
					e.NoError(err)
					e.Equalf(len(inRange(r, oddKeys)), n, "Count(%q)", r.Prefix)
				}
			}
		},
	},
}
