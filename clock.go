package kv

import (
	"math"
	"sync/atomic"
	"time"
)

// A clock counts the nanoseconds since the engine was made, on the monotonic
// clock: a step of the wall clock moves no deadline.
type clock struct {
	start  time.Time
	coarse atomic.Int64 // a time that has passed; see expired
}

const (
	// A reader that finds a deadline further away than farOff from the coarse
	// time takes it as not reached, without the 40 to 70 ns of reading the
	// clock. The coarse time is renewed at least every coarseAge while any key
	// has a deadline, so this is wrong only if the timer that does so were held up for farOff - coarseAge.
	farOff    = 5 * time.Minute
	coarseAge = 5 * time.Second

	// coarseStep keeps now from writing the coarse time, which all readers read, all the time.
	coarseStep = 50 * time.Millisecond
)

func (c *clock) now() int64 {
	now := int64(time.Since(c.start)) + 1 // 0 means no deadline
	if now-c.coarse.Load() > int64(coarseStep) {
		c.coarse.Store(now)
	}
	return now
}

// far says that a deadline is none or has certainly not been reached, without
// looking at the clock. It says false if it can't be sure.
func (c *clock) far(deadline int64) bool {
	return deadline == 0 || deadline-c.coarse.Load() > int64(farOff)
}

func (c *clock) expired(deadline int64) bool {
	return !c.far(deadline) && deadline <= c.now()
}

// step returns by how much the wall clock has been set since the engine was
// made. Differences below a millisecond are the noise of reading two clocks.
func (c *clock) step() time.Duration {
	now := time.Now()
	step := now.Round(0).Sub(c.start.Round(0)) - now.Sub(c.start)
	if step.Abs() < time.Millisecond {
		return 0
	}
	return step
}

// wall returns a deadline as wall-clock time; the zero Time for none. step is c.step().
func (c *clock) wall(deadline int64, step time.Duration) time.Time {
	if deadline == 0 {
		return time.Time{}
	}
	return c.start.Round(0).Add(time.Duration(deadline - 1)).Add(step)
}

// deadline is the opposite of wall. It is not positive for a time before the engine was made.
func (c *clock) deadline(wall time.Time, step time.Duration) int64 {
	if wall.IsZero() {
		return 0
	}
	d := int64(wall.Round(0).Add(-step).Sub(c.start.Round(0)))
	if d == math.MaxInt64 {
		return d
	}
	if d < 0 {
		return -1
	}
	return d + 1
}

// micros returns now as microseconds since 1970. The wall clock's steps don't show.
func (c *clock) micros(now int64) int64 {
	return c.start.UnixMicro() + (now-1)/int64(time.Microsecond)
}

// An instant is the time of one operation, read from the clock when it is first needed.
type instant struct {
	clock *clock
	ns    int64 // 0: not read yet
}

func (t *instant) now() int64 {
	if t.ns == 0 {
		t.ns = t.clock.now()
	}
	return t.ns
}

func (t *instant) expired(deadline int64) bool {
	return !t.clock.far(deadline) && deadline <= t.now()
}

// deadline returns what ttl means for a key whose deadline is kept.
func (t *instant) deadline(ttl time.Duration, kept int64) int64 {
	switch ttl {
	case NoExpiry:
		return 0
	case KeepTTL:
		return kept
	}
	return addTTL(t.now(), ttl)
}
