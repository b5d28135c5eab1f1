package kv_test

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

func TestOpKindString(t *testing.T) {
	want := []string{"get", "set", "setnx", "incr", "expire", "delete"}
	for i, op := range []kv.Op{kv.OpGet("k"), kv.OpSet("k", "", 0), kv.OpSetNX("k", "", 0), kv.OpIncr("k", 1, 0), kv.OpExpire("k", 0), kv.OpDelete("k")} {
		require.Equal(t, want[i], op.Kind.String())
	}
	require.Equal(t, "op", kv.OpKind(0).String())
}

// TestTxnAtTheDeadline: one transaction sees one time, so that a key is either live for all of it or for nothing.
func TestTxnAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, nil)
		ctx := t.Context()
		require.NoError(t, s.Set(ctx, "lease", "mine", time.Second))
		time.Sleep(time.Second - 1)
		ok, _, err := s.Txn(ctx, []kv.Cond{kv.IfValue("lease", "mine")}, kv.OpSet("written", "while held", 0), kv.OpExpire("lease", time.Second))
		require.NoError(t, err)
		require.True(t, ok)
		time.Sleep(time.Second)
		ok, _, err = s.Txn(ctx, []kv.Cond{kv.IfValue("lease", "mine")}, kv.OpSet("written", "too late", 0))
		require.NoError(t, err)
		require.False(t, ok)
		value, err := s.Get(ctx, "written")
		require.NoError(t, err)
		require.Equal(t, "while held", value)
	})
}

// TestTxnEvents: a watch sees what a transaction did, each key in order, and nothing of one that failed.
func TestTxnEvents(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	require.NoError(t, s.Set(ctx, "text", "x", 0))
	w, err := s.Watch(ctx, "")
	require.NoError(t, err)
	defer w.Stop()
	_, _, err = s.Txn(ctx, nil, kv.OpSet("a", "1", 0), kv.OpDelete("text"), kv.OpSet("text", "y", 0), kv.OpIncr("text", 1, 0))
	require.ErrorIs(t, err, kv.ErrNotInteger)
	ok, _, err := s.Txn(ctx, []kv.Cond{kv.IfAbsent("text")}, kv.OpSet("a", "2", 0))
	require.NoError(t, err)
	require.False(t, ok)
	require.Empty(t, w.Events())
	_, _, err = s.Txn(ctx, nil, kv.OpSet("a", "1", 0), kv.OpIncr("a", 1, 0), kv.OpDelete("a"), kv.OpSetNX("a", "3", 0), kv.OpExpire("a", time.Hour))
	require.NoError(t, err)
	last := ""
	for len(w.Events()) > 0 {
		e := <-w.Events()
		require.Equal(t, "a", e.Entry.Key)
		last = e.Type.String() + " " + e.Entry.Value
	}
	require.Equal(t, "put 3", last)
}

// TestTxnsOfSharedKeys runs transactions whose keys overlap in every order: none may wait for another for ever.
func TestTxnsOfSharedKeys(t *testing.T) {
	for _, shards := range []int{1, 2, 0} {
		t.Run(strconv.Itoa(shards), func(t *testing.T) {
			s := newStore(t, &kv.Options{Shards: shards})
			ctx := t.Context()
			const keys, rounds, workers = 40, 1000, 4
			var applied atomic.Int64
			work := func(w int) func() error {
				return func() error {
					for i := range rounds {
						var ops []kv.Op
						for j := range 6 {
							ops = append(ops, kv.OpIncr(fmt.Sprint((i*7+j*(w+3))%keys), 1, 0))
						}
						ok, _, err := s.Txn(ctx, []kv.Cond{kv.IfAbsent(fmt.Sprint("never", (i+w)%keys))}, ops...)
						if !ok || err != nil {
							return fmt.Errorf("txn: %v, %w", ok, err)
						}
						applied.Add(int64(len(ops)))
						if _, err := s.Incr(ctx, fmt.Sprint(i%keys), 1, 0); err != nil {
							return err
						}
						applied.Add(1)
					}
					return nil
				}
			}
			require.NoError(t, inParallel(work(0), work(1), work(2), work(3)))
			var sum int64
			for e, err := range s.Scan(ctx, kv.Range{}) {
				require.NoError(t, err)
				n, err := strconv.ParseInt(e.Value, 10, 64)
				require.NoError(t, err)
				sum += n
			}
			require.Equal(t, applied.Load(), sum)
		})
	}
}
