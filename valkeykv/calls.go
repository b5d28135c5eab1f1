package valkeykv

import (
	"context"
	"sync"

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

// await returns what f returns, or failed with ctx's error if ctx ends before:
// f then goes on in the background. The client heeds ctx while a command is
// under way, but not while it waits for a connection that another call is
// making, or for room in a full pipeline.
func await[T any](ctx context.Context, c *calls, f func() T, failed func(error) T) T {
	if ctx.Done() == nil {
		return f()
	}
	if err := ctx.Err(); err != nil {
		return failed(err)
	}
	done := make(chan T, 1)
	if !c.start(func() { done <- f() }) {
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
