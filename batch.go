package kv

import (
	"context"
	"slices"
	"time"
)

// OpKind says what an [Op] does.
type OpKind uint8

// The kinds of operations.
const (
	KindGet OpKind = iota + 1
	KindSet
	KindSetNX
	KindIncr
	KindExpire
	KindDelete
)

// Op is one operation of a [Store.Batch] or [Store.Txn]. Make it with [OpGet]
// and its siblings; engines read its fields.
type Op struct {
	Kind  OpKind
	Key   string
	Value string        // KindSet, KindSetNX
	Delta int64         // KindIncr
	TTL   time.Duration // KindSet, KindSetNX, KindIncr, KindExpire
}

// OpGet reads a key, as [Store.Get]; a missing key is no error but Result.OK false.
func OpGet(key string) Op { return Op{Kind: KindGet, Key: key} }

// OpSet stores a value without metadata, as [Store.Set].
func OpSet(key, value string, ttl time.Duration) Op {
	return Op{Kind: KindSet, Key: key, Value: value, TTL: ttl}
}

// OpSetNX stores a value if the key is not there, as [Store.SetNX].
func OpSetNX(key, value string, ttl time.Duration) Op {
	return Op{Kind: KindSetNX, Key: key, Value: value, TTL: ttl}
}

// OpIncr adds delta to a counter, as [Store.Incr].
func OpIncr(key string, delta int64, ttl time.Duration) Op {
	return Op{Kind: KindIncr, Key: key, Delta: delta, TTL: ttl}
}

// OpExpire changes a deadline, as [Store.Expire].
func OpExpire(key string, ttl time.Duration) Op { return Op{Kind: KindExpire, Key: key, TTL: ttl} }

// OpDelete deletes a key, as [Store.Delete].
func OpDelete(key string) Op { return Op{Kind: KindDelete, Key: key} }

// Result is what became of one [Op].
type Result struct {
	Value string // OpGet: the value
	Int   int64  // OpIncr: the new value
	OK    bool   // OpGet, OpExpire, OpDelete: the key was there; OpSet, OpSetNX: stored; OpIncr: true
	Err   error  // of this operation alone; always nil in a transaction
}

// CondKind says what a [Cond] asks for.
type CondKind uint8

// The kinds of conditions.
const (
	KindValue CondKind = iota + 1
	KindExists
	KindAbsent
)

// Cond is a condition of a [Store.Txn]. Make it with [IfValue] and its
// siblings; engines read its fields.
type Cond struct {
	Kind  CondKind
	Key   string
	Value string // KindValue

	whole bool // Key already has its namespace, see [Lock.Held]
}

// IfValue holds if key is live and has exactly this value.
func IfValue(key, value string) Cond { return Cond{Kind: KindValue, Key: key, Value: value} }

// IfExists holds if key is live.
func IfExists(key string) Cond { return Cond{Kind: KindExists, Key: key} }

// IfAbsent holds if key is not live.
func IfAbsent(key string) Cond { return Cond{Kind: KindAbsent, Key: key} }

// Batch applies ops in one round trip per node of the engine. They are
// independent: each succeeds or fails alone, result i belonging to ops[i], and
// the error is only for what stopped the whole call. A bad key, ttl or value is
// that operation's own Result.Err. Up to 10,000 operations, else [ErrTooLarge] and nothing is applied.
func (s *Store) Batch(ctx context.Context, ops ...Op) ([]Result, error) {
	if err := s.checkBatch(len(ops)); err != nil {
		return nil, wrap("batch", "", err)
	}
	bad := func(op Op) bool { return s.checkOp(op) != nil }
	if s.prefix != "" || slices.ContainsFunc(ops, bad) {
		return s.batchGood(ctx, ops)
	}
	results, err := s.engine.Batch(background(ctx), ops) // without a copy: there is nothing to rename or to leave out
	if err != nil {
		return nil, wrap("batch", "", err)
	}
	for i := range results {
		if err := results[i].Err; err != nil {
			results[i].Err = wrap(ops[i].Kind.String(), ops[i].Key, err)
		}
	}
	return results, nil
}

// batchGood applies those of ops that are good, by their whole keys.
func (s *Store) batchGood(ctx context.Context, ops []Op) ([]Result, error) {
	results := make([]Result, len(ops))
	good := make([]Op, 0, len(ops))
	at := make([]int, 0, len(ops)) // good[i] is ops[at[i]]
	for i, op := range ops {
		if err := s.checkOp(op); err != nil {
			results[i].Err = wrap(op.Kind.String(), op.Key, err)
			continue
		}
		op.Key = s.whole(op.Key)
		good, at = append(good, op), append(at, i)
	}
	applied, err := s.engine.Batch(background(ctx), good)
	if err != nil {
		return nil, wrap("batch", "", err)
	}
	for i, r := range applied {
		op := ops[at[i]]
		r.Err = wrap(op.Kind.String(), op.Key, r.Err)
		results[at[i]] = r
	}
	return results, nil
}

// many is Batch for the methods on many keys: every operation is checked before
// the first is applied, and one that fails fails the call.
func (s *Store) many(ctx context.Context, name string, ops []Op) ([]Result, error) {
	if err := s.checkBatch(len(ops)); err != nil {
		return nil, wrap(name, "", err)
	}
	for i := range ops {
		if err := s.checkOp(ops[i]); err != nil {
			return nil, wrap(name, ops[i].Key, err)
		}
		ops[i].Key = s.whole(ops[i].Key)
	}
	if len(ops) == 0 {
		return nil, nil
	}
	results, err := s.engine.Batch(background(ctx), ops)
	if err != nil {
		return nil, wrap(name, "", err)
	}
	for i, r := range results {
		if r.Err != nil {
			return results, wrap(name, s.strip(ops[i].Key), r.Err)
		}
	}
	return results, nil
}

func firstError(results []Result) error {
	for _, r := range results {
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}

// Txn applies ops, in order and each seeing the ones before it, if all of conds
// hold: all or nothing, and isolated. Another Txn sees all of it or nothing, and
// no single-key read that follows a read of its effects sees a state before it.
//
// ok is false and results nil when a condition does not hold; nothing is applied
// then. An operation that would fail ([ErrNotInteger], say) fails the whole
// transaction; OpSetNX on an existing key is no failure, its Result.OK is false.
// Up to 10,000 conditions and operations together, else [ErrTooLarge].
//
// In memory the keys may be any; on a Valkey cluster all must share a hash slot, else [ErrCrossSlot].
func (s *Store) Txn(ctx context.Context, conds []Cond, ops ...Op) (ok bool, results []Result, err error) {
	if err := s.checkBatch(len(conds) + len(ops)); err != nil {
		return false, nil, wrap("txn", "", err)
	}
	wholeConds := make([]Cond, len(conds))
	for i, c := range conds {
		if wholeConds[i], err = s.wholeCond(c); err != nil {
			return false, nil, wrap("txn", c.Key, err)
		}
	}
	wholeOps := make([]Op, len(ops))
	for i, op := range ops {
		if err := s.checkOp(op); err != nil {
			return false, nil, wrap("txn", op.Key, err)
		}
		wholeOps[i] = op
		wholeOps[i].Key = s.whole(op.Key)
	}
	ok, results, err = s.engine.Txn(background(ctx), wholeConds, wholeOps)
	if e, is := err.(*Error); is { // of one operation
		return false, nil, wrap("txn", s.strip(e.Key), e.Err)
	}
	return ok, results, wrap("txn", "", err)
}

func (s *Store) wholeCond(c Cond) (Cond, error) {
	if c.Kind < KindValue || c.Kind > KindAbsent {
		return c, ErrUnsupported
	}
	if c.whole {
		return c, nil
	}
	if err := s.checkKey(c.Key); err != nil {
		return c, err
	}
	c.Key, c.whole = s.whole(c.Key), true
	return c, nil
}

func (s *Store) checkBatch(n int) error {
	if s.root.closed.Load() {
		return ErrClosed
	}
	if n > s.root.limits.MaxBatch {
		return ErrTooLarge
	}
	return nil
}

// checkOp returns what is wrong with op, nil if nothing. An Op that none of the constructors made is ErrUnsupported.
func (s *Store) checkOp(op Op) error {
	switch op.Kind {
	case KindGet, KindDelete:
		return s.checkKey(op.Key)
	case KindSet, KindSetNX, KindIncr, KindExpire:
		return s.checkWrite(op.Key, op.Value, op.TTL)
	}
	return ErrUnsupported
}

// String returns the name of the method that does the same, in lower case.
func (k OpKind) String() string {
	switch k {
	case KindGet:
		return "get"
	case KindSet:
		return "set"
	case KindSetNX:
		return "setnx"
	case KindIncr:
		return "incr"
	case KindExpire:
		return "expire"
	case KindDelete:
		return "delete"
	}
	return "op"
}
