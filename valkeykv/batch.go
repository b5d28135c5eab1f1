package valkeykv

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// How the script of an operation reaches the server, if it takes one.
type delivery int

const (
	bySHA delivery = iota // a server that has not seen the script yet refuses it
	whole
)

// command returns the command that does op.
func (e *engine) command(op kv.Op, d delivery) valkey.Completed {
	b := e.client.B()
	switch op.Kind {
	case kv.KindGet:
		return b.Get().Key(op.Key).Build()
	case kv.KindSet:
		return e.setCommand(op)
	case kv.KindSetNX:
		set := b.Set().Key(op.Key).Value(seal(op.Value, "")).Nx()
		if op.TTL > 0 {
			return set.PxMilliseconds(ttlMS(op.TTL)).Build()
		}
		return set.Build()
	case kv.KindIncr:
		return e.incrCommand(op, d)
	case kv.KindExpire:
		return e.expireCommand(op, d)
	default:
		return b.Del().Key(op.Key).Build()
	}
}

func (e *engine) setCommand(op kv.Op) valkey.Completed {
	set := e.client.B().Set().Key(op.Key).Value(seal(op.Value, ""))
	switch op.TTL {
	case kv.NoExpiry:
		return set.Build()
	case kv.KeepTTL:
		return set.Keepttl().Build()
	}
	return set.PxMilliseconds(ttlMS(op.TTL)).Build()
}

// incrCommand uses INCRBY where that does the same: if a key that is created
// gets no deadline. It refuses a counter with metadata, for which the script is then sent.
func (e *engine) incrCommand(op kv.Op, d delivery) valkey.Completed {
	if op.TTL <= 0 && d == bySHA {
		return e.client.B().Incrby().Key(op.Key).Increment(op.Delta).Build()
	}
	ttl := op.TTL
	if ttl == kv.KeepTTL {
		ttl = kv.NoExpiry // of a key that is created
	}
	return e.scriptCommand(incrScript, d, op.Key, strconv.FormatInt(op.Delta, 10), ttlArg(ttl))
}

func (e *engine) expireCommand(op kv.Op, d delivery) valkey.Completed {
	switch op.TTL {
	case kv.KeepTTL:
		return e.client.B().Exists().Key(op.Key).Build()
	case kv.NoExpiry:
		return e.scriptCommand(persistScript, d, op.Key)
	}
	return e.client.B().Pexpire().Key(op.Key).Milliseconds(ttlMS(op.TTL)).Build()
}

func (e *engine) scriptCommand(s *script, d delivery, key string, args ...string) valkey.Completed {
	if d == whole {
		return s.whole(e.client, []string{key}, args)
	}
	return s.bySHA(e.client, []string{key}, args)
}

// refused says that the server did nothing because op has to be delivered whole.
func refused(op kv.Op, err error) bool {
	answer, ok := valkey.IsValkeyErr(err)
	if !ok {
		return false
	}
	return answer.IsNoScript() ||
		op.Kind == kv.KindIncr && op.TTL <= 0 && strings.HasPrefix(answer.Error(), "value is not an integer")
}

// decode returns what the answer to op means.
func decode(op kv.Op, r valkey.ValkeyResult) (result kv.Result) {
	var err error
	switch op.Kind {
	case kv.KindGet:
		result.Value, err = found(r, readFault)
		result.OK = err == nil
		if err == kv.ErrNotFound {
			err = nil
		}
		result.Err = err
		return result
	case kv.KindSet, kv.KindSetNX:
		err = r.Error()
		result.OK = err == nil
		if valkey.IsValkeyNil(err) {
			err = nil // NX: the key is there
		}
	case kv.KindIncr:
		result.Int, err = r.AsInt64() // INCRBY answers a number, the script text
		result.OK = err == nil
	default:
		result.OK, err = r.AsBool()
	}
	if err != nil {
		result.Err = writeFault(err)
	}
	return result
}

// one does a single operation.
func (e *engine) one(ctx context.Context, op kv.Op) kv.Result {
	r := e.do(ctx, e.command(op, bySHA))
	if refused(op, r.Error()) {
		r = e.do(ctx, e.command(op, whole))
	}
	return decode(op, r)
}

// Batch implements [kv.Engine].
//
// What was refused is sent again, whole, after the rest. That may change the
// order of operations, which counts only for those on one key: so those on a key with more than one are
// sent whole at once.
func (e *engine) Batch(ctx context.Context, ops []kv.Op) ([]kv.Result, error) {
	if len(ops) == 0 {
		return []kv.Result{}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	often := keysUsedOften(ops)
	cmds := make([]valkey.Completed, len(ops))
	for i, op := range ops {
		d := bySHA
		if often[op.Key] {
			d = whole
		}
		cmds[i] = e.command(op, d)
	}
	answers := e.doMulti(ctx, cmds...)
	e.again(ctx, ops, answers)
	results := make([]kv.Result, len(ops))
	for i, op := range ops {
		results[i] = decode(op, answers[i])
	}
	return results, wholeFailure(ops, answers)
}

// keysUsedOften returns the keys with more than one operation, nil if none of ops can be refused.
func keysUsedOften(ops []kv.Op) map[string]bool {
	if !slices.ContainsFunc(ops, refusable) {
		return nil
	}
	often := make(map[string]bool, len(ops))
	for _, op := range ops {
		_, used := often[op.Key]
		often[op.Key] = used
	}
	return often
}

// refusable says whether the server may refuse op unless it is delivered whole.
func refusable(op kv.Op) bool {
	return op.Kind == kv.KindIncr || op.Kind == kv.KindExpire && op.TTL == kv.NoExpiry
}

// again sends what was refused, whole, and puts the answers in their places.
func (e *engine) again(ctx context.Context, ops []kv.Op, answers []valkey.ValkeyResult) {
	var at []int
	var cmds []valkey.Completed
	for i, op := range ops {
		if refusable(op) && refused(op, answers[i].Error()) {
			at, cmds = append(at, i), append(cmds, e.command(op, whole))
		}
	}
	if len(cmds) == 0 {
		return
	}
	for i, answer := range e.doMulti(ctx, cmds...) {
		answers[at[i]] = answer
	}
}

// wholeFailure returns what stopped the whole of a batch: the fault of its first
// write, or of its first operation if it only reads, if no server answered any of it.
func wholeFailure(ops []kv.Op, answers []valkey.ValkeyResult) error {
	write := -1
	for i, answer := range answers {
		if answer.NonValkeyError() == nil {
			return nil
		}
		if write < 0 && ops[i].Kind != kv.KindGet {
			write = i
		}
	}
	if write >= 0 {
		return writeFault(answers[write].NonValkeyError())
	}
	return readFault(answers[0].NonValkeyError())
}
