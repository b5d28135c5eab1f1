package kv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMemoryAgainstModel plays random operations on a store and on a plain map,
// in virtual time, and then holds the engine's parts against each other.
func TestMemoryAgainstModel(t *testing.T) {
	for _, shards := range []int{1, 8} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("shards=%d,seed=%d", shards, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { playModel(t, shards, seed) })
			})
		}
	}
}

type modelEntry struct {
	value, metadata string
	deadline        time.Time // zero: none
}

type model struct {
	entries map[string]modelEntry
}

func (m *model) get(key string) (modelEntry, bool) {
	e, ok := m.entries[key]
	if ok && !e.deadline.IsZero() && !e.deadline.After(time.Now()) {
		delete(m.entries, key)
		return modelEntry{}, false
	}
	return e, ok
}

func deadlineOf(ttl time.Duration, kept time.Time) time.Time {
	switch ttl {
	case NoExpiry:
		return time.Time{}
	case KeepTTL:
		return kept
	}
	return time.Now().Add(ttl)
}

func playModel(t *testing.T, shards int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := New(&Options{Shards: shards})
	defer s.Close()
	m := &model{entries: make(map[string]modelEntry)}
	ctx := context.Background()
	ttls := []time.Duration{NoExpiry, KeepTTL, time.Nanosecond, time.Millisecond, time.Second, time.Minute, time.Hour, 300 * time.Hour, 1<<63 - 1}
	space := []int{50, 5000}[seed%2]
	for step := range 20000 {
		key := fmt.Sprintf("key:%05d", rng.IntN(space))
		value := strings.Repeat(string(rune('a'+rng.IntN(26))), []int{0, 3, 60, 900, 20000}[rng.IntN(100)*rng.IntN(100)/2000])
		ttl := ttls[rng.IntN(len(ttls))]
		old, live := m.get(key)
		switch op := rng.IntN(16); op {
		case 0, 1, 2:
			require.NoError(t, s.Set(ctx, key, value, ttl))
			m.entries[key] = modelEntry{value, "", deadlineOf(ttl, old.deadline)}
		case 3:
			ok, err := s.SetNX(ctx, key, value, ttl)
			require.NoError(t, err)
			require.Equal(t, !live, ok)
			if ok {
				m.entries[key] = modelEntry{value, "", deadlineOf(ttl, time.Time{})}
			}
		case 4:
			ok, err := s.CompareAndSwap(ctx, key, old.value, value, ttl)
			require.NoError(t, err)
			require.Equal(t, live, ok)
			if ok {
				m.entries[key] = modelEntry{value, old.metadata, deadlineOf(ttl, old.deadline)}
			}
		case 5, 6:
			n, err := s.Delete(ctx, key)
			require.NoError(t, err)
			require.Equal(t, live, n == 1)
			delete(m.entries, key)
		case 7:
			ok, err := s.Expire(ctx, key, ttl)
			require.NoError(t, err)
			require.Equal(t, live, ok)
			if ok {
				old.deadline = deadlineOf(ttl, old.deadline)
				m.entries[key] = old
			}
		case 8:
			e := Entry{Key: key, Value: value, Metadata: `{"a":1}`}
			if ttl > 0 {
				e.ExpiresAt = time.Now().Add(ttl)
			}
			require.NoError(t, s.Put(ctx, e))
			m.entries[key] = modelEntry{value, e.Metadata, e.ExpiresAt}
		case 9:
			d := time.Duration(rng.Int64N(int64([]time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour}[rng.IntN(4)])))
			time.Sleep(d)
		case 10:
			v, err := s.GetExpire(ctx, key, ttl)
			require.Equal(t, live, err == nil)
			if live {
				require.Equal(t, old.value, v)
				old.deadline = deadlineOf(ttl, old.deadline)
				m.entries[key] = old
			}
		case 11:
			if rng.IntN(2) == 0 {
				key = fmt.Sprintf("counter:%d", rng.IntN(20))
				old, live = m.get(key)
			}
			delta := rng.Int64() >> rng.IntN(64) * int64(1-2*rng.IntN(2))
			sum, err := s.Incr(ctx, key, delta, ttl)
			n, parseErr := strconv.ParseInt(old.value, 10, 64)
			switch {
			case live && (parseErr != nil || strconv.FormatInt(n, 10) != old.value):
				require.ErrorIs(t, err, ErrNotInteger)
			case (n+delta > n) != (delta > 0):
				require.ErrorIs(t, err, ErrOverflow)
			default:
				require.NoError(t, err)
				require.Equal(t, n+delta, sum)
				if !live {
					old.deadline = deadlineOf(ttl, time.Time{})
				}
				old.value = strconv.FormatInt(sum, 10)
				m.entries[key] = old
			}
		default:
			e, err := s.Entry(ctx, key)
			require.Equal(t, live, !errors.Is(err, ErrNotFound), "step %d", step)
			if live {
				require.Equal(t, old.value, e.Value)
				require.Equal(t, old.metadata, e.Metadata)
				require.Equal(t, old.deadline.IsZero(), e.ExpiresAt.IsZero())
				if old.deadline.Year() >= 2290 { // the largest ttl saturates 292 years after the store was made
					require.GreaterOrEqual(t, e.ExpiresAt.Year(), 2290)
				} else if !old.deadline.IsZero() {
					require.WithinDuration(t, old.deadline, e.ExpiresAt, 0)
				}
			}
		}
		if step%2500 == 0 {
			compareScan(t, s, m)
		}
	}
	compareScan(t, s, m)
	synctest.Wait()
	require.NoError(t, s.engine.(*memory).check())
	bytes := 0
	for key, e := range m.entries {
		bytes += len(key) + len(e.value) + len(e.metadata)
	}
	if s.Stats().Keys == int64(len(m.entries)) { // else some have expired and are not reclaimed yet
		require.EqualValues(t, bytes, s.Stats().Bytes)
	}
}

func TestDecimalLen(t *testing.T) {
	numbers := []int64{0, math.MaxInt64, math.MinInt64}
	for n := int64(1); n < math.MaxInt64/10; n *= 10 {
		numbers = append(numbers, n-1, n, n+1, 2*n, 9*n, -n, 1-n, -n-1)
	}
	for _, n := range numbers {
		require.Equal(t, len(strconv.FormatInt(n, 10)), decimalLen(n), "%d", n)
	}
}

func compareScan(t *testing.T, s *Store, m *model) {
	t.Helper()
	for key := range maps.Clone(m.entries) {
		m.get(key)
	}
	want := slices.Sorted(maps.Keys(m.entries))
	var got []string
	for e, err := range s.Scan(context.Background(), Range{}) {
		require.NoError(t, err)
		require.Equal(t, m.entries[e.Key].value, e.Value)
		got = append(got, e.Key)
	}
	require.Equal(t, want, got)
	var reversed []string
	for e, err := range s.Scan(context.Background(), Range{Reverse: true, KeysOnly: true}) {
		require.NoError(t, err)
		reversed = append(reversed, e.Key)
	}
	slices.Reverse(reversed)
	require.Equal(t, want, reversed)
	if len(want) > 10 {
		var ranged []string
		for e, err := range s.Scan(context.Background(), Range{From: want[3], To: want[len(want)-3]}) {
			require.NoError(t, err)
			ranged = append(ranged, e.Key)
		}
		require.Equal(t, want[3:len(want)-3], ranged)
	}
}

// TestScanOfManyLeaves scans while leaves are still unsorted, and in batches that end anywhere.
func TestScanOfManyLeaves(t *testing.T) {
	s := New(nil)
	defer s.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	want := make([]string, 0, 50_000)
	for _, i := range rng.Perm(cap(want)) {
		key := fmt.Sprintf("key:%08d", i)
		want = append(want, key)
		require.NoError(t, s.Set(t.Context(), key, "v", NoExpiry))
	}
	slices.Sort(want)
	for _, reverse := range []bool{false, true} {
		got := make([]string, 0, len(want))
		for e, err := range s.Scan(context.Background(), Range{Reverse: reverse}) {
			require.NoError(t, err)
			got = append(got, e.Key)
		}
		if reverse {
			slices.Reverse(got)
		}
		require.True(t, slices.Equal(want, got))
	}
	require.NoError(t, s.engine.(*memory).check())
}

// TestMemoryUnderFire lets writers, readers, scans, transactions and the reaper
// at a few keys and shards, where they meet most, and then holds the engine's parts against each other.
func TestMemoryUnderFire(t *testing.T) {
	for _, shards := range []int{1, 4} {
		s := New(&Options{Shards: shards, ReapInterval: time.Millisecond})
		var wg sync.WaitGroup
		for g := range uint64(8) {
			wg.Go(func() { fire(t, s, rand.New(rand.NewPCG(g, uint64(shards)))) })
		}
		wg.Wait()
		require.NoError(t, s.engine.(*memory).check())
		require.NoError(t, s.Close())
	}
}

func fire(t *testing.T, s *Store, rng *rand.Rand) {
	ctx := context.Background()
	key := func() string { return fmt.Sprintf("key:%d", rng.IntN(400)) }
	ttl := func() time.Duration {
		return []time.Duration{NoExpiry, KeepTTL, time.Microsecond, time.Millisecond, time.Hour}[rng.IntN(5)]
	}
	for range 6000 {
		k := key()
		switch rng.IntN(16) {
		case 0, 1, 2:
			// The value begins with its key, so that a reader who follows a wrong pointer is found out.
			_ = s.Set(ctx, k, k+"="+strings.Repeat("x", rng.IntN(3000)), ttl())
		case 3, 4:
			_, _ = s.Delete(ctx, k)
		case 5:
			_, _ = s.Expire(ctx, k, ttl())
		case 6:
			_, _ = s.Incr(ctx, "n:"+k, 1, ttl())
		case 7:
			a, b := key(), key()
			_, _, _ = s.Txn(ctx, []Cond{IfExists(a)}, OpSet(a, a+"=", ttl()), OpDelete(b), OpIncr("n:"+a, 1, ttl()))
		case 8:
			last := ""
			for e, err := range s.Scan(ctx, Range{Prefix: "key:", From: k}) {
				if err != nil || e.Key <= last || !strings.HasPrefix(e.Value, e.Key+"=") {
					t.Errorf("scan: %q after %q, value %.20q, %v", e.Key, last, e.Value, err)
				}
				last = e.Key
				if rng.IntN(20) == 0 {
					break
				}
			}
		case 9, 10, 11:
			fireAtQuotas(t, s, rng)
		default:
			if v, err := s.Get(ctx, k); err == nil && !strings.HasPrefix(v, k+"=") {
				t.Errorf("get %q: %.20q", k, v)
			}
		}
	}
}

// fireAtQuotas takes from few quotas, whose states are changed in place, and reads them meanwhile.
func fireAtQuotas(t *testing.T, s *Store, rng *rand.Rand) {
	ctx := context.Background()
	n := rng.IntN(20)
	key := fmt.Sprintf("quota:%d", n)
	state := func(text string) quotaState {
		s := parseState(text)
		if s.kind != stateKinds[n%3] {
			t.Errorf("%s: no state of its kind: %q", key, text)
		}
		return s
	}
	switch rng.IntN(8) {
	case 0:
		if v, err := s.Get(ctx, key); err == nil {
			state(v)
		}
	case 1:
		for e, err := range s.Scan(ctx, Range{Prefix: key, To: key + "\x00"}) {
			if err != nil {
				t.Error(err)
			}
			state(e.Value)
		}
	case 2:
		_, _ = s.Delete(ctx, key)
	case 3:
		_, _ = s.Expire(ctx, key, []time.Duration{NoExpiry, time.Millisecond, time.Hour}[rng.IntN(3)])
	default:
		q := Quota{Refill: Refill(n % 3), Capacity: 1 << 40, Amount: 1000, Period: time.Duration(1+rng.IntN(5)) * time.Millisecond}
		if _, err := s.take(ctx, key, q, rng.Int64N(1000), rng.IntN(4) == 0); err != nil {
			t.Error(err)
		}
	}
}
