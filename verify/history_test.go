package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvrecipes/kv"
)

// recorder runs programs against a store and records what happens.
type recorder struct {
	s       *kv.Store
	begin   time.Time
	mu      sync.Mutex
	history []porcupine.Operation // guarded by mu
}

// record runs the program of each client, all at the same time, and returns the history.
func record(s *kv.Store, programs [][]input) []porcupine.Operation {
	rec := &recorder{s: s, begin: time.Now()}
	ready := make(chan struct{})
	var all sync.WaitGroup
	for client, program := range programs {
		all.Go(func() {
			<-ready
			mine := make([]porcupine.Operation, len(program))
			for i, in := range program {
				mine[i] = rec.call(client, in)
			}
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.history = append(rec.history, mine...)
		})
	}
	close(ready)
	all.Wait()
	return rec.history
}

func (rec *recorder) call(client int, in input) porcupine.Operation {
	in.call = int64(time.Since(rec.begin))
	out := do(rec.s, in)
	in.ret = int64(time.Since(rec.begin))
	return porcupine.Operation{ClientId: client, Input: in, Call: in.call, Output: out, Return: in.ret}
}

var ctx = context.Background()

// do makes the call and returns what it returned. An error that a call must not have makes a result that no spec allows.
func do(s *kv.Store, in input) (out output) {
	var err error
	key := keyName(in.key)
	switch in.name {
	case "get":
		out.value, err = s.Get(ctx, key)
	case "entry":
		var e kv.Entry
		e, err = s.Entry(ctx, key)
		out.value = e.Value
	case "exists":
		out.ok, err = s.Exists(ctx, key)
	case "set":
		err = s.Set(ctx, key, in.value, in.ttl)
	case "setnx":
		out.ok, err = s.SetNX(ctx, key, in.value, in.ttl)
	case "compareandswap":
		out.ok, err = s.CompareAndSwap(ctx, key, in.old, in.value, in.ttl)
	case "compareanddelete":
		out.ok, err = s.CompareAndDelete(ctx, key, in.old)
	case "delete":
		var n int
		n, err = s.Delete(ctx, key)
		out.ok = n == 1
	case "getdelete":
		out.value, err = s.GetDelete(ctx, key)
	case "getexpire":
		out.value, err = s.GetExpire(ctx, key, in.ttl)
	case "expire":
		out.ok, err = s.Expire(ctx, key, in.ttl)
	case "incr":
		out.n, err = s.Incr(ctx, key, in.delta, in.ttl)
	case "update":
		out.n, err = update(s, key, in)
	case "txn":
		return doTxn(s, in)
	}
	switch in.name {
	case "get", "entry", "set", "getdelete", "getexpire", "incr", "update":
		out.ok = err == nil
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		out.value = "unexpected: " + err.Error()
	}
	return out
}

func update(s *kv.Store, key string, in input) (n int64, err error) {
	_, err = s.Update(ctx, key, in.ttl, func(old string, _ bool) (string, error) {
		n, _ = strconv.ParseInt(old, 10, 64)
		n += in.delta
		return strconv.FormatInt(n, 10), nil
	})
	return n, err
}

func doTxn(s *kv.Store, in input) (out output) {
	conds := make([]kv.Cond, len(in.conds))
	for i, c := range in.conds {
		switch key := keyName(c.key); c.name {
		case "ifvalue":
			conds[i] = kv.IfValue(key, c.old)
		case "ifexists":
			conds[i] = kv.IfExists(key)
		case "ifabsent":
			conds[i] = kv.IfAbsent(key)
		}
	}
	ops := make([]kv.Op, len(in.ops))
	for i, op := range in.ops {
		ops[i] = opOf(op)
	}
	ok, results, err := s.Txn(ctx, conds, ops...)
	if err != nil {
		return output{failed: errors.Is(err, kv.ErrNotInteger), value: fmt.Sprint("unexpected: ", err)}
	}
	out.ok = ok
	for _, r := range results {
		out.results = append(out.results, output{value: r.Value, n: r.Int, ok: r.OK})
	}
	return out
}

func opOf(in input) kv.Op {
	key := keyName(in.key)
	switch in.name {
	case "set":
		return kv.OpSet(key, in.value, in.ttl)
	case "setnx":
		return kv.OpSetNX(key, in.value, in.ttl)
	case "incr":
		return kv.OpIncr(key, in.delta, in.ttl)
	case "delete":
		return kv.OpDelete(key)
	}
	return kv.OpGet(key)
}

// programmer invents programs.
type programmer struct {
	r      *rand.Rand
	values []string
	ttls   []time.Duration
}

var singles = []string{
	"get", "get", "get", "entry", "exists", "set", "set", "setnx", "compareandswap", "compareandswap",
	"compareanddelete", "delete", "getdelete", "getexpire", "expire", "incr", "incr", "update",
}

func (p *programmer) pick(names []string) string { return names[p.r.IntN(len(names))] }

func (p *programmer) single() input {
	in := input{name: p.pick(singles), key: p.r.IntN(keys), old: p.pick(p.values), value: p.pick(p.values), delta: 1 + p.r.Int64N(3)}
	in.ttl = p.ttls[p.r.IntN(len(p.ttls))]
	if in.name == "set" { // of a value that nobody else sets, mostly
		in.value = strconv.Itoa(p.r.IntN(1000))
	}
	return in
}

// txn returns a transaction without deadlines: which moment counts within it is the engine's affair.
func (p *programmer) txn() input {
	in := input{name: "txn"}
	for range p.r.IntN(3) {
		name := p.pick([]string{"ifvalue", "ifexists", "ifabsent", "ifexists"})
		in.conds = append(in.conds, input{name: name, key: p.r.IntN(keys), old: p.pick(p.values)})
	}
	for range 1 + p.r.IntN(4) {
		op := p.single()
		op.ttl = kv.NoExpiry
		op.name = p.pick([]string{"get", "set", "setnx", "incr", "delete", "incr", "set"})
		in.ops = append(in.ops, op)
	}
	if p.r.IntN(3) == 0 { // one that reads all keys
		in.conds, in.ops = nil, nil
		for key := range keys {
			in.ops = append(in.ops, input{name: "get", key: key})
		}
	}
	return in
}

// programs returns n programs of so many steps each.
func (p *programmer) programs(n, steps int, step func() input) [][]input {
	all := make([][]input, n)
	for i := range all {
		all[i] = make([]input, steps)
		for j := range all[i] {
			all[i][j] = step()
		}
	}
	return all
}
