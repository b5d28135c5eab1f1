package kvtest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

// both returns an Idempotency of each of two processes.
func (e *env) both(opts *kv.IdempotencyOptions) [2]*kv.Idempotency {
	return [2]*kv.Idempotency{kv.NewIdempotency(e.store, opts), kv.NewIdempotency(e.peer(), opts)}
}

var idempotencyCases = []testCase{
	{
		name:     "Idempotency",
		contract: "A result (status, headers, body) is replayed byte for byte with replay true; the fingerprint is compared on every path, in flight and replayed: ErrMismatch.",
		run: func(e *env) {
			i := e.both(nil)
			want := kv.Response{Status: 201, Header: map[string][]string{"Location": {"/orders/1"}, "X": {"a", "b"}}, Body: []byte("a\x00b\xff")}
			got, replay, err := i[0].Execute(e.ctx, "key", "print", func(context.Context) (kv.Response, error) {
				_, _, err := i[1].Execute(e.ctx, "key", "print", nil)
				e.ErrorIs(err, kv.ErrInProgress, "a duplicate of running work")
				_, _, err = i[1].Execute(e.ctx, "key", "other print", nil)
				e.ErrorIs(err, kv.ErrMismatch, "other work with the key of running work")
				return want, nil
			})
			e.NoError(err)
			e.False(replay)
			e.Equal(want, got)
			for range 2 {
				got, replay, err = i[1].Execute(e.ctx, "key", "print", nil)
				e.NoError(err)
				e.True(replay)
				e.Equal(want, got)
			}
			_, _, err = i[0].Execute(e.ctx, "key", "other print", nil)
			e.ErrorIs(err, kv.ErrMismatch)
		},
	},
	{
		name:     "Idempotency/once",
		contract: "With Wait, duplicates wait for the result by event and get it.",
		run: func(e *env) {
			i := e.both(&kv.IdempotencyOptions{Wait: 10 * time.Minute})
			var runs, replays atomic.Int64
			e.parallel(16, func(g int) error {
				n, replay, err := kv.Once(e.ctx, i[g%2], "key", "", func(context.Context) (int, error) {
					e.wait(e.unit())
					return int(runs.Add(1)) * 100, nil
				})
				if replay {
					replays.Add(1)
				}
				if err == nil && n != 100 {
					err = errors.New("a caller gets another result")
				}
				return err
			})
			e.EqualValues(1, runs.Load())
			e.EqualValues(15, replays.Load())
		},
	},
	{
		name:     "Idempotency/failure",
		contract: "Error, panic or Goexit of f: the claim is released, nothing is stored, a retry runs.",
		run: func(e *env) {
			i := e.both(nil)
			failed := errors.New("failed")
			_, replay, err := i[0].Execute(e.ctx, "key", "", func(context.Context) (kv.Response, error) { return kv.Response{}, failed })
			e.True(err == failed, "%v", err)
			e.False(replay)
			e.PanicsWithValue("boom", func() {
				_, _, _ = i[1].Execute(e.ctx, "key", "", func(context.Context) (kv.Response, error) { panic("boom") })
			})
			n, err := e.store.Count(e.ctx, "")
			e.NoError(err)
			e.Zero(n)
			got, replay, err := i[0].Execute(e.ctx, "key", "another", func(context.Context) (kv.Response, error) {
				return kv.Response{Status: 200}, nil
			})
			e.NoError(err)
			e.False(replay)
			e.Equal(200, got.Status)
		},
	},
	{
		name:     "Idempotency/cancelled caller",
		contract: "A caller whose ctx was cancelled while f ran still completes or releases.",
		run: func(e *env) {
			i := e.both(nil)
			ctx, cancel := context.WithCancel(e.ctx)
			_, _, err := i[0].Execute(ctx, "done", "", func(context.Context) (kv.Response, error) {
				cancel()
				return kv.Response{Status: 200}, nil
			})
			e.NoError(err)
			got, replay, err := i[1].Execute(e.ctx, "done", "", nil)
			e.NoError(err)
			e.True(replay)
			e.Equal(200, got.Status)
		},
	},
	{
		name:     "Idempotency/TTL",
		contract: "TTL: how long a result is replayed. ClaimTTL: renewed while the work runs.",
		run: func(e *env) {
			i := e.both(&kv.IdempotencyOptions{TTL: 4 * e.unit(), ClaimTTL: 8 * e.unit()})
			runs := 0
			once := func() {
				_, _, err := i[runs%2].Execute(e.ctx, "key", "", func(context.Context) (kv.Response, error) {
					runs++
					e.wait(16 * e.unit()) // longer than the claim would last
					_, _, err := i[0].Execute(e.ctx, "key", "", nil)
					e.ErrorIs(err, kv.ErrInProgress)
					return kv.Response{Status: runs}, nil
				})
				e.NoError(err)
			}
			once()
			e.wait(4*e.unit() + e.slack())
			once()
			e.Equal(2, runs)
		},
	},
	{
		name:     "Idempotency/events",
		contract: "AlreadyProcessed marks at once; ErrInProgress while Process runs it. Process marks only after f succeeded, so a failing handler loses no event. Events and keys of Execute are different spaces.",
		run: func(e *env) {
			i := e.both(nil)
			failed := errors.New("failed")
			processed, err := i[0].Process(e.ctx, "event", func(context.Context) error { return failed })
			e.True(err == failed, "%v", err)
			e.False(processed)
			processed, err = i[1].Process(e.ctx, "event", func(context.Context) error {
				_, err := i[0].AlreadyProcessed(e.ctx, "event")
				e.ErrorIs(err, kv.ErrInProgress)
				return nil
			})
			e.NoError(err)
			e.True(processed)
			processed, err = i[0].Process(e.ctx, "event", nil)
			e.NoError(err)
			e.False(processed, "a duplicate")
			already, err := i[0].AlreadyProcessed(e.ctx, "event")
			e.NoError(err)
			e.True(already)
			var first atomic.Int64
			e.parallel(16, func(g int) error {
				already, err := i[g%2].AlreadyProcessed(e.ctx, "other")
				if !already {
					first.Add(1)
				}
				return err
			})
			e.EqualValues(1, first.Load())
			_, replay, err := i[0].Execute(e.ctx, "event", "", func(context.Context) (kv.Response, error) { return kv.Response{}, nil })
			e.NoError(err)
			e.False(replay)
		},
	},
}
