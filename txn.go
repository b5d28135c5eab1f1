package kv

import (
	"context"
	"slices"
)

// Batch implements [Engine].
func (m *memory) Batch(_ context.Context, ops []Op) ([]Result, error) {
	results := make([]Result, len(ops))
	for i := range ops {
		if ahead := i + batchAhead; ahead < len(ops) {
			m.prefetchHome(ops[ahead].Key)
		}
		if ops[i].Kind == KindGet {
			results[i] = m.get(ops[i].Key)
			continue
		}
		var w writing
		w.begin(m, ops[i].Key)
		results[i] = w.apply(&ops[i])
		w.unlock()
	}
	return results, nil
}

// batchAhead is how many operations ahead of its turn a key's bucket is asked for.
const batchAhead = 8

func (m *memory) get(key string) Result {
	rec, live := m.find(key)
	if !live {
		return Result{}
	}
	return Result{Value: rec.value(), OK: true}
}

// apply does one operation on the key that w has found.
func (w *writing) apply(op *Op) Result {
	switch op.Kind {
	case KindGet:
		if !w.live {
			return Result{}
		}
		return Result{Value: w.rec.value(), OK: true}
	case KindSet:
		err := w.put(op.Value, "", w.deadlineFor(op.TTL))
		return Result{OK: err == nil, Err: err}
	case KindSetNX:
		if w.live {
			return Result{}
		}
		err := w.put(op.Value, "", w.deadlineFor(op.TTL))
		return Result{OK: err == nil, Err: err}
	case KindIncr:
		sum, err := w.incr(op.Delta, op.TTL)
		return Result{Int: sum, OK: err == nil, Err: err}
	case KindExpire:
		if !w.live {
			return Result{}
		}
		err := w.expire(op.TTL)
		return Result{OK: err == nil, Err: err}
	case KindDelete:
		if w.live {
			w.delete()
		}
		return Result{OK: w.live}
	}
	return Result{Err: ErrUnsupported}
}

// A transaction holds the locks of all shards that it touches, and keeps
// readers out of them while it writes, so that nobody sees a part of it.
type transaction struct {
	instant // one for all: a key does not expire between two operations
	engine  *memory
	shards  []*shard // by number
}

// Txn implements [Engine].
func (m *memory) Txn(_ context.Context, conds []Cond, ops []Op) (bool, []Result, error) {
	t := transaction{instant: instant{clock: &m.clock}, engine: m}
	t.lock(conds, ops)
	defer t.unlock()
	for i := range conds {
		if !t.holds(&conds[i]) {
			return false, nil, nil
		}
	}
	if err := t.check(ops); err != nil {
		return false, nil, err
	}
	results := make([]Result, len(ops))
	for i := range ops {
		w := t.find(ops[i].Key)
		results[i] = w.apply(&ops[i])
		if err := results[i].Err; err != nil {
			return false, nil, wrap("txn", ops[i].Key, err)
		}
	}
	return true, results, nil
}

func (t *transaction) lock(conds []Cond, ops []Op) {
	for i := range conds {
		t.shards = append(t.shards, t.engine.shard(t.engine.hash(conds[i].Key)))
	}
	for i := range ops {
		t.shards = append(t.shards, t.engine.shard(t.engine.hash(ops[i].Key)))
	}
	slices.SortFunc(t.shards, func(a, b *shard) int { return int(a.number) - int(b.number) })
	t.shards = slices.Compact(t.shards)
	for _, sh := range t.shards {
		sh.mu.Lock()
	}
	t.now() // with all locks held: later than every write that this transaction follows
	for _, sh := range t.shards {
		sh.beginLocked()
	}
}

func (t *transaction) unlock() {
	for _, sh := range t.shards {
		sh.endLocked()
	}
	for _, sh := range t.shards {
		sh.unlock()
	}
}

func (t *transaction) find(key string) writing {
	h := t.engine.hash(key)
	w := writing{shard: t.engine.shard(h), instant: t.instant}
	w.findLocked(key, h.slot())
	return w
}

func (t *transaction) holds(c *Cond) bool {
	w := t.find(c.Key)
	switch c.Kind {
	case KindValue:
		return w.live && w.rec.value() == c.Value
	case KindExists:
		return w.live
	}
	return !w.live
}

// check says whether an operation would fail, by playing the transaction
// through on the values alone. Only increments can fail.
func (t *transaction) check(ops []Op) error {
	if !slices.ContainsFunc(ops, func(op Op) bool { return op.Kind == KindIncr }) {
		return nil
	}
	played := make(map[string]*int64OrText)
	for i := range ops {
		op := &ops[i]
		v := played[op.Key]
		if v == nil {
			v = t.read(op.Key)
			played[op.Key] = v
		}
		if err := v.play(op); err != nil {
			return wrap("txn", op.Key, err)
		}
	}
	return nil
}

// int64OrText is a value while a transaction is played through.
type int64OrText struct {
	live, integer bool
	n             int64
}

func (t *transaction) read(key string) *int64OrText {
	w := t.find(key)
	v := &int64OrText{}
	if w.live {
		v.set(w.rec.value())
	}
	return v
}

func (v *int64OrText) set(value string) {
	v.live = true
	v.n, v.integer = parseInteger(value)
}

func (v *int64OrText) play(op *Op) error {
	switch op.Kind {
	case KindSet:
		v.set(op.Value)
	case KindSetNX:
		if !v.live {
			v.set(op.Value)
		}
	case KindDelete:
		*v = int64OrText{}
	case KindIncr:
		if v.live && !v.integer {
			return ErrNotInteger
		}
		sum, ok := addInteger(v.n, op.Delta)
		if !ok {
			return ErrOverflow
		}
		*v = int64OrText{live: true, integer: true, n: sum}
	}
	return nil
}
