package kv_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

var seed = flag.Uint64("seed", 0, "run the model test with this seed alone")

// TestModel does random operations on a store and on a plain map, side by side.
// Every result must be the same, so must be every event of a watch, and the
// parts of the engine must agree with each other in the end.
func TestModel(t *testing.T) {
	if *seed != 0 {
		runModel(t, *seed)
		return
	}
	for range 10 {
		runModel(t, rand.Uint64())
	}
}

func runModel(t *testing.T, seed uint64) {
	t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
		t.Logf("replay with: go test -run TestModel . -seed %d", seed)
		synctest.Test(t, func(t *testing.T) {
			m := newModel(t, seed)
			for range 1500 {
				m.step()
			}
			m.finish()
		})
	})
}

// model is what a store should do.
type model struct {
	t       *testing.T
	r       *rand.Rand
	ctx     context.Context
	s       *kv.Store
	w       *kv.Watcher
	keys    []string
	live    map[string]kv.Entry // and those whose deadline has passed since settle
	expired int64
	want    map[string][]kv.Event // by key
	got     map[string][]kv.Event
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, ctx: t.Context(), r: rand.New(rand.NewPCG(seed, 0)),
		live: map[string]kv.Entry{}, want: map[string][]kv.Event{}, got: map[string][]kv.Event{},
	}
	m.s = kv.New(&kv.Options{Shards: []int{0, 1, 3}[m.r.IntN(3)], ReapInterval: time.Duration(m.r.IntN(3)) * 500 * time.Millisecond})
	t.Cleanup(func() { require.NoError(t, m.s.Close()) })
	var err error
	m.w, err = m.s.Watch(m.ctx, "")
	require.NoError(t, err)
	for i := range 10 + m.r.IntN(200) {
		m.keys = append(m.keys, []string{"a", "b:", "b\xff", "\x00"}[i%4]+strconv.Itoa(i/4))
	}
	return m
}

// finish waits until all that has expired is reclaimed, and compares what is left.
func (m *model) finish() {
	for key := range m.live { // no more deadlines from here on
		found, err := m.s.Expire(m.ctx, key, kv.NoExpiry)
		require.NoError(m.t, err)
		require.True(m.t, found)
		m.apply(kv.OpExpire(key, kv.NoExpiry))
	}
	time.Sleep(2 * time.Second)
	m.compareStats()
	m.compareScan(kv.Range{})
	m.collect()
	m.equal(m.want, m.got, "events")
	m.compareStats() // reading has made text of numbers
	require.NoError(m.t, kv.CheckInvariants(m.s))
}

func (m *model) compareStats() {
	stats := kv.Stats{Keys: int64(len(m.live)), Expired: m.expired}
	for _, e := range m.live {
		stats.Bytes += int64(len(e.Key) + len(e.Value) + len(e.Metadata))
	}
	m.equal(stats, m.s.Stats(), "stats")
}

func (m *model) equal(want, got any, what string, args ...any) {
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Fatalf("%s: want -, got +:\n%s", fmt.Sprintf(what, args...), diff)
	}
}

// settle removes what has expired.
func (m *model) settle() {
	for key, e := range m.live {
		if !e.ExpiresAt.IsZero() && !time.Now().Before(e.ExpiresAt) {
			delete(m.live, key)
			m.expired++
			m.want[key] = append(m.want[key], kv.Event{Type: kv.EventExpire, Entry: e})
		}
	}
}

// collect takes what the watch has received.
func (m *model) collect() {
	for len(m.w.Events()) > 0 {
		e := <-m.w.Events()
		m.got[e.Entry.Key] = append(m.got[e.Entry.Key], e)
	}
	require.NoError(m.t, m.w.Err())
}

func (m *model) put(e kv.Entry) {
	m.live[e.Key] = e
	m.want[e.Key] = append(m.want[e.Key], kv.Event{Type: kv.EventPut, Entry: e})
}

func (m *model) remove(key string) bool {
	e, ok := m.live[key]
	if ok {
		delete(m.live, key)
		m.want[key] = append(m.want[key], kv.Event{Type: kv.EventDelete, Entry: e})
	}
	return ok
}

func (m *model) deadline(key string, ttl time.Duration) time.Time {
	switch ttl {
	case kv.NoExpiry:
		return time.Time{}
	case kv.KeepTTL:
		return m.live[key].ExpiresAt
	}
	return time.Now().Add(ttl)
}

// apply does what a store does with an operation.
func (m *model) apply(op kv.Op) (r kv.Result) {
	e, ok := m.live[op.Key]
	switch op.Kind {
	case kv.KindGet:
		return kv.Result{Value: e.Value, OK: ok}
	case kv.KindSet:
		m.put(kv.Entry{Key: op.Key, Value: op.Value, ExpiresAt: m.deadline(op.Key, op.TTL)})
		return kv.Result{OK: true}
	case kv.KindSetNX:
		if !ok {
			m.put(kv.Entry{Key: op.Key, Value: op.Value, ExpiresAt: m.deadline(op.Key, op.TTL)})
		}
		return kv.Result{OK: !ok}
	case kv.KindIncr:
		return m.incr(op, e, ok)
	case kv.KindExpire:
		if ok {
			e.ExpiresAt = m.deadline(op.Key, op.TTL)
			m.live[op.Key] = e
		}
		return kv.Result{OK: ok}
	}
	return kv.Result{OK: m.remove(op.Key)}
}

func (m *model) incr(op kv.Op, e kv.Entry, live bool) kv.Result {
	if !live {
		e = kv.Entry{Key: op.Key, Value: "0", ExpiresAt: m.deadline(op.Key, op.TTL)}
	}
	n, err := strconv.ParseInt(e.Value, 10, 64)
	switch {
	case err != nil || strconv.FormatInt(n, 10) != e.Value:
		return kv.Result{Err: kv.ErrNotInteger}
	case op.Delta > 0 && n > math.MaxInt64-op.Delta, op.Delta < 0 && n < math.MinInt64-op.Delta:
		return kv.Result{Err: kv.ErrOverflow}
	}
	e.Value = strconv.FormatInt(n+op.Delta, 10)
	m.put(e)
	return kv.Result{Int: n + op.Delta, OK: true}
}

func (m *model) holds(c kv.Cond) bool {
	e, ok := m.live[c.Key]
	switch c.Kind {
	case kv.KindAbsent:
		return !ok
	case kv.KindExists:
		return ok
	}
	return ok && e.Value == c.Value
}

// txn does what a store does with a transaction.
func (m *model) txn(conds []kv.Cond, ops []kv.Op) (bool, []kv.Result, error) {
	for _, c := range conds {
		if !m.holds(c) {
			return false, nil, nil
		}
	}
	live, events := maps.Clone(m.live), maps.Clone(m.want)
	results := make([]kv.Result, len(ops))
	for i, op := range ops {
		if results[i] = m.apply(op); results[i].Err != nil {
			m.live, m.want = live, events
			return false, nil, results[i].Err
		}
	}
	return true, results, nil
}

// in returns the entries of r in its order.
func (m *model) in(r kv.Range) []kv.Entry {
	var entries []kv.Entry
	for _, key := range slices.Sorted(maps.Keys(m.live)) {
		if strings.HasPrefix(key, r.Prefix) && key >= r.From && (r.To == "" || key < r.To) {
			e := m.live[key]
			if r.KeysOnly {
				e.Value, e.Metadata = "", ""
			}
			entries = append(entries, e)
		}
	}
	if r.Reverse {
		slices.Reverse(entries)
	}
	return entries
}

func (m *model) key() string { return m.keys[m.r.IntN(len(m.keys))] }

func (m *model) value() string {
	switch m.r.IntN(12) {
	case 0:
		return "9223372036854775800"
	case 1:
		return ""
	case 2:
		return strings.Repeat("x", m.r.IntN(5000))
	case 3:
		return strings.Repeat("long", 20_000+m.r.IntN(20_000))
	case 4:
		return "text"
	}
	return strconv.Itoa(m.r.IntN(5))
}

func (m *model) ttl() time.Duration {
	switch m.r.IntN(8) {
	case 0, 1:
		return kv.NoExpiry
	case 2, 3:
		return kv.KeepTTL
	case 4:
		return 100 * 365 * 24 * time.Hour
	case 5:
		return time.Duration(1 + m.r.Int64N(int64(100*time.Hour)))
	}
	return time.Duration(1 + m.r.Int64N(int64(3*time.Second)))
}

func (m *model) op() kv.Op {
	key, ttl := m.key(), m.ttl()
	switch m.r.IntN(6) {
	case 0:
		return kv.OpGet(key)
	case 1:
		return kv.OpSet(key, m.value(), ttl)
	case 2:
		return kv.OpSetNX(key, m.value(), ttl)
	case 3:
		return kv.OpIncr(key, int64(m.r.IntN(20)-10), ttl)
	case 4:
		return kv.OpExpire(key, ttl)
	}
	return kv.OpDelete(key)
}

func (m *model) ops(n int) []kv.Op {
	ops := make([]kv.Op, m.r.IntN(n))
	for i := range ops {
		ops[i] = m.op()
	}
	return ops
}

func (m *model) conds() []kv.Cond {
	conds := make([]kv.Cond, m.r.IntN(3))
	for i := range conds {
		key := m.key()
		value := m.live[key].Value
		if m.r.IntN(4) == 0 {
			value = m.value()
		}
		conds[i] = []kv.Cond{kv.IfValue(key, value), kv.IfValue(key, value), kv.IfExists(key), kv.IfAbsent(key)}[m.r.IntN(4)]
	}
	return conds
}

func (m *model) bound() string {
	if m.r.IntN(3) == 0 {
		return ""
	}
	return m.key()[:1+m.r.IntN(2)]
}

func (m *model) between() kv.Range {
	r := kv.Range{Prefix: m.bound(), Reverse: m.r.IntN(2) == 0, KeysOnly: m.r.IntN(2) == 0}
	if m.r.IntN(2) == 0 {
		r.From, r.To = m.bound(), m.bound()
	}
	return r
}
