package valkeykv

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// calls are the goroutines of an engine. None is started once it is closed.
type calls struct {
	mu     sync.RWMutex
	closed bool // guarded by mu
	group  sync.WaitGroup
}

// start runs f in a goroutine, unless the engine is closed.
func (c *calls) start(f func()) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return false
	}
	c.group.Go(f)
	return true
}

// close lets no further goroutine start.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
}

// wait returns when every goroutine has ended. close was called before.
func (c *calls) wait() { c.group.Wait() }

// A call that may end early is made in a goroutine of its own unless there is a good
// reason to think that the client answers or heeds ctx. It does heed ctx while a
// command is under way, but not while it waits for a connection that another call is making, nor for room
// in a full pipeline. So the reasons are: a call succeeded a moment ago, and few are under way.
// (Always to make it in its own goroutine costs two thirds of a round trip on loopback.)
const (
	moment  = 100 * time.Millisecond
	few     = 512 // half of what the pipeline of one connection holds by default
	unknown = math.MinInt64
)

// health is what is known of the connections.
type health struct {
	began    time.Time
	lastGood atomic.Int64 // since began; unknown after a failure
	underWay atomic.Int32
}

func newHealth() *health {
	h := &health{began: time.Now()}
	h.lastGood.Store(unknown)
	return h
}

func (h *health) good() bool {
	last := h.lastGood.Load()
	return last != unknown && time.Since(h.began)-time.Duration(last) < moment && h.underWay.Load() < few
}

func (h *health) note(err error) {
	if err == nil {
		h.lastGood.Store(int64(time.Since(h.began)))
	} else {
		h.lastGood.Store(unknown)
	}
}

// sharedTries is how often a call is repeated that failed because another's context ended.
const sharedTries = 16

// await returns what f returns, or failed with ctx's error if ctx ends before:
// f then goes on in the background. transport returns what went wrong below the answer.
func await[T any](ctx context.Context, e *engine, f func() T, failed func(error) T, transport func(T) error) T {
	call := f
	f = func() T { // callers that wait for the same connection share its making, and the cancellation of whoever began it
		result := call()
		for range sharedTries {
			if ctx.Err() != nil || !errors.Is(transport(result), context.Canceled) {
				break
			}
			result = call() // ours is alive: nothing of this call was sent
		}
		return result
	}
	if ctx.Done() == nil {
		return f()
	}
	if err := ctx.Err(); err != nil {
		return failed(err)
	}
	e.health.underWay.Add(1)
	defer e.health.underWay.Add(-1)
	var result T
	if e.health.good() {
		result = f()
	} else {
		result = apart(ctx, e, f, failed)
	}
	e.health.note(transport(result))
	return result
}

// apart is await with f in a goroutine of its own.
func apart[T any](ctx context.Context, e *engine, f func() T, failed func(error) T) T {
	done := make(chan T, 1)
	if !e.calls.start(func() { done <- f() }) {
		return failed(valkey.ErrClosing)
	}
	select {
	case result := <-done:
		return result
	case <-ctx.Done():
	}
	select { // it may have been answered all the same
	case result := <-done:
		return result
	default:
		return failed(ctx.Err())
	}
}
