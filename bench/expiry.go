package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	dueWithin  = time.Second // all deadlines lie in it
	emptyLimit = 30 * time.Second
	sweepEvery = 100 * time.Millisecond
)

// runExpiry is a mass expiry: every key falls due within one second, while a reader goes on asking for them.
func runExpiry(b *bench) {
	keys := newKeys(b.Entries)
	c := config{reap: sweepEvery, ttl: sessionTTL}
	before := heapBytes()
	e := b.open(b.Entries, c)
	due, end := b.fillDue(e, keys)
	time.Sleep(time.Until(due))

	r := startReader(e, b.Entries)
	for e.len() > 0 {
		if time.Since(end) > emptyLimit {
			r.stop()
			panic(fmt.Sprintf("%s still holds %d entries %s after the last deadline", b.peer.name, e.len(), emptyLimit))
		}
		time.Sleep(time.Millisecond)
	}
	empty := max(0, time.Since(end))
	stall := r.stop()
	after := heapBytes()
	b.report("expiry-empty", "s", empty.Seconds())
	b.report("expiry-stall", "ms", stall.Seconds()*1e3)
	b.report("expiry-heap", "MB", (float64(after)-float64(before))/1e6)
	runtime.KeepAlive(keys)
	e.close()
}

// fillDue inserts keys so that all deadlines lie between due and end, which are far enough away for
// the insertion to be over before.
func (b *bench) fillDue(e engine, keys []string) (due, end time.Time) {
	lead := b.leadTime()
	due = time.Now().Add(lead)
	end = due.Add(dueWithin)
	values := newValues(b.ValueSize)
	for i, k := range keys {
		at := due.Add(dueWithin * time.Duration(i) / time.Duration(len(keys)))
		e.set(k, values.next(), time.Until(at))
	}
	e.settle()
	if late := time.Since(due); late > 0 {
		panic(fmt.Sprintf("inserting took %s longer than the %s that were meant for it", late, lead))
	}
	b.verify(e, len(keys))
	settleMemory()
	return due, end
}

// leadTime guesses how long it takes to insert everything, from the speed of a part.
func (b *bench) leadTime() time.Duration {
	part := b.Entries/20 + 1
	e := b.open(part, config{reap: sweepEvery, ttl: sessionTTL})
	defer e.close()
	keys := newKeys(part)
	values := newValues(b.ValueSize)
	began := time.Now()
	for i, k := range keys {
		e.set(k, values.next(), sessionTTL+time.Duration(i))
	}
	e.settle()
	return time.Since(began)*20*3 + time.Second
}

// A reader asks for one key after the other, and remembers how long the longest answer took.
type reader struct {
	ended   atomic.Bool
	longest chan time.Duration
}

func startReader(e engine, n int) *reader {
	r := &reader{longest: make(chan time.Duration)}
	keys := uniform(n, min(n, 1<<20), 5)
	go func() {
		var longest time.Duration
		last := time.Now()
		sum := 0
		for i := rand.IntN(n); !r.ended.Load(); i++ {
			value, _ := e.get(keys.at(i))
			sum += len(value)
			now := time.Now()
			longest = max(longest, now.Sub(last))
			last = now
		}
		sink.Add(int64(sum))
		r.longest <- longest
	}()
	return r
}

// stop ends the reader and returns its longest stall.
func (r *reader) stop() time.Duration {
	r.ended.Store(true)
	return <-r.longest
}
