package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	emptyLimit = 30 * time.Second
	sweepEvery = 100 * time.Millisecond
)

// runExpiry is a mass expiry: every key falls due within one second, while a reader goes on asking for them.
// The same reader runs for as long before that: no engine stalls it less than the machine does.
func runExpiry(b *bench) {
	keys := newKeys(b.Entries)
	before := heapBytes()
	e, due, within := b.openDue(keys)
	end := due.Add(within)
	time.Sleep(time.Until(due) - within)
	idle := startReader(e, b.Entries)
	for time.Now().Before(due) && e.len() > 0 {
		time.Sleep(time.Millisecond)
	}
	b.report("expiry-stall-before", "ms", idle.stop().Seconds()*1e3)

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

// openDue returns a store whose entries all fall due within so long from due on, which is at least as far away. If
// inserting them took longer than it was thought to, it tries again with more time.
func (b *bench) openDue(keys []string) (e engine, due time.Time, within time.Duration) {
	lead := b.leadTime()
	within = time.Second
	if b.Short {
		within = 50 * time.Millisecond
	}
	for lead += within; lead < time.Minute; lead *= 2 {
		e := b.open(b.Entries, config{reap: sweepEvery, ttl: sessionTTL})
		due := time.Now().Add(lead)
		if b.fillDue(e, keys, due, within) && time.Until(due) > within {
			return e, due, within
		}
		e.close()
	}
	panic("inserting takes longer than a minute")
}

// fillDue inserts keys whose deadlines are spread over the time from due on, and says whether it was done before due.
func (b *bench) fillDue(e engine, keys []string, due time.Time, within time.Duration) bool {
	values := newValues(b.ValueSize)
	for i, k := range keys {
		left := time.Until(due.Add(within * time.Duration(i) / time.Duration(len(keys))))
		if left <= 0 {
			return false
		}
		e.set(k, values.next(), left)
	}
	e.settle()
	settleMemory()
	n := e.len() // before the clock is asked: none can be due yet if it says so
	if time.Until(due) <= 0 {
		return false
	}
	if n != len(keys) {
		panic(fmt.Sprintf("%s holds %d entries instead of %d", b.peer.name, n, len(keys)))
	}
	return true
}

// leadTime guesses generously how long it takes to insert everything, from the speed of a part.
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
	return time.Since(began) * 20 * 3
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
