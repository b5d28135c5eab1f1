package kvtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

// newFaulty returns a faulty engine, the store on it and the one beneath.
func newFaulty(t *testing.T) (engine *kvtest.Faulty, store, beneath *kv.Store) {
	beneath = kv.New(nil)
	engine = kvtest.NewFaulty(beneath)
	store = kv.NewWithEngine(engine, nil)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return engine, store, beneath
}

func TestFaultBeforeTheCall(t *testing.T) {
	engine, store, beneath := newFaulty(t)
	ctx := t.Context()
	require.NoError(t, beneath.Set(ctx, "key", "old", 0))
	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
	require.ErrorIs(t, store.Set(ctx, "key", "new", 0), kvtest.ErrDown)
	_, err := store.Get(ctx, "key")
	require.ErrorIs(t, err, kvtest.ErrDown)
	_, err = store.Incr(ctx, "n", 1, 0)
	require.ErrorIs(t, err, kvtest.ErrDown)
	_, _, err = store.Txn(ctx, nil, kv.OpSet("key", "new", 0))
	require.ErrorIs(t, err, kvtest.ErrDown)
	_, err = store.Watch(ctx, "")
	require.ErrorIs(t, err, kvtest.ErrDown)
	_, err = store.Count(ctx, "")
	require.ErrorIs(t, err, kvtest.ErrDown)
	engine.Heal()
	got, err := store.Get(ctx, "key")
	require.NoError(t, err)
	require.Equal(t, "old", got)
	n, err := store.Count(ctx, "")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestFaultAfterTheCall(t *testing.T) {
	engine, store, beneath := newFaulty(t)
	ctx := t.Context()
	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, "Incr", "SetNX"))
	_, err := store.Incr(ctx, "n", 1, 0)
	require.ErrorIs(t, err, kv.ErrUnknownOutcome)
	require.ErrorIs(t, err, kvtest.ErrDown)
	stored, err := store.SetNX(ctx, "lock", "token", 0)
	require.ErrorIs(t, err, kv.ErrUnknownOutcome)
	require.False(t, stored)
	require.NoError(t, store.Set(ctx, "other", "v", 0), "another method")
	values, err := beneath.GetMany(ctx, "n", "lock")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"n": "1", "lock": "token"}, values)
}

func TestFaultTimes(t *testing.T) {
	engine, store, _ := newFaulty(t)
	ctx := t.Context()
	engine.Inject(kvtest.Times(2, kvtest.Fault{Err: kvtest.ErrDown}, "Set"))
	require.NoError(t, store.Put(ctx, kv.Entry{Key: "key"}))
	require.Error(t, store.Set(ctx, "key", "a", 0))
	require.Error(t, store.Set(ctx, "key", "b", 0))
	require.NoError(t, store.Set(ctx, "key", "c", 0))
	require.Equal(t, 3, engine.Count("Set"))
	require.Equal(t, 4, engine.Count("Set", "Put"))
	require.Equal(t, 4, engine.Count())
}

func TestPlanSeesTheCall(t *testing.T) {
	engine, store, _ := newFaulty(t)
	ctx := t.Context()
	var calls []kvtest.Call
	engine.Inject(func(c kvtest.Call) kvtest.Fault {
		calls = append(calls, c)
		return kvtest.Fault{}
	})
	require.NoError(t, store.Namespace("ns").Set(ctx, "key", "v", 0))
	_, err := store.Batch(ctx, kv.OpGet("a"), kv.OpDelete("b"))
	require.NoError(t, err)
	require.Equal(t, kvtest.Call{Method: "Set", Key: "ns:key"}, calls[0])
	require.Equal(t, "Batch", calls[1].Method)
	require.Equal(t, []kv.Op{kv.OpGet("a"), kv.OpDelete("b")}, calls[1].Ops)
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine, store, beneath := newFaulty(t)
		ctx := t.Context()
		engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Minute}))
		begin := time.Now()
		require.NoError(t, store.Set(ctx, "key", "v", 0))
		require.Equal(t, time.Minute, time.Since(begin))

		late, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, store.Set(late, "key", "w", 0), context.DeadlineExceeded)
		require.Equal(t, time.Minute+time.Second, time.Since(begin))
		got, err := beneath.Get(ctx, "key")
		require.NoError(t, err)
		require.Equal(t, "v", got, "the delay was before the call")

		engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Minute, Applied: true}))
		err = store.Set(late, "key", "w", 0)
		require.ErrorIs(t, err, kv.ErrUnknownOutcome)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		got, err = beneath.Get(ctx, "key")
		require.NoError(t, err)
		require.Equal(t, "w", got, "the delay was after the call")
		_, err = store.Get(late, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, kv.ErrUnknownOutcome, "a read has no outcome")
	})
}

func TestCloseEndsDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine, store, _ := newFaulty(t)
		engine.Inject(kvtest.Always(kvtest.Fault{Delay: 1000 * time.Hour}))
		waiting := make(chan error)
		go func() { waiting <- store.Set(context.Background(), "key", "v", 0) }()
		synctest.Wait()
		require.NoError(t, store.Close())
		require.ErrorIs(t, <-waiting, kv.ErrClosed)
	})
}

func TestBreakWatches(t *testing.T) {
	engine, store, _ := newFaulty(t)
	ctx := t.Context()
	w, err := store.Watch(ctx, "")
	require.NoError(t, err)
	engine.BreakWatches()
	for range w.Events() {
		t.Error("an event of nothing")
	}
	require.ErrorIs(t, w.Err(), kv.ErrLagged)
	w, err = store.Watch(ctx, "")
	require.NoError(t, err)
	require.NoError(t, store.Set(ctx, "key", "v", 0))
	require.Equal(t, "key", (<-w.Events()).Entry.Key)
	w.Stop()
}

func TestFaultyScan(t *testing.T) {
	engine, store, _ := newFaulty(t)
	ctx := t.Context()
	require.NoError(t, store.SetMany(ctx, map[string]string{"a": "1", "b": "2"}, 0))
	for _, applied := range []bool{false, true} {
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown, Applied: applied}, "Scan"))
		var keys []string
		var last error
		for e, err := range store.Scan(ctx, kv.Range{}) {
			if last = err; err == nil {
				keys = append(keys, e.Key)
			}
		}
		require.ErrorIs(t, last, kvtest.ErrDown)
		if applied {
			require.Equal(t, []string{"a", "b"}, keys)
		} else {
			require.Empty(t, keys)
		}
	}
	require.False(t, errors.Is(kvtest.ErrDown, kv.ErrUnknownOutcome))
}
