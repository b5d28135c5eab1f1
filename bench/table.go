package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A table is figures of one kind: a row for each engine, a column for each metric.
type table struct {
	title   string
	note    string
	columns []column
}

type column struct{ head, metric string }

// tables returns the tables of the results file.
func tables(f *figures) []table {
	return []table{
		{"Point operations", "ns per operation: wall time over all operations of one goroutine (p1) or two (p2). \"Get and read\" looks at a byte of the value, which the other reads do not.", []column{
			{"Get uniform p1", "get-uniform/p1"}, {"p2", "get-uniform/p2"}, {"Get zipf p1", "get-zipf/p1"}, {"p2", "get-zipf/p2"},
			{"Get and read p1", "get-read-uniform/p1"}, {"overwrite p1", "overwrite/p1"}, {"p2", "overwrite/p2"},
			{"90/10 zipf p1", "mix-90-10-zipf/p1"}, {"p2", "mix-90-10-zipf/p2"}, {"insert p1", "insert/p1"}, {"p2", "insert/p2"}}},
		{"Counters", "ns per increment.", []column{
			{"hot key p1", "incr-hot/p1"}, {"p2", "incr-hot/p2"}, {"100,000 keys p1", "incr-100k/p1"}, {"p2", "incr-100k/p2"}}},
		{"Entries with a deadline", "ns per operation; the TTL is 1 h, and 30 s for the key that is set and deleted again, which is the life of a lock. \"Expire\" gives an existing key a new deadline.", []column{
			{"insert p1", "insert-ttl/p1"}, {"p2", "insert-ttl/p2"}, {"Get uniform p1", "get-ttl-uniform/p1"}, {"p2", "get-ttl-uniform/p2"},
			{"Get zipf p1", "get-ttl-zipf/p1"}, {"p2", "get-ttl-zipf/p2"},
			{"overwrite p1", "overwrite-ttl/p1"}, {"p2", "overwrite-ttl/p2"}, {"Expire p1", "expire/p1"}, {"p2", "expire/p2"},
			{"set and delete p1", "set-delete/p1"}, {"p2", "set-delete/p2"}}},
		{"Keys in order", "The time of the first entry when nothing was scanned before, and of 100 or all entries, p1. \"Read\" looks at a byte of key and value, which the others do not.", []column{
			{"first entry, ms", "scan-first"}, {"100 keys, ns", "scan-100/p1"}, {"all keys, ms", "scan-all"},
			{"100 keys, read, ns", "scan-100-read/p1"}, {"all keys, read, ms", "scan-all-read"}}},
		{"Memory and its collection", "Live bytes on the heap per entry, key and value among them (\"scanned\": after the first scan), and `runtime.GC()` of a store that is at rest, also with five times the entries.", []column{
			{"B/entry", "memory"}, {"scanned", "memory-scanned"}, {"B/entry with TTL", "memory-ttl"}, {"scanned", "memory-scanned-ttl"},
			{"GC, ms", "gc-1x"}, {"GC with TTL, ms", "gc-ttl-1x"}, {"GC of 5 x, ms", "gc-5x"}}},
		{"All keys due within one second", "A reader goes on asking for them meanwhile. Time until the store is empty after the last deadline, the longest time that one read took, also in the second before anything fell due, which is what the machine does to it, and what stays on the heap.", []column{
			{"empty after, s", "expiry-empty"}, {"longest stall, ms", "expiry-stall"}, {"the second before, ms", "expiry-stall-before"}, {"heap afterwards, MB", "expiry-heap"}}},
		{"The slowest calls", "us; a reader and a writer at 100,000 calls a second each, every call counted from when it was due (coordinated omission corrected).", stallColumns()},
		{"More entries", "ns per operation, p1, at so many entries.", columnsOf(f, "growth/")},
		{"Larger values", "ns per operation, p1, at so many bytes of value; as many entries as fit into 200 MB.", columnsOf(f, "values/")},
		{"Recipes", "ns per operation, one goroutine, 1,024 names that take turns.", []column{
			{"TryLock and Unlock", "recipe-lock"}, {"rate limit, fixed window", "recipe-ratelimit-fixed-window"},
			{"sliding window", "recipe-ratelimit-sliding-window"}, {"token bucket", "recipe-ratelimit-token-bucket"}, {"token bucket, full again", fullBucket},
			{"guarded get, hit", "recipe-guarded-hit"}, {"(a plain Get)", "recipe-plain-get"},
			{"idempotent replay", "recipe-idempotency-replay"}, {"flag enabled", "recipe-flag-enabled"}}},
	}
}

func stallColumns() []column {
	var list []column
	for _, call := range []string{"read", "write"} {
		for _, q := range []string{"p50", "p99.9", "p99.99", "max"} {
			list = append(list, column{call + " " + q, "stall-" + call + "-" + q})
		}
	}
	return list
}

// columnsOf returns the columns of a table whose metrics have a size at their end, operation by operation.
func columnsOf(f *figures, infix string) []column {
	var list []column
	for _, op := range []string{"get", "overwrite", "insert"} {
		for _, m := range f.metrics() {
			if size, found := strings.CutPrefix(m, op+"-"+infix); found {
				list = append(list, column{op + " " + size, m})
			}
		}
	}
	return list
}

// write writes the table as Markdown; nothing if it has no row.
func (t table) write(w io.Writer, f *figures) {
	rows := t.rows(f)
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n", t.title)
	if t.note != "" {
		fmt.Fprintf(w, "%s\n\n", t.note)
	}
	fmt.Fprint(w, "| |")
	for _, c := range t.columns {
		fmt.Fprintf(w, " %s |", c.head)
	}
	fmt.Fprintf(w, " runs |\n|---|%s---|\n", strings.Repeat("---|", len(t.columns)))
	for _, engine := range rows {
		runs := 0
		fmt.Fprintf(w, "| %s |", label(engine))
		for _, c := range t.columns {
			cell := "-"
			if g := f.find(engine, c.metric); g != nil {
				cell, runs = g.cell(), max(runs, len(g.Runs))
			}
			fmt.Fprintf(w, " %s |", cell)
		}
		fmt.Fprintf(w, " %d |\n", runs)
	}
}

// rows returns the engines that have one of the figures, in their own order.
func (t table) rows(f *figures) []string {
	var names []string
	for _, p := range slices.Concat(peers, recipePeers) {
		has := slices.ContainsFunc(t.columns, func(c column) bool { return f.find(p.name, c.metric) != nil })
		if has && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

func label(engine string) string {
	if engine == "kv" {
		return "**kv**"
	}
	return engine
}

// cell is a median with half of the distance between the smallest and the largest run.
func (g *figure) cell() string {
	if len(g.Runs) < 2 || g.Median <= 0 {
		return short(g.Median)
	}
	return fmt.Sprintf("%s ±%.0f %%", short(g.Median), (g.Max-g.Min)/2/g.Median*100)
}
