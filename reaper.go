package kv

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// A reaper removes expired keys. It is one timer, armed for when the next list
// of a wheel falls due, and not armed at all while no key has a deadline. The timer knows
// the engine by a weak pointer only: a store that is forgotten is collected with all
// its deadlines, and in between there is no goroutine that could leak.
type reaper struct {
	armed atomic.Int64 // when the timer fires; math.MaxInt64: it isn't set

	mu     sync.Mutex     // taken after a shard's mu
	engine *memory        // immutable
	timer  *time.Timer    // guarded by mu; nil until a key has a deadline
	last   int64          // guarded by mu: when the last run ended
	closed bool           // guarded by mu
	runs   sync.WaitGroup // Add is guarded by mu
}

// reapBatch bounds how many keys are removed with one hold of a shard's mu, some 20 us.
const reapBatch = 64

func (r *reaper) init(m *memory) {
	r.engine = m
	r.armed.Store(math.MaxInt64)
}

// expect makes sure that the shard is looked at when due. The shard's mu is held.
func (r *reaper) expect(sh *shard, due int64) {
	if due >= sh.due.Load() {
		return
	}
	sh.due.Store(due)
	if due < r.armed.Load() {
		r.arm(due)
	}
}

// arm sets the timer for due, or for later so that runs keep half a ReapInterval apart, or for earlier to renew the coarse time.
func (r *reaper) arm(due int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armLocked(due)
}

func (r *reaper) armLocked(due int64) {
	c := &r.engine.clock
	now := c.now()
	at := max(due, now, r.last+int64(r.engine.options.ReapInterval/2))
	at = min(at, now+int64(coarseAge))
	if r.closed || at >= r.armed.Load() {
		return
	}
	r.armed.Store(at)
	if r.timer == nil {
		r.timer = newWeakTimer(r.engine, time.Duration(at-now))
		return
	}
	r.timer.Reset(time.Duration(at - now))
}

// newWeakTimer returns a timer that reaps m unless m has been collected.
func newWeakTimer(m *memory, d time.Duration) *time.Timer {
	w := weak.Make(m)
	return time.AfterFunc(d, func() {
		if m := w.Value(); m != nil {
			m.reaper.run()
		}
	})
}

// run is what the timer calls.
func (r *reaper) run() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.runs.Add(1)
	defer r.runs.Done()
	r.armed.Store(math.MaxInt64)
	r.mu.Unlock()

	for i := range r.engine.shards {
		r.engine.shards[i].reap()
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = r.engine.clock.now()
	due := int64(math.MaxInt64)
	for i := range r.engine.shards {
		due = min(due, r.engine.shards[i].due.Load())
	}
	if due < math.MaxInt64 {
		r.armLocked(due)
	}
}

func (r *reaper) close() {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.runs.Wait()
}

// reap removes the shard's expired keys, a batch at a time.
func (sh *shard) reap() {
	for sh.due.Load() <= sh.engine.clock.now() {
		sh.mu.Lock()
		at := instant{clock: &sh.engine.clock}
		n := sh.timers.advance(at.now()>>sh.timers.shift, reapBatch, func(id uint32) int64 {
			return sh.reapKeyLocked(id, &at)
		})
		if n < reapBatch {
			sh.due.Store(sh.timers.due())
		}
		sh.unlock()
		runtime.Gosched() // or a reader on the same processor waits for our whole time slice
	}
}

// reapKeyLocked removes the key with this number if it has expired, and else returns its deadline.
func (sh *shard) reapKeyLocked(id uint32, at *instant) int64 {
	v := sh.view.Load()
	rec := v.record(v.locator(id).ref())
	if deadline := rec.deadline(); !at.expired(deadline) {
		return deadline
	}
	key := rec.key()
	slot, rec, _ := sh.locateLocked(key, sh.engine.hash(key).slot())
	sh.expireLocked(slot, rec)
	return 0
}

// expireLocked removes the key at slot, whose deadline has passed.
func (sh *shard) expireLocked(slot slotAt, rec record) {
	sh.expired++
	sh.removeLocked(slot, rec)
	sh.engine.watchers.emit(EventExpire, rec, &sh.engine.clock)
}
