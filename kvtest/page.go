package kvtest

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"slices"

	"github.com/kvrecipes/kv"
)

// pages returns the entries of r, page by page.
func (e *env) pages(r kv.Range, limit int) []kv.Entry { return e.pagesOf(e.store, r, limit) }

// pagesOf returns the entries of r in s, page by page.
func (e *env) pagesOf(s *kv.Store, r kv.Range, limit int) []kv.Entry {
	var all []kv.Entry
	seen := map[string]bool{}
	cursor := ""
	for range 100_000 {
		entries, next, err := s.Page(e.ctx, r, cursor, limit)
		e.NoError(err)
		if !e.h.Unordered {
			e.LessOrEqual(len(entries), limit)
		}
		for _, entry := range entries {
			if seen[entry.Key] {
				e.Truef(e.h.Unordered, "%q comes again on a later page", entry.Key)
				continue
			}
			seen[entry.Key] = true
			all = append(all, entry)
		}
		if next == "" {
			return all
		}
		e.printable(next)
		cursor = next
	}
	e.Fail("paging does not end")
	return nil
}

func (e *env) printable(cursor string) {
	for _, c := range []byte(cursor) {
		e.Truef(c > ' ' && c < 0x7f, "cursor %q is not printable", cursor)
	}
}

func keysOfEntries(entries []kv.Entry) []string {
	keys := []string{}
	for _, entry := range entries {
		keys = append(keys, entry.Key)
	}
	return keys
}

// firstCursor returns a cursor within r.
func (e *env) firstCursor(r kv.Range) string {
	_, next, err := e.store.Page(e.ctx, r, "", 5)
	e.NoError(err)
	e.NotEmpty(next, "a page of 5 of many keys is the last")
	return next
}

var pageCases = []testCase{
	{
		name:     "Page/ranges",
		contract: "Page returns entries of r from cursor on; next == \"\" is the end.",
		run: func(e *env) {
			e.Empty(e.pages(kv.Range{}, 10))
			e.setAll(oddKeys)
			inOrder := slices.Sorted(slices.Values(oddKeys))
			n := 0
			for r := range e.oddRanges() {
				want := inRange(r, inOrder)
				limits := []int{1, 3, len(want) + 1}
				if n++; r.From != "" && r.To != "" { // of thousands, one limit each will do
					limits = limits[n%3 : n%3+1]
				}
				for _, limit := range limits {
					got := keysOfEntries(e.pages(r, limit))
					if e.h.Unordered {
						slices.Sort(got)
					}
					if !slices.Equal(want, got) {
						e.Equalf(want, got, "%+q in pages of %d", r, limit)
					}
				}
			}
		},
	},
	{
		name:     "Page/limit",
		contract: "A limit below 1 means 100, one over 10,000 means 10,000.",
		when:     ordered,
		run: func(e *env) {
			keys := make([]string, 0, 10_500)
			for _, prefix := range []string{"a", "b"} {
				keys = append(keys, e.fill(prefix, 5250)...)
			}
			for _, c := range []struct{ limit, want int }{
				{0, 100}, {-1, 100}, {math.MinInt, 100}, {1, 1}, {10_000, 10_000}, {10_001, 10_000}, {math.MaxInt, 10_000},
			} {
				entries, next, err := e.store.Page(e.ctx, kv.Range{}, "", c.limit)
				e.NoError(err)
				e.Lenf(entries, c.want, "limit %d", c.limit)
				e.NotEmpty(next)
				e.Equal(keys[:c.want], keysOfEntries(entries))
			}
		},
	},
	{
		name:     "Page/keeps no state",
		contract: "Page keeps no state in the store.",
		when:     ordered, // a server that is about to grow its table may tell more, or less, for the same cursor
		run: func(e *env) {
			e.fill("key", 300)
			cursor := e.firstCursor(kv.Range{Prefix: "key"})
			first, next, err := e.store.Page(e.ctx, kv.Range{Prefix: "key"}, cursor, 50)
			e.NoError(err)
			again, nextAgain, err := e.store.Page(e.ctx, kv.Range{Prefix: "key"}, cursor, 50)
			e.NoError(err)
			e.Equal(first, again)
			e.Equal(next, nextAgain)
		},
	},
	{
		name:     "Page/changes meanwhile",
		contract: "every key that is live throughout is returned, keys written or deleted meanwhile may or may not be.",
		run: func(e *env) {
			stay := e.fill("stay", 500)
			e.fill("go", 500)
			seen := map[string]bool{}
			for i, cursor := 0, ""; ; i++ {
				entries, next, err := e.store.Page(e.ctx, kv.Range{}, cursor, 20)
				e.NoError(err)
				for _, entry := range entries {
					seen[entry.Key] = true
				}
				_, err = e.store.Delete(e.ctx, fmt.Sprintf("go%04d", i))
				e.NoError(err)
				for _, entry := range entries { // among them the one that the cursor stands on
					if entry.Key < "stay" {
						_, err = e.store.Delete(e.ctx, entry.Key)
						e.NoError(err)
					}
				}
				e.set(fmt.Sprintf("%d new", i), "v", kv.NoExpiry)
				if cursor = next; next == "" {
					break
				}
			}
			for _, key := range stay {
				e.Truef(seen[key], "%q did not come", key)
			}
		},
	},
	{
		name:     "Page/cursor of another range",
		contract: "the cursor is bound to its range; a tampered or foreign one is ErrCursor.",
		run: func(e *env) {
			e.fill("key", 300)
			cursor := e.firstCursor(kv.Range{Prefix: "key"})
			others := []kv.Range{{}, {Prefix: "k"}, {Prefix: "key0"}, {Prefix: "key", KeysOnly: true}}
			if !e.h.Unordered {
				others = append(others, kv.Range{Prefix: "key", From: "key1"}, kv.Range{Prefix: "key", To: "key9"}, kv.Range{Prefix: "key", Reverse: true})
			}
			for _, r := range others {
				_, _, err := e.store.Page(e.ctx, r, cursor, 10)
				e.ErrorIsf(err, kv.ErrCursor, "cursor of another range in %+v", r)
				e.named(err, "page", r.Prefix)
			}
			_, _, err := e.store.Namespace("app").Page(e.ctx, kv.Range{Prefix: "key"}, cursor, 10)
			e.ErrorIs(err, kv.ErrCursor, "cursor of the store in a namespace")
		},
	},
	{
		name:     "Page/changed cursor",
		contract: "the cursor is an opaque printable string; a tampered or foreign one is ErrCursor.",
		run: func(e *env) {
			e.fill("key", 300)
			r := kv.Range{Prefix: "key"}
			cursor := e.firstCursor(r)
			bad := []string{" ", "x", "0", "key0005", "\x00", cursor + "A", cursor + "=", " " + cursor, cursor + cursor, cursor + "\n",
				base64.RawURLEncoding.EncodeToString([]byte("key0005")), base64.StdEncoding.EncodeToString([]byte("12345678key0005"))}
			for i := range len(cursor) {
				bad = append(bad, cursor[:i], cursor[i+1:])
				for _, c := range []byte{'A', 'B', 'z', '_', '!'} {
					if cursor[i] != c {
						bad = append(bad, cursor[:i]+string(c)+cursor[i+1:])
					}
				}
			}
			for _, changed := range bad {
				if changed == "" || changed == cursor {
					continue
				}
				_, _, err := e.store.Page(e.ctx, r, changed, 10)
				e.ErrorIsf(err, kv.ErrCursor, "cursor %q, changed from %q", changed, cursor)
			}
			_, _, err := e.store.Page(e.ctx, r, cursor, 10)
			e.NoError(err)
		},
	},
	{
		name:     "Page/ctx",
		contract: "In memory, point operations ignore ctx, and Update, scans and watches end with its error.",
		run: func(e *env) {
			e.fill("key", 10)
			ctx, cancel := context.WithCancel(e.ctx)
			cancel()
			_, _, err := e.store.Page(ctx, kv.Range{}, "", 10)
			e.ErrorIs(err, context.Canceled)
			e.named(err, "page", "")
		},
	},
}
