package main

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A sample is one figure that one child measured.
type sample struct {
	Metric string  `json:"metric"`
	Unit   string  `json:"unit"`
	Value  float64 `json:"value"`
	Allocs float64 `json:"allocs"` // per operation; -1 where it wasn't counted
	CPU    float64 `json:"cpu"`    // processor time per operation in ns; 0 where it wasn't counted
}

// A bench is what one child process has: one engine, one group of workloads, one repetition.
type bench struct {
	scale
	peer    peer
	redis   string          // address of a server
	works   map[string]bool // nil: all of the group
	samples []sample
	made    map[sequenceID]sequence
}

// sequenceID names a sequence that was made before: a distribution, and the worker it is for.
type sequenceID struct {
	name   string
	worker int
}

// scale says how much work to do.
type scale struct {
	Entries   int           `json:"entries"`   // that a store holds
	Ops       int           `json:"ops"`       // most operations of one figure
	Time      time.Duration `json:"time"`      // most time of one figure
	ValueSize int           `json:"valueSize"` // bytes
	Short     bool          `json:"short"`     // a smoke run
}

// wants says whether a workload of the group was asked for.
func (b *bench) wants(work string) bool { return b.works == nil || b.works[work] }

func (b *bench) report(metric, unit string, value float64) {
	b.samples = append(b.samples, sample{Metric: metric, Unit: unit, Value: value, Allocs: -1})
}

// open opens the engine for n entries.
func (b *bench) open(n int, c config) engine {
	c.entries, c.keyBytes = n, keyBytes
	if c.valueSize == 0 {
		c.valueSize = b.ValueSize
	}
	return b.peer.open(c)
}

// The results of operations end here, so that the compiler can't leave the operations out.
var sink atomic.Int64

// chunk is how many operations pass between two looks at the clock: few enough to stop in time,
// too many for the look to matter.
const chunk = 512

// time measures f, which does operations first to last-1 of worker w and returns anything
// that depends on their results. Wall time over total operations.
func (b *bench) time(metric string, workers, ops int, f func(w, first, last int) int) {
	b.timeFor(b.Time, metric, workers, ops, f)
}

// timeFor is time with a limit of its own; 0 is none.
func (b *bench) timeFor(limit time.Duration, metric string, workers, ops int, f func(w, first, last int) int) {
	settleMemory()
	var (
		done    atomic.Int64
		wg      sync.WaitGroup
		start   = make(chan struct{})
		before  runtime.MemStats
		after   runtime.MemStats
		portion = ops / workers
	)
	var deadline time.Time
	for w := range workers {
		wg.Go(func() {
			<-start
			n, result := 0, 0
			for n < portion {
				last := min(n+chunk, portion)
				result += f(w, n, last)
				n = last
				if limit > 0 && time.Now().After(deadline) {
					break
				}
			}
			done.Add(int64(n))
			sink.Add(int64(result))
		})
	}
	runtime.ReadMemStats(&before)
	used := cpuTime()
	began := time.Now()
	deadline = began.Add(limit)
	close(start)
	wg.Wait()
	took := time.Since(began)
	used = cpuTime() - used
	runtime.ReadMemStats(&after)
	n := float64(done.Load())
	b.samples = append(b.samples, sample{
		Metric: metric,
		Unit:   "ns",
		Value:  float64(took.Nanoseconds()) / n,
		Allocs: float64(after.Mallocs-before.Mallocs) / n,
		CPU:    float64(used.Nanoseconds()) / n,
	})
}

// settleMemory lets the collector finish everything that it has to do.
func settleMemory() {
	runtime.GC()
	runtime.GC() // the second one waits until the first has swept
}

// heapBytes returns what is live on the heap.
func heapBytes() uint64 {
	settleMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// fill inserts keys in their order.
func fill(e engine, keys []string, values *valueMaker, ttl time.Duration) {
	for _, k := range keys {
		e.set(k, values.next(), ttl)
	}
	e.settle()
}

// verify ends the child if entries got lost: an engine that evicts does less work than the others.
func (b *bench) verify(e engine, want int) {
	e.settle()
	if got := e.len(); got != want {
		panic(fmt.Sprintf("%s holds %d entries instead of %d", b.peer.name, got, want))
	}
}

// mustHit counts a miss as what it is here: a failure.
func mustHit(found bool, key string) {
	if !found {
		panic("missing: " + key)
	}
}

// perWorkers is how many goroutines work at a time, and how that is called.
var perWorkers = []struct {
	n    int
	name string
}{{1, "p1"}, {2, "p2"}}
