package valkeykv

import (
	"context"
	"fmt"
	"strconv"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// txn is a transaction as its script takes it.
type txn struct {
	keys  []string       // each once
	index map[string]int // of keys, from 1
	args  []string
}

func newTxn(conds []kv.Cond, ops []kv.Op) *txn {
	t := &txn{index: make(map[string]int)}
	t.args = make([]string, 1, 1+3*len(conds)+4*len(ops))
	t.args[0] = strconv.Itoa(len(conds))
	for _, c := range conds {
		t.args = append(t.args, condNames[c.Kind], t.key(c.Key), c.Value)
	}
	for _, op := range ops {
		value, ttl := op.Value, op.TTL
		if op.Kind == kv.KindIncr {
			value = strconv.FormatInt(op.Delta, 10)
		}
		if ttl == kv.KeepTTL && (op.Kind == kv.KindIncr || op.Kind == kv.KindSetNX) {
			ttl = kv.NoExpiry // of a key that is created
		}
		t.args = append(t.args, op.Kind.String(), t.key(op.Key), value, ttlArg(ttl))
	}
	return t
}

var condNames = map[kv.CondKind]string{kv.KindValue: "value", kv.KindExists: "exists", kv.KindAbsent: "absent"}

// key returns the index of key among the keys.
func (t *txn) key(key string) string {
	i, ok := t.index[key]
	if !ok {
		t.keys = append(t.keys, key)
		i = len(t.keys)
		t.index[key] = i
	}
	return strconv.Itoa(i)
}

// Txn implements [kv.Engine].
func (e *engine) Txn(ctx context.Context, conds []kv.Cond, ops []kv.Op) (bool, []kv.Result, error) {
	t := newTxn(conds, ops)
	if len(t.keys) == 0 {
		return true, []kv.Result{}, ctx.Err()
	}
	if e.cluster && !e.oneSlot(t.keys) {
		return false, nil, kv.ErrCrossSlot
	}
	fields, err := e.run(ctx, txnScript, t.keys, t.args...).ToArray()
	if err != nil {
		return false, nil, writeFault(err)
	}
	switch outcome, _ := fields[0].AsInt64(); outcome {
	case 0:
		return false, nil, nil
	case 1:
		answers, err := fields[1].ToArray()
		return err == nil, txnResults(ops, answers), err
	}
	return false, nil, t.failure(fields)
}

// failure returns why the script could not do the transaction, as an error on the key that is to blame.
func (t *txn) failure(fields []valkey.ValkeyMessage) error {
	code, _ := fields[2].ToString()
	i, _ := fields[3].AsInt64()
	kind := answers[code]
	if kind == nil {
		return fmt.Errorf("unexpected answer %q of a transaction", code)
	}
	return &kv.Error{Op: "txn", Key: t.keys[i-1], Err: kind}
}

func txnResults(ops []kv.Op, answers []valkey.ValkeyMessage) []kv.Result {
	results := make([]kv.Result, len(ops))
	for i, op := range ops {
		if op.Kind == kv.KindGet { // the script has opened the envelope
			value, err := answers[i].ToString()
			results[i] = kv.Result{Value: value, OK: err == nil}
			continue
		}
		results[i] = decode(op, valkey.NewResult(answers[i], nil))
	}
	return results
}

// oneSlot says whether keys share a hash slot.
func (e *engine) oneSlot(keys []string) bool {
	slot := e.slot(keys[0])
	for _, key := range keys[1:] {
		if e.slot(key) != slot {
			return false
		}
	}
	return true
}

// slot returns the hash slot of key, by the client's own computation.
func (e *engine) slot(key string) uint16 {
	cmd := e.client.B().Get().Key(key).Build()
	return cmd.Slot() % slots
}

const slots = 16384 // of a cluster
