package kv

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// PanicError is what callers of [Guarded.Get] get when compute panicked.
type PanicError struct {
	Value any    // of the panic
	Stack []byte // of the goroutine that panicked
}

// Error names the value of the panic. The stack is in the field.
func (e *PanicError) Error() string { return fmt.Sprintf("kv: compute panicked: %v", e.Value) }

var errGoexit = errors.New("kv: compute called runtime.Goexit")

// compute computes the value of t for taker. What is to be stored of it is servable;
// an error that is remembered comes with what is to be stored, too.
func (g *guard) compute(ctx context.Context, t task, taker string) (cached, error) {
	began := time.Now()
	payload, err := g.call(ctx, t)
	c := cached{version: taker[:versionLen], cost: time.Since(began), payload: payload}
	switch {
	case err == nil:
		c.kind = cachedValue
	case g.negativeTTL > 0 && errors.Is(err, ErrNotFound):
		c.kind, c.payload = cachedAbsent, ""
	}
	return c, err
}

// call calls t's compute and returns no later than ctx, Timeout and the store
// allow: a compute that ignores its context holds nobody up.
func (g *guard) call(ctx context.Context, t task) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", wrap("get", t.name, err)
	}
	var cancel context.CancelFunc
	if g.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	out := make(chan outcome, 1)
	go protect(ctx, t.compute, out)
	select {
	case o := <-out:
		return o.payload, o.err
	case <-ctx.Done():
		return "", wrap("get", t.name, ctx.Err())
	case <-g.store.done():
		return "", wrap("get", t.name, ErrClosed)
	}
}

type outcome struct {
	payload string
	err     error
}

// protect calls compute and always sends an outcome: this goroutine is nobody's, so
// a panic would end the program.
func protect(ctx context.Context, compute func(context.Context) (string, error), out chan<- outcome) {
	o := outcome{err: errGoexit}
	defer func() {
		if r := recover(); r != nil {
			o = outcome{err: &PanicError{Value: r, Stack: debug.Stack()}}
		}
		out <- o
	}()
	payload, err := compute(ctx)
	if err != nil {
		payload = ""
	}
	o = outcome{payload, err}
}
