package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// TestDayOfVirtualTime: sessions slide, locks come and go, windows end, a daily job runs, for 24 hours.
func TestDayOfVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, nil)
		ctx := t.Context()
		r := rand.New(rand.NewPCG(3, 4))
		begin := time.Now()
		sessions := map[string]time.Time{} // when each was last touched
		require.NoError(t, s.Set(ctx, "daily", "report", 24*time.Hour))
		for minute := range 24 * 60 {
			id := "session:" + strconv.Itoa(r.IntN(500))
			touched, known := sessions[id]
			_, err := s.GetExpire(ctx, id, 30*time.Minute)
			if live := known && time.Since(touched) < 30*time.Minute; live != (err == nil) {
				t.Fatalf("minute %d: %s was touched %v ago: %v", minute, id, time.Since(touched), err)
			}
			if err != nil {
				require.NoError(t, s.Set(ctx, id, "data", 30*time.Minute))
			}
			sessions[id] = time.Now()

			n, err := s.Incr(ctx, "window", 1, 10*time.Minute)
			require.NoError(t, err)
			require.EqualValues(t, minute%10+1, n)

			stored, err := s.SetNX(ctx, "lock", strconv.Itoa(minute), 90*time.Second)
			require.NoError(t, err)
			require.Equal(t, minute%2 == 0, stored, "the lock is free again after 90 s")

			found, err := s.Exists(ctx, "daily")
			require.NoError(t, err)
			require.True(t, found)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 24*time.Hour, time.Since(begin))
		for _, key := range []string{"daily", "lock"} {
			_, err := s.Get(ctx, key)
			require.Equal(t, kv.ErrNotFound, err, key)
		}
		time.Sleep(time.Hour)
		require.Zero(t, s.Stats().Keys)
		require.Zero(t, s.Stats().Bytes)
	})
}

// TestMillionKeysFallDueAtOnce, while readers, writers and scans go on. Nobody sees a key
// whose deadline has passed, the others stay, and the memory comes back.
func TestMillionKeysFallDueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := liveHeap()
		d := newDueTest(t, scaled(1_000_000))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // the deadline is after two
		defer cancel()
		var work []func() error
		for _, f := range []func(*rand.Rand) error{d.read, d.write, d.scan} {
			for range 2 {
				r := rand.New(rand.NewPCG(rand.Uint64(), 0))
				work = append(work, func() error {
					for ctx.Err() == nil {
						if err := f(r); err != nil {
							return err
						}
						time.Sleep(20 * time.Millisecond) // lets the bubble's clock go on
					}
					return nil
				})
			}
		}
		require.NoError(t, inParallel(work...))
		require.Positive(t, d.hits.Load())
		require.Positive(t, d.misses.Load())
		stats := d.s.Stats()
		require.EqualValues(t, d.due, stats.Expired)
		require.EqualValues(t, d.stay, stats.Keys)
		_, err := d.s.DeletePrefix(t.Context(), "")
		require.NoError(t, err)
		synctest.Wait() // for what the store does behind the caller
		require.Less(t, liveHeap()-before, int64(8<<20))
	})
}

type dueTest struct {
	s            *kv.Store
	ctx          context.Context
	due, stay    int
	deadline     time.Time
	hits, misses atomic.Int64
}

func newDueTest(t *testing.T, n int) *dueTest {
	d := &dueTest{s: newStore(t, nil), ctx: t.Context(), due: n, stay: 10_000, deadline: time.Now().Add(2 * time.Second)}
	for i := range d.due {
		require.NoError(t, d.s.Set(d.ctx, fmt.Sprintf("due:%07d", i), "a value of some thirty bytes ...", 2*time.Second))
	}
	for i := range d.stay {
		ttl := []time.Duration{kv.NoExpiry, time.Hour}[i%2]
		require.NoError(t, d.s.Set(d.ctx, fmt.Sprintf("stay:%07d", i), "v", ttl))
	}
	return d
}

// past says whether the deadline has passed.
func (d *dueTest) past() bool { return !time.Now().Before(d.deadline) }

func (d *dueTest) read(r *rand.Rand) error {
	for range 500 {
		past := d.past()
		_, err := d.s.Get(d.ctx, fmt.Sprintf("due:%07d", r.IntN(d.due)))
		if past == (err == nil) {
			return fmt.Errorf("past the deadline: %v, Get: %w", past, err)
		}
		if past {
			d.misses.Add(1)
		} else {
			d.hits.Add(1)
		}
	}
	return nil
}

func (d *dueTest) write(r *rand.Rand) error {
	for range 200 {
		key := fmt.Sprintf("stay:%07d", r.IntN(d.stay))
		if err := d.s.Set(d.ctx, key, "w", kv.KeepTTL); err != nil {
			return err
		}
		if n, err := d.s.Delete(d.ctx, "lock"+key); n != 0 || err != nil {
			return fmt.Errorf("deleted %d, %w", n, err)
		}
		past := d.past()
		swapped, err := d.s.CompareAndSwap(d.ctx, fmt.Sprintf("due:%07d", r.IntN(d.due)), "a value of some thirty bytes ...", "A value of some thirty bytes ...", kv.KeepTTL)
		if err != nil || past && swapped {
			return fmt.Errorf("a swap past the deadline: %v, %w", swapped, err)
		}
	}
	return nil
}

func (d *dueTest) scan(r *rand.Rand) error {
	from := fmt.Sprintf("due:%07d", r.IntN(d.due))
	past := d.past()
	n := 0
	for e, err := range d.s.Scan(d.ctx, kv.Range{From: from}) {
		if err != nil {
			return err
		}
		if past && e.Key[0] == 'd' {
			return errors.New("a scan past the deadline yields " + e.Key)
		}
		if n++; n == 1000 && !past {
			return nil
		}
	}
	if past && n != d.stay {
		return fmt.Errorf("a scan yields %d keys, %d stay", n, d.stay)
	}
	return nil
}

// TestDeadlinesMoveWhileTheyPass: sessions that are touched at the last moment live on, the rest does not.
func TestDeadlinesMoveWhileTheyPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, nil)
		ctx := t.Context()
		const n = 5000
		for i := range n {
			require.NoError(t, s.Set(ctx, strconv.Itoa(i), "v", time.Second))
		}
		touch := func(ttl time.Duration) func() error {
			return func() error {
				for i := 0; i < n; i += 2 {
					if found, err := s.Expire(ctx, strconv.Itoa(i), ttl); err != nil || !found {
						return fmt.Errorf("expire %d: %v, %w", i, found, err)
					}
				}
				return nil
			}
		}
		for round := range 10 {
			time.Sleep(time.Second - 1)
			live, err := s.Count(ctx, "")
			require.NoError(t, err)
			if round > 0 {
				require.Equal(t, n/2, live)
			}
			require.NoError(t, inParallel(touch(time.Second), touch(time.Second+time.Millisecond)))
			require.NoError(t, touch(time.Second)())
		}
		time.Sleep(time.Second)
		live, err := s.Count(ctx, "")
		require.NoError(t, err)
		require.Zero(t, live)
	})
}
