package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

// computed returns a compute that says which it is, counting from 1.
func computed(n *atomic.Int64) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return fmt.Sprint("value ", n.Add(1)), nil }
}

func (e *env) guards(opts *kv.GuardedOptions[string]) [2]*kv.Guarded[string] {
	return [2]*kv.Guarded[string]{kv.NewGuarded(e.store, opts), kv.NewGuarded(e.peer(), opts)}
}

// gets checks that g has want under "key".
func (e *env) gets(g *kv.Guarded[string], compute func(context.Context) (string, error), want string) {
	got, err := g.Get(e.ctx, "key", compute)
	e.NoError(err)
	e.Equal(want, got)
}

var guardedCases = []testCase{
	{
		name:     "Guarded/one computes",
		contract: "On a miss one caller of the process computes and, across processes on a shared engine, one process; the rest get its value by event.",
		run: func(e *env) {
			g := e.guards(&kv.GuardedOptions[string]{TTL: time.Hour, LockTTL: time.Hour})
			var computes atomic.Int64
			e.parallel(16, func(i int) error {
				got, err := g[i%2].Get(e.ctx, "key", func(context.Context) (string, error) {
					computes.Add(1)
					e.wait(e.unit())
					return "value", nil
				})
				if err == nil && got != "value" {
					err = fmt.Errorf("a caller gets %q", got)
				}
				return err
			})
			e.EqualValues(1, computes.Load())
		},
	},
	{
		name:     "Guarded/TTL",
		contract: "TTL: how long a value is fresh; NoExpiry: until invalidated.",
		run: func(e *env) {
			var n atomic.Int64
			g := e.guards(&kv.GuardedOptions[string]{TTL: 4 * e.unit()})
			e.gets(g[0], computed(&n), "value 1")
			e.wait(4*e.unit() + e.slack() + e.h.Resolution)
			e.gets(g[1], computed(&n), "value 2")
			forever := e.guards(&kv.GuardedOptions[string]{Prefix: "forever"})
			e.gets(forever[0], computed(&n), "value 3")
			e.wait(8 * e.unit())
			e.gets(forever[1], computed(&n), "value 3")
			e.NoError(forever[0].Invalidate(e.ctx, "key"))
			e.gets(forever[1], computed(&n), "value 4")
			e.gets(forever[0], computed(&n), "value 4")
		},
	},
	{
		name:     "Guarded/errors",
		contract: "A compute's error reaches the callers that waited for it and is not stored (except NegativeTTL for ErrNotFound).",
		run: func(e *env) {
			var n atomic.Int64
			failed := errors.New("failed")
			g := e.guards(&kv.GuardedOptions[string]{TTL: time.Hour, NegativeTTL: 4 * e.unit()})
			_, err := g[0].Get(e.ctx, "key", func(context.Context) (string, error) { return "", failed })
			e.ErrorIs(err, failed)
			_, err = g[0].Get(e.ctx, "key", func(context.Context) (string, error) { panic("boom") })
			e.Error(err, "a panic becomes an error for the waiters")
			_, err = g[1].Get(e.ctx, "key", func(context.Context) (string, error) { return "", kv.ErrNotFound })
			e.ErrorIs(err, kv.ErrNotFound)
			_, err = g[0].Get(e.ctx, "key", func(context.Context) (string, error) { return "", kv.ErrNotFound })
			e.ErrorIs(err, kv.ErrNotFound)
			e.wait(4*e.unit() + e.slack() + e.h.Resolution)
			e.gets(g[0], computed(&n), "value 1")
		},
	},
	{
		name:     "Guarded/Invalidate",
		contract: "Invalidate: a compute already running, in any process, reaches no later reader.",
		run: func(e *env) {
			var n atomic.Int64
			g := e.guards(&kv.GuardedOptions[string]{TTL: time.Hour, LockTTL: time.Hour})
			running, finish := make(chan struct{}), make(chan struct{})
			old := make(chan error, 1)
			go func() {
				_, err := g[0].Get(e.ctx, "key", func(context.Context) (string, error) {
					close(running)
					<-finish
					return "outdated", nil
				})
				old <- err
			}()
			<-running
			e.NoError(g[1].Invalidate(e.ctx, "key"))
			e.gets(g[1], computed(&n), "value 1")
			close(finish)
			e.within("a compute that was overtaken", func() error { return <-old })
			e.gets(g[0], computed(&n), "value 1")
		},
	},
	{
		name:     "Guarded/StaleFor",
		contract: "StaleFor: the old value at once, one refresh behind it, the old value again if that fails.",
		run: func(e *env) {
			var n atomic.Int64
			g := e.guards(&kv.GuardedOptions[string]{TTL: 4 * e.unit(), StaleFor: time.Hour})
			e.gets(g[0], computed(&n), "value 1")
			e.wait(4*e.unit() + e.slack() + 2*time.Millisecond)
			failed := make(chan struct{})
			e.gets(g[0], func(context.Context) (string, error) { defer close(failed); return "", errors.New("failed") }, "value 1")
			<-failed
			e.eventually(func() bool {
				got, err := g[0].Get(e.ctx, "key", computed(&n))
				e.NoError(err)
				return got == fmt.Sprint("value ", n.Load()) && got != "value 1"
			})
		},
	},
	{
		name:     "GuardedGet",
		contract: "GuardedGet(ctx, s, key, ttl, compute): one computes, the rest get its value.",
		run: func(e *env) {
			var n atomic.Int64
			for range 3 {
				got, err := kv.GuardedGet(e.ctx, e.store, "key", time.Hour, computed(&n))
				e.NoError(err)
				e.Equal("value 1", got)
			}
		},
	},
}
