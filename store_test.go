package kv_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// newStore returns a store in memory that is closed, and whose parts have to agree with each other, at the end of the test.
func newStore(t *testing.T, opts *kv.Options) *kv.Store {
	s := kv.New(opts)
	t.Cleanup(func() {
		require.NoError(t, kv.CheckInvariants(s))
		require.NoError(t, s.Close())
	})
	return s
}

// liveHeap returns the bytes of what is reachable.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a finalizer or a pool kept for one more round
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// scaled returns n, less of it where everything is slow.
func scaled(n int) int {
	if underRace || testing.Short() {
		return n / 10
	}
	return n
}

func TestGetAllocatesNothing(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	ns := s.Namespace("app")
	var value string
	var err error
	for _, size := range []int{0, 1, 64, 4 << 10, 1 << 20, kv.DefaultMaxValueBytes} {
		for _, ttl := range []time.Duration{kv.NoExpiry, time.Hour, time.Minute} {
			require.NoError(t, ns.Set(ctx, "key", strings.Repeat("v", size), ttl))
			allocs := testing.AllocsPerRun(100, func() { value, err = s.Get(ctx, "app:key") })
			require.NoError(t, err)
			require.Len(t, value, size)
			require.Zerof(t, allocs, "a value of %d bytes, ttl %v", size, ttl)
			allocs = testing.AllocsPerRun(100, func() { value, err = ns.Get(ctx, "key") })
			require.LessOrEqual(t, allocs, 1.0, "a namespace may allocate the joined key")
		}
	}
	_, err = s.Incr(ctx, "counter", 1099511627776, time.Hour)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { value, err = s.Get(ctx, "counter") }), "a counter")
	require.Equal(t, "1099511627776", value)
	require.Zero(t, testing.AllocsPerRun(100, func() { value, err = s.Get(ctx, "missing") }), "a miss")
	require.Equal(t, kv.ErrNotFound, err)
	//lint:ignore SA1012 a nil ctx is promised to work
	require.Zero(t, testing.AllocsPerRun(100, func() { value, err = s.Get(nil, "missing") }), "a nil ctx")
}

func TestOverwriteAllocatesOnceAtMost(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	values := []string{strings.Repeat("a", 64), strings.Repeat("b", 64)}
	i := 0
	allocs := testing.AllocsPerRun(1000, func() {
		i++
		_ = s.Set(ctx, "key", values[i%2], kv.NoExpiry)
	})
	require.LessOrEqual(t, allocs, 1.0)
}

func TestNilContext(t *testing.T) {
	s := newStore(t, nil)
	var ctx context.Context
	require.NoError(t, s.Set(ctx, "key", "1", time.Hour))
	_, err := s.Now(ctx)
	require.NoError(t, err)
	_, err = s.Entry(ctx, "key")
	require.NoError(t, err)
	_, err = s.GetMany(ctx, "key", "missing")
	require.NoError(t, err)
	_, err = s.GetExpire(ctx, "key", time.Hour)
	require.NoError(t, err)
	_, err = s.Exists(ctx, "key")
	require.NoError(t, err)
	_, err = s.TTL(ctx, "key")
	require.NoError(t, err)
	require.NoError(t, s.SetMany(ctx, map[string]string{"a": "1", "b": "2"}, 0))
	require.NoError(t, s.Put(ctx, kv.Entry{Key: "key", Value: "1"}))
	_, err = s.SetNX(ctx, "key", "2", 0)
	require.NoError(t, err)
	_, err = s.CompareAndSwap(ctx, "key", "1", "2", 0)
	require.NoError(t, err)
	_, err = s.Update(ctx, "key", 0, func(string, bool) (string, error) { return "3", nil })
	require.NoError(t, err)
	_, err = s.Incr(ctx, "key", 1, 0)
	require.NoError(t, err)
	_, err = s.Expire(ctx, "key", 0)
	require.NoError(t, err)
	_, err = s.Batch(ctx, kv.OpGet("key"))
	require.NoError(t, err)
	_, _, err = s.Txn(ctx, nil, kv.OpGet("key"))
	require.NoError(t, err)
	for _, err := range s.Scan(ctx, kv.Range{}) {
		require.NoError(t, err)
	}
	_, _, err = s.Page(ctx, kv.Range{}, "", 1)
	require.NoError(t, err)
	_, err = s.Count(ctx, "")
	require.NoError(t, err)
	w, err := s.Watch(ctx, "")
	require.NoError(t, err)
	w.Stop()
	_, err = s.CompareAndDelete(ctx, "key", "4")
	require.NoError(t, err)
	_, err = s.GetDelete(ctx, "a")
	require.NoError(t, err)
	_, err = s.Delete(ctx, "b")
	require.NoError(t, err)
	_, err = s.DeletePrefix(ctx, "")
	require.NoError(t, err)
}

// TestPointOperationsIgnoreContext: in memory they need not ask.
func TestPointOperationsIgnoreContext(t *testing.T) {
	s := newStore(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Set(ctx, "key", "1", 0))
	value, err := s.Get(ctx, "key")
	require.NoError(t, err)
	require.Equal(t, "1", value)
	n, err := s.Incr(ctx, "key", 1, 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	deleted, err := s.Delete(ctx, "key")
	require.NoError(t, err)
	require.Equal(t, 1, deleted)
}

func TestLimitsOfOptions(t *testing.T) {
	s := newStore(t, &kv.Options{MaxKeyBytes: 5, MaxValueBytes: 3, MaxMetadataBytes: 4, MaxBatch: 2})
	ctx := t.Context()
	require.NoError(t, s.Set(ctx, "12345", "123", 0))
	require.ErrorIs(t, s.Set(ctx, "123456", "123", 0), kv.ErrInvalidKey)
	require.ErrorIs(t, s.Set(ctx, "12345", "1234", 0), kv.ErrTooLarge)
	require.NoError(t, s.Namespace("ns").Set(ctx, "45", "v", 0))
	require.ErrorIs(t, s.Namespace("ns").Set(ctx, "456", "v", 0), kv.ErrInvalidKey)
	require.NoError(t, s.Put(ctx, kv.Entry{Key: "k", Metadata: `"ab"`}))
	require.ErrorIs(t, s.Put(ctx, kv.Entry{Key: "k", Metadata: `"abc"`}), kv.ErrTooLarge)
	_, err := s.Delete(ctx, "1", "2", "3")
	require.ErrorIs(t, err, kv.ErrTooLarge)
	_, _, err = s.Txn(ctx, []kv.Cond{kv.IfAbsent("1")}, kv.OpSet("1", "", 0), kv.OpSet("2", "", 0))
	require.ErrorIs(t, err, kv.ErrTooLarge)
	_, _, err = s.Txn(ctx, []kv.Cond{kv.IfAbsent("1")}, kv.OpSet("1", "", 0))
	require.NoError(t, err)
	n, err := s.DeletePrefix(ctx, "") // whatever a batch may hold
	require.NoError(t, err)
	require.Equal(t, 4, n)
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, &kv.Options{ReapInterval: time.Minute})
		ctx := t.Context()
		ns := s.Namespace("ns")
		require.Equal(t, kv.Stats{}, s.Stats())
		require.NoError(t, s.Set(ctx, "key", "value", time.Second))
		require.NoError(t, ns.Put(ctx, kv.Entry{Key: "k", Value: "v", Metadata: `{"a":1}`}))
		require.Equal(t, kv.Stats{Keys: 2, Bytes: 8 + 5 + 7}, s.Stats())
		require.Equal(t, s.Stats(), ns.Stats())
		time.Sleep(10 * time.Second) // expired, not yet reclaimed
		_, err := s.Get(ctx, "key")
		require.Equal(t, kv.ErrNotFound, err)
		require.NoError(t, s.Set(ctx, "key", "v", time.Second)) // reclaimed by the writer
		require.Equal(t, kv.Stats{Keys: 2, Bytes: 4 + 5 + 7, Expired: 1}, s.Stats())
		time.Sleep(2 * time.Minute) // by the reaper
		require.Equal(t, kv.Stats{Keys: 1, Bytes: 5 + 7, Expired: 2}, s.Stats())
		_, err = ns.Delete(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, kv.Stats{Expired: 2}, s.Stats())
	})
}

func TestDeletingMissingKeysDoesNotGrow(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	before := liveHeap()
	key := []byte("key:")
	for i := range scaled(10_000_000) {
		n, err := s.Delete(ctx, string(strconv.AppendInt(key, int64(i), 10)))
		if n != 0 || err != nil {
			t.Fatalf("Delete: %d, %v", n, err)
		}
	}
	require.Less(t, liveHeap()-before, int64(1<<20))
	require.Zero(t, s.Stats())
}

// TestMemoryComesBack: a lock or a claim lives for microseconds, a cache is dropped as a whole.
func TestMemoryComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, nil)
		ctx := t.Context()
		before := liveHeap()
		left := func() int64 {
			synctest.Wait() // for what the store does behind the caller
			return liveHeap() - before
		}
		n := scaled(300_000)
		for round := range 2 {
			for i := range n {
				require.NoError(t, s.Set(ctx, fmt.Sprintf("%d:user:%d", round, i), "a value of some thirty bytes ...", time.Duration(i%3)*time.Hour))
			}
			require.EqualValues(t, n, s.Stats().Keys)
			require.Greater(t, left(), int64(n*60))
			deleted, err := s.DeletePrefix(ctx, "")
			require.NoError(t, err)
			require.Equal(t, n, deleted)
			require.Less(t, left(), int64(4<<20), "after deleting everything")
		}
		for i := range n {
			key := "lock:" + strconv.Itoa(i)
			stored, err := s.SetNX(ctx, key, "token", 30*time.Second)
			require.True(t, stored && err == nil)
			deleted, err := s.CompareAndDelete(ctx, key, "token")
			require.True(t, deleted && err == nil)
		}
		require.Less(t, left(), int64(4<<20), "after taking and releasing locks")
	})
}

// TestOverwritingDoesNotGrow: values that were overwritten must not pile up.
func TestOverwritingDoesNotGrow(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	before := liveHeap()
	values := []string{strings.Repeat("a", 300), strings.Repeat("b", 20), strings.Repeat("c", 4000)}
	for i := range scaled(1_000_000) {
		require.NoError(t, s.Set(ctx, "key"+strconv.Itoa(i*7%100), values[i%3], kv.NoExpiry))
	}
	require.Less(t, liveHeap()-before, int64(8<<20))
}

// TestValuesHandedOutNeverChange holds on to values while their memory would be used again.
func TestValuesHandedOutNeverChange(t *testing.T) {
	s := newStore(t, &kv.Options{Shards: 2})
	ctx := t.Context()
	type held struct{ key, value, want string }
	var all []held
	valueOf := func(i int) string { return strings.Repeat(strconv.Itoa(i)+".", 1+i%50) }
	for i := range scaled(200_000) {
		key := "key" + strconv.Itoa(i*i%997)
		require.NoError(t, s.Set(ctx, key, valueOf(i), kv.NoExpiry))
		if i%10 == 0 {
			e, err := s.Entry(ctx, key)
			require.NoError(t, err)
			all = append(all, held{e.Key, e.Value, valueOf(i)})
		}
		if i%13 == 0 {
			_, err := s.Delete(ctx, "key"+strconv.Itoa(i%997))
			require.NoError(t, err)
		}
	}
	_, err := s.DeletePrefix(ctx, "")
	require.NoError(t, err)
	for i := range 50_000 {
		require.NoError(t, s.Set(ctx, strconv.Itoa(i), "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", kv.NoExpiry))
	}
	for _, h := range all {
		if h.value != h.want || !strings.HasPrefix(h.key, "key") {
			t.Fatalf("%q had the value %q when it was read, now %q", h.key, h.want, h.value)
		}
	}
}

// TestStoreCopies: a key or value must not keep a string alive that it was cut from.
func TestStoreCopies(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	before := liveHeap()
	for i := range 50 {
		large := strings.Repeat(strconv.Itoa(i%9+1), 1<<20)
		require.NoError(t, s.Set(ctx, large[:20]+strconv.Itoa(i), large[100:120], kv.NoExpiry))
		require.NoError(t, s.Put(ctx, kv.Entry{Key: large[:21], Value: large[:5], Metadata: large[:3]}))
	}
	require.Less(t, liveHeap()-before, int64(10<<20))
}

func TestEngineErrors(t *testing.T) {
	s := newStore(t, nil)
	require.EqualError(t, s.Set(t.Context(), strings.Repeat("k", 600), "v", 0),
		`kv: set "`+strings.Repeat("k", 64)+`"...: `+kv.ErrInvalidKey.Error())
	_, err := s.TTL(t.Context(), "missing")
	require.EqualError(t, err, `kv: ttl "missing": not found`)
}

// TestReadersBesideFirstWrites: a store grows from nothing while it is read.
func TestReadersBesideFirstWrites(t *testing.T) {
	ctx := t.Context()
	for range scaled(1000) {
		s := kv.New(&kv.Options{Shards: 1})
		read := func() error {
			for i := 0; i < 20; {
				value, err := s.Get(ctx, strconv.Itoa(i))
				if err == nil && value != "value" {
					return fmt.Errorf("key %d has the value %q", i, value)
				}
				if err == nil {
					i++
				}
			}
			return nil
		}
		write := func() error {
			for i := range 20 {
				if err := s.Set(ctx, strconv.Itoa(i), "value", kv.NoExpiry); err != nil {
					return err
				}
			}
			return nil
		}
		require.NoError(t, inParallel(read, read, write))
		require.NoError(t, s.Close())
	}
}

// TestReadersBesideOverwrites: a value is the one or the other, never a mixture and never another key's, while
// records move about and their memory is let go.
func TestReadersBesideOverwrites(t *testing.T) {
	s := newStore(t, &kv.Options{Shards: 2})
	ctx := t.Context()
	const keys = 100
	valueOf := func(key string, i int) string { return strings.Repeat(key+".", 1+i*i%200) }
	var stop atomic.Bool
	write := func() error {
		defer stop.Store(true)
		for i := range scaled(300_000) {
			key := strconv.Itoa(i * 7 % keys)
			if i%11 == 0 {
				if _, err := s.Delete(ctx, key); err != nil {
					return err
				}
				continue
			}
			if err := s.Set(ctx, key, valueOf(key, i), time.Duration(i%2)*time.Hour); err != nil {
				return err
			}
		}
		return nil
	}
	read := func() error {
		for i := 0; !stop.Load(); i++ {
			key := strconv.Itoa(i % keys)
			value, err := s.Get(ctx, key)
			if err == kv.ErrNotFound {
				continue
			}
			if n := len(key) + 1; len(value)%n != 0 || len(value) == 0 || strings.Count(value, key+".") != len(value)/n {
				return fmt.Errorf("key %q has the value %q (%w)", key, value, err)
			}
		}
		return nil
	}
	require.NoError(t, inParallel(write, read, read))
}
