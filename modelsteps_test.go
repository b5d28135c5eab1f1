package kv_test

import (
	"errors"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// step does one random thing to the store and the model.
func (m *model) step() {
	switch n := m.r.IntN(100); {
	case n < 10:
		m.pass()
	case n < 25:
		m.stepBatch()
	case n < 35:
		m.stepTxn()
	case n < 50:
		m.stepRead()
	case n < 60:
		m.stepPut()
	case n < 66:
		m.stepMany()
	case n < 72:
		m.compareScan(m.between())
	case n < 75:
		m.comparePages(m.between(), 1+m.r.IntN(30))
	case n < 76:
		m.stepDeletePrefix()
	case n < 86:
		m.stepTake()
	default:
		m.stepSingle()
	}
	m.settle()
	m.collect()
}

// pass lets time pass: often to just before or just at a deadline.
func (m *model) pass() {
	d := time.Duration(m.r.Int64N(int64(2 * time.Second)))
	if m.r.IntN(20) == 0 {
		d = time.Duration(m.r.Int64N(int64(10 * time.Minute)))
	}
	if e := m.live[m.key()]; !e.ExpiresAt.IsZero() && time.Until(e.ExpiresAt) < time.Hour {
		d = time.Until(e.ExpiresAt) - time.Duration(m.r.IntN(2))
	}
	time.Sleep(d)
	m.settle()
}

// single compares what a method on one key says with what the model says.
func (m *model) single(name string, want, got kv.Result, err error) {
	if want.Err != nil || err != nil {
		if !errors.Is(err, want.Err) {
			m.t.Fatalf("%s: error %v, want %v", name, err, want.Err)
		}
		want.Err = nil
	}
	m.equal(want, got, "%s", name)
}

// stepSingle writes a key by one of the methods that have an operation of their own.
func (m *model) stepSingle() {
	op := m.op()
	want := m.apply(op)
	var got kv.Result
	var err error
	switch op.Kind {
	case kv.KindGet:
		got.Value, err = m.s.Get(m.ctx, op.Key)
		if got.OK = err == nil; err == kv.ErrNotFound {
			err = nil
		}
	case kv.KindSet:
		got.OK, err = true, m.s.Set(m.ctx, op.Key, op.Value, op.TTL)
	case kv.KindSetNX:
		got.OK, err = m.s.SetNX(m.ctx, op.Key, op.Value, op.TTL)
	case kv.KindIncr:
		got.Int, err = m.s.Incr(m.ctx, op.Key, op.Delta, op.TTL)
		got.OK = err == nil
	case kv.KindExpire:
		got.OK, err = m.s.Expire(m.ctx, op.Key, op.TTL)
	case kv.KindDelete:
		var n int
		n, err = m.s.Delete(m.ctx, op.Key)
		got.OK = n == 1
	}
	m.single(op.Kind.String()+" "+strconv.Quote(op.Key), want, got, err)
}

// stepTake takes from the quota of one of a few keys, so that states are met again.
func (m *model) stepTake() {
	i := m.r.IntN(6)
	key := m.keys[i]
	q := kv.Quota{Refill: kv.Refill(i % 3), Capacity: 12, Amount: 7, Period: 4 * time.Second}
	if m.r.IntN(8) == 0 { // the state is of another kind
		q.Refill = kv.Refill(m.r.IntN(3))
	}
	n, dry := int64(m.r.IntN(16)-4), m.r.IntN(8) == 0
	e, live := m.live[key]
	next, ttl, want, wantErr := q.Take(e.Value, time.Now().UnixMicro(), n)
	got, err := kv.Take(m.ctx, m.s, key, q, n, dry)
	if !errors.Is(err, wantErr) {
		m.t.Fatalf("take from %q: error %v, want %v", e.Value, err, wantErr)
	}
	m.equal(want, got, "take %d from %q", n, e.Value)
	switch {
	case err != nil || dry || next == e.Value:
	case next == "":
		m.remove(key)
	case !live || ttl > 0:
		m.put(kv.Entry{Key: key, Value: next, ExpiresAt: m.deadline(key, ttl)})
	}
}

func (m *model) stepBatch() {
	ops := m.ops(40)
	want := make([]kv.Result, len(ops))
	for i, op := range ops {
		want[i] = m.apply(op)
	}
	got, err := m.s.Batch(m.ctx, ops...)
	require.NoError(m.t, err)
	for i := range got {
		m.single("batch", want[i], kv.Result{Value: got[i].Value, Int: got[i].Int, OK: got[i].OK}, got[i].Err)
	}
}

func (m *model) stepTxn() {
	conds, ops := m.conds(), m.ops(12)
	wantOK, want, wantErr := m.txn(conds, ops)
	ok, got, err := m.s.Txn(m.ctx, conds, ops...)
	if !errors.Is(err, wantErr) {
		m.t.Fatalf("txn: error %v, want %v", err, wantErr)
	}
	m.equal(wantOK, ok, "txn")
	m.equal(want, got, "txn")
}

// stepRead compares one key with the model by all methods that look at it.
func (m *model) stepRead() {
	key := m.key()
	want, live := m.live[key]
	if !live {
		_, err := m.s.Entry(m.ctx, key)
		require.ErrorIs(m.t, err, kv.ErrNotFound)
		_, err = m.s.TTL(m.ctx, key)
		require.ErrorIs(m.t, err, kv.ErrNotFound)
		return
	}
	got, err := m.s.Entry(m.ctx, key)
	require.NoError(m.t, err)
	m.equal(want, got, "entry")
	ttl, err := m.s.TTL(m.ctx, key)
	require.NoError(m.t, err)
	if want.ExpiresAt.IsZero() {
		m.equal(kv.NoExpiry, ttl, "ttl")
	} else {
		m.equal(time.Until(want.ExpiresAt), ttl, "ttl")
	}
}

// stepPut writes a key by one of the methods that no operation does.
func (m *model) stepPut() {
	e := kv.Entry{Key: m.key(), Value: m.value(), Metadata: `{"n":` + strconv.Itoa(m.r.IntN(1000)) + `}`, ExpiresAt: m.deadline("", m.ttl())}
	old, live := m.live[e.Key]
	ttl := m.ttl()
	switch m.r.IntN(5) {
	case 0:
		e.ExpiresAt = time.Now().Add(-time.Duration(m.r.Int64N(int64(2 * time.Hour))))
		require.NoError(m.t, m.s.Put(m.ctx, e))
		m.remove(e.Key)
	case 1:
		swapped, err := m.s.CompareAndSwap(m.ctx, e.Key, old.Value, e.Value, ttl)
		require.NoError(m.t, err)
		m.equal(live, swapped, "compareandswap")
		if live {
			m.put(kv.Entry{Key: e.Key, Value: e.Value, Metadata: old.Metadata, ExpiresAt: m.deadline(e.Key, ttl)})
		}
	case 2:
		value, err := m.s.GetExpire(m.ctx, e.Key, ttl)
		m.equal(live, err == nil, "getexpire: %v", err)
		m.equal(old.Value, value, "getexpire")
		m.apply(kv.OpExpire(e.Key, ttl))
	case 3:
		value, err := m.s.Update(m.ctx, e.Key, ttl, func(was string, exists bool) (string, error) {
			m.equal(old.Value, was, "update")
			m.equal(live, exists, "update")
			return e.Value, nil
		})
		require.NoError(m.t, err)
		m.equal(e.Value, value, "update")
		m.put(kv.Entry{Key: e.Key, Value: e.Value, Metadata: old.Metadata, ExpiresAt: m.deadline(e.Key, ttl)})
	default:
		require.NoError(m.t, m.s.Put(m.ctx, e))
		m.put(e)
	}
}

// stepMany reads and deletes some keys at once.
func (m *model) stepMany() {
	keys, want := []string{}, map[string]string{}
	for range m.r.IntN(20) {
		key := m.key()
		keys = append(keys, key)
		if e, live := m.live[key]; live {
			want[key] = e.Value
		}
	}
	got, err := m.s.GetMany(m.ctx, keys...)
	require.NoError(m.t, err)
	m.equal(want, got, "getmany")
	if m.r.IntN(2) == 0 || len(keys) == 0 {
		return
	}
	key := keys[0]
	value, err := m.s.GetDelete(m.ctx, key)
	m.equal(m.live[key].Value, value, "getdelete")
	m.equal(m.remove(key), err == nil, "getdelete: %v", err)
	n, err := m.s.Delete(m.ctx, keys...)
	require.NoError(m.t, err)
	for _, key := range keys {
		if m.remove(key) {
			n--
		}
	}
	m.equal(0, n, "delete")
}

func (m *model) stepDeletePrefix() {
	prefix := m.key()[:1]
	want := m.in(kv.Range{Prefix: prefix})
	n, err := m.s.Count(m.ctx, prefix)
	require.NoError(m.t, err)
	m.equal(len(want), n, "count")
	n, err = m.s.DeletePrefix(m.ctx, prefix)
	require.NoError(m.t, err)
	m.equal(len(want), n, "deleteprefix")
	for _, e := range want {
		m.remove(e.Key)
	}
}

func (m *model) compareScan(r kv.Range) {
	var got []kv.Entry
	for e, err := range m.s.Scan(m.ctx, r) {
		require.NoError(m.t, err)
		got = append(got, e)
	}
	m.equal(m.in(r), got, "scan %+v", r)
}

func (m *model) comparePages(r kv.Range, limit int) {
	var got []kv.Entry
	cursor := ""
	for {
		entries, next, err := m.s.Page(m.ctx, r, cursor, limit)
		require.NoError(m.t, err)
		got = append(got, entries...)
		if cursor = next; next == "" {
			break
		}
	}
	m.equal(m.in(r), got, "pages %+v", r)
}
