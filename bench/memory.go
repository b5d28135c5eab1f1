package main

import (
	"runtime"
	"time"
)

// runMemory is what entries weigh, and what a collection costs that has nothing to collect.
func runMemory(b *bench) {
	b.weigh("", config{})
	if b.peer.ttl && b.wants("memory-ttl") {
		b.weigh("-ttl", config{ttl: sessionTTL})
	}
}

// weigh fills a store with keys and values that nobody else holds.
func (b *bench) weigh(suffix string, c config) {
	before := heapBytes()
	e := b.open(b.Entries, c)
	b.populate(e, b.Entries, c.ttl)
	b.report("memory"+suffix, "B", b.perEntry(before))
	if s, ok := e.(scanner); ok {
		s.scan("", -1, func(key, _ string) { sink.Add(int64(len(key))) })
		b.report("memory-scanned"+suffix, "B", b.perEntry(before))
	}
	if b.wants("gc") {
		b.timeGC("gc" + suffix + "-1x")
	}
	runtime.KeepAlive(e)
	e.close()
}

func (b *bench) perEntry(before uint64) float64 {
	return (float64(heapBytes()) - float64(before)) / float64(b.Entries)
}

// runHeap is a collection with five times the entries.
func runHeap(b *bench) {
	n := 5 * b.Entries
	e := b.open(n, config{})
	b.populate(e, n, 0)
	b.timeGC("gc-5x")
	runtime.KeepAlive(e)
	e.close()
}

// populate inserts n keys, each made for it alone.
func (b *bench) populate(e engine, n int, ttl time.Duration) {
	values := newValues(b.ValueSize)
	var buf []byte
	for _, k := range shuffled(n, 42) {
		buf = appendKey(buf[:0], int(k))
		e.set(string(buf), values.next(), ttl)
	}
	b.verify(e, n)
}

// timeGC is the median of several forced collections, one after the other.
func (b *bench) timeGC(metric string) {
	settleMemory()
	var times []float64
	for range 5 {
		began := time.Now()
		runtime.GC()
		times = append(times, time.Since(began).Seconds()*1e3)
	}
	b.report(metric, "ms", median(times))
}
