package main

import (
	"math/bits"
	"runtime"
	"sync"
	"time"
)

const (
	stallRate = 100_000 // calls a second, of the reader and of the writer each
	stallTime = 3 * time.Second
)

// runStalls is one reader and one writer at a fixed rate. A call's time counts from when it was due,
// not from when it began: calls that had to wait behind a slow one are slow, too (the
// correction for "coordinated omission", after Gil Tene). The writer overwrites and so keeps the collector at work.
func runStalls(b *bench) {
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, config{})
	fill(e, keys, newValues(b.ValueSize), 0)
	keys = nil
	sequences := b.sequences(2, uniform, "uniform")
	values := newValues(b.ValueSize)
	calls := []func(i int){
		func(i int) { value, _ := e.get(sequences[0].at(i)); sink.Store(int64(len(value))) },
		func(i int) { e.set(sequences[1].at(i), values.next(), 0) },
	}
	settleMemory()
	n := int(stallTime.Seconds() * stallRate)
	if b.Short {
		n /= 100
	}
	histograms := make([]histogram, len(calls))
	var wg sync.WaitGroup
	for w, call := range calls {
		wg.Go(func() { histograms[w].paced(n, time.Second/stallRate, call) })
	}
	wg.Wait()
	for w, name := range []string{"read", "write"} {
		h := &histograms[w]
		b.report("stall-"+name+"-p50", "us", h.quantile(0.50)/1e3)
		b.report("stall-"+name+"-p99.9", "us", h.quantile(0.999)/1e3)
		b.report("stall-"+name+"-p99.99", "us", h.quantile(0.9999)/1e3)
		b.report("stall-"+name+"-max", "us", float64(h.max)/1e3)
	}
	e.close()
}

// A histogram counts durations in steps of about 3 %.
type histogram struct {
	counts [64 * stepsPerOctave]int
	total  int
	max    int64
}

const (
	stepBits       = 5
	stepsPerOctave = 1 << stepBits
)

// paced makes n calls, one every step, and records each from the time it was due. While it waits it lets others run.
func (h *histogram) paced(n int, step time.Duration, call func(i int)) {
	began := time.Now()
	for i := range n {
		due := step * time.Duration(i)
		for time.Since(began) < due {
			runtime.Gosched()
		}
		call(i)
		h.record(int64(time.Since(began) - due))
	}
}

func (h *histogram) record(ns int64) {
	h.total++
	h.max = max(h.max, ns)
	h.counts[bucketOf(ns)]++
}

// bucketOf returns the step that ns belongs to: exact below 32, then 32 to each doubling.
func bucketOf(ns int64) int {
	if ns < stepsPerOctave {
		return int(max(ns, 0))
	}
	shift := bits.Len64(uint64(ns)) - 1 - stepBits
	return (shift+1)*stepsPerOctave + int(ns>>shift) - stepsPerOctave
}

// bucketTop returns the largest duration of a step.
func bucketTop(bucket int) float64 {
	if bucket < stepsPerOctave {
		return float64(bucket)
	}
	shift := bucket/stepsPerOctave - 1
	return float64((int64(bucket%stepsPerOctave+stepsPerOctave)+1)<<shift - 1)
}

// quantile returns the duration that a share q of all did not exceed.
func (h *histogram) quantile(q float64) float64 {
	rank := int(q * float64(h.total))
	for bucket, count := range h.counts {
		if rank -= count; rank < 0 {
			return min(bucketTop(bucket), float64(h.max))
		}
	}
	return float64(h.max)
}
