package valkeykv_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
)

// Every benchmark does the same commands through the client ("raw") and through a Store
// on a client with the same options ("store"), on the same server, in turns
// of a few hundred calls, so that whatever else the machine does hits both. The
// metric x is the median of the turns' ratios, store / raw: go test -run '^$' -bench . -benchtime 50x

func benchTarget(b *testing.B) (*kv.Store, valkey.Client) {
	b.Helper()
	s, err := standalone()
	require.NoError(b, err)
	option := valkey.ClientOption{InitAddress: []string{s.Addr}}
	c := rawClient(b, option)
	flush(b, c)
	store, err := valkeykv.Open(option, nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, store.Close()) })
	return store, c
}

const turn = 200 // calls

// sides compares both sides, from one goroutine and from sixteen, and with a context that can end.
func sides(b *testing.B, raw, store func(ctx context.Context) error) {
	b.Helper()
	deadline, cancel := context.WithTimeout(context.Background(), time.Hour)
	b.Cleanup(cancel)
	b.Run("one", func(b *testing.B) { inTurns(b, context.Background(), 1, raw, store) })
	b.Run("deadline", func(b *testing.B) { inTurns(b, deadline, 1, raw, store) })
	b.Run("many", func(b *testing.B) { inTurns(b, context.Background(), 16, raw, store) })
}

func inTurns(b *testing.B, ctx context.Context, goroutines int, raw, store func(context.Context) error) {
	var ratios []float64
	var rawTime, storeTime time.Duration
	measure := func(f func(context.Context) error) time.Duration {
		begun := time.Now()
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				for range turn {
					if err := f(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		return time.Since(begun)
	}
	measure(raw)
	measure(store)
	for b.Loop() {
		r, s := measure(raw), measure(store)
		rawTime, storeTime = rawTime+r, storeTime+s
		ratios = append(ratios, float64(s)/float64(r))
	}
	slices.Sort(ratios)
	calls := float64(len(ratios) * goroutines * turn)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(rawTime.Nanoseconds())/calls, "raw-ns/call")
	b.ReportMetric(float64(storeTime.Nanoseconds())/calls, "store-ns/call")
	b.ReportMetric(ratios[len(ratios)/2], "x")
}

var benchValue = strings.Repeat("v", 64)

func BenchmarkGet(b *testing.B) {
	s, c := benchTarget(b)
	require.NoError(b, s.Set(context.Background(), "key", benchValue, 0))
	sides(b,
		func(ctx context.Context) error { return c.Do(ctx, c.B().Get().Key("key").Build()).Error() },
		func(ctx context.Context) error { _, err := s.Get(ctx, "key"); return err })
}

func BenchmarkSet(b *testing.B) {
	s, c := benchTarget(b)
	sides(b,
		func(ctx context.Context) error {
			return c.Do(ctx, c.B().Set().Key("key").Value(benchValue).PxMilliseconds(60000).Build()).Error()
		},
		func(ctx context.Context) error { return s.Set(ctx, "key", benchValue, time.Minute) })
}

func BenchmarkIncr(b *testing.B) {
	s, c := benchTarget(b)
	sides(b,
		func(ctx context.Context) error {
			return c.Do(ctx, c.B().Incrby().Key("raw").Increment(1).Build()).Error()
		},
		func(ctx context.Context) error { _, err := s.Incr(ctx, "store", 1, 0); return err })
}

// The raw side runs the same script: that is the same command.
func BenchmarkCompareAndSwap(b *testing.B) {
	s, c := benchTarget(b)
	script := valkey.NewLuaScript(valkeykv.Script("", "prelude", "cas"))
	ctx := context.Background()
	require.NoError(b, s.Set(ctx, "key", benchValue, 0))
	sides(b,
		func(ctx context.Context) error {
			return script.Exec(ctx, c, []string{"key"}, []string{benchValue, benchValue, "60000"}).Error()
		},
		func(ctx context.Context) error {
			_, err := s.CompareAndSwap(ctx, "key", benchValue, benchValue, time.Minute)
			return err
		})
}

func BenchmarkBatch100(b *testing.B) {
	s, c := benchTarget(b)
	ops := make([]kv.Op, 100)
	for i := range ops {
		if key := fmt.Sprint("key", i); i%2 == 0 {
			ops[i] = kv.OpSet(key, benchValue, time.Minute)
		} else {
			ops[i] = kv.OpGet(key)
		}
	}
	sides(b,
		func(ctx context.Context) error {
			cmds := make([]valkey.Completed, len(ops))
			for i, op := range ops {
				if i%2 == 0 {
					cmds[i] = c.B().Set().Key(op.Key).Value(benchValue).PxMilliseconds(60000).Build()
				} else {
					cmds[i] = c.B().Get().Key(op.Key).Build()
				}
			}
			for i, r := range c.DoMulti(ctx, cmds...) {
				_, err := r.ToString()
				if err != nil && !valkey.IsValkeyNil(err) {
					return fmt.Errorf("%d: %w", i, err)
				}
			}
			return nil
		},
		func(ctx context.Context) error {
			results, err := s.Batch(ctx, ops...)
			for _, r := range results {
				if r.Err != nil {
					return r.Err
				}
			}
			return err
		})
}
