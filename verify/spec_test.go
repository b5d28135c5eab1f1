package verify

import (
	"slices"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvrecipes/kv"
)

// keys is how many keys a history is about.
const keys = 3

func keyName(i int) string { return string(rune('a' + i)) }

// input is a call of the store, output what it returned.
type input struct {
	name      string // of the method, or of the operation within a transaction
	key       int
	old       string // CompareAndSwap, CompareAndDelete, IfValue
	value     string
	delta     int64
	ttl       time.Duration
	conds     []input // of a transaction: ifvalue, ifexists, ifabsent
	ops       []input // of a transaction
	call, ret int64   // when, in ns
}

type output struct {
	value   string
	n       int64
	ok      bool
	failed  bool // the value is no integer
	results []output
}

// entry is what is known about a key. Nobody knows at which moment between call
// and return an operation happened, so a deadline lies somewhere between two times.
type entry struct {
	live        bool
	value       string
	first, last int64 // of the deadline; 0: none
}

// state is what is known about the store.
type state [keys]entry

// views returns what an operation between call and ret may find: the key live, and what is
// known of it then, or gone, or either.
func (e entry) views(call, ret int64) []entry {
	if !e.live || e.last == 0 {
		return []entry{e}
	}
	var views []entry
	if call < e.last { // it may have happened before the deadline, which then is after call
		live := e
		live.first = max(e.first, call+1)
		views = append(views, live)
	}
	if ret >= e.first {
		views = append(views, entry{})
	}
	return views
}

// deadline gives e the deadline that ttl means for an operation between call and ret.
func (e entry) deadline(ttl time.Duration, call, ret int64) entry {
	switch ttl {
	case kv.KeepTTL:
	case kv.NoExpiry:
		e.first, e.last = 0, 0
	default:
		e.first, e.last = call+int64(ttl), ret+int64(ttl)
	}
	return e
}

// apply returns what becomes of e, and what the operation returns.
func (in input) apply(e entry) (entry, output) {
	put := func(value string, ttl time.Duration) entry {
		e.live, e.value = true, value
		return e.deadline(ttl, in.call, in.ret)
	}
	switch in.name {
	case "get", "entry":
		return e, output{value: e.value, ok: e.live}
	case "exists", "ifexists":
		return e, output{ok: e.live}
	case "ifabsent":
		return e, output{ok: !e.live}
	case "ifvalue":
		return e, output{ok: e.live && e.value == in.old}
	case "set":
		return put(in.value, in.ttl), output{ok: true}
	case "setnx":
		if e.live {
			return e, output{}
		}
		return put(in.value, in.ttl), output{ok: true}
	case "compareandswap":
		if !e.live || e.value != in.old {
			return e, output{}
		}
		return put(in.value, in.ttl), output{ok: true}
	case "compareanddelete":
		if !e.live || e.value != in.old {
			return e, output{}
		}
		return entry{}, output{ok: true}
	case "delete":
		return entry{}, output{ok: e.live}
	case "getdelete":
		return entry{}, output{value: e.value, ok: e.live}
	case "expire":
		if !e.live {
			return e, output{}
		}
		return e.deadline(in.ttl, in.call, in.ret), output{ok: true}
	case "getexpire":
		if !e.live {
			return e, output{}
		}
		return e.deadline(in.ttl, in.call, in.ret), output{value: e.value, ok: true}
	case "update":
		n, _ := strconv.ParseInt(e.value, 10, 64)
		return put(strconv.FormatInt(n+in.delta, 10), in.ttl), output{n: n + in.delta, ok: true}
	case "incr":
		return in.incr(e)
	}
	panic("unknown operation " + in.name)
}

func (in input) incr(e entry) (entry, output) {
	if !e.live {
		e = entry{live: true, value: "0"}.deadline(in.ttl, in.call, in.ret)
	}
	n, err := strconv.ParseInt(e.value, 10, 64)
	if err != nil {
		return e, output{failed: true}
	}
	e.value = strconv.FormatInt(n+in.delta, 10)
	return e, output{n: n + in.delta, ok: true}
}

// next returns the states in which the store may be after a call that returned out.
func next(s state, in input, out output) []state {
	var after []state
	if in.name != "txn" {
		for _, view := range s[in.key].views(in.call, in.ret) {
			if e, got := in.apply(view); got.equal(out) {
				s[in.key] = e
				after = append(after, s)
			}
		}
		return after
	}
	for _, view := range allViews(s, in) {
		if got, returned := in.txn(view); returned.equal(out) && !slices.Contains(after, got) {
			after = append(after, got)
		}
	}
	return after
}

// allViews returns what a transaction may find under all keys.
func allViews(s state, in input) []state {
	views := []state{s}
	for i := range s {
		var with []state
		for _, v := range views {
			for _, e := range s[i].views(in.call, in.ret) {
				v[i] = e
				with = append(with, v)
			}
		}
		views = with
	}
	return views
}

// txn returns what becomes of s, and what the transaction returns.
func (in input) txn(s state) (state, output) {
	for _, c := range in.conds {
		if _, holds := c.apply(s[c.key]); !holds.ok {
			return s, output{}
		}
	}
	before := s
	out := output{ok: true}
	for _, op := range in.ops {
		op.call, op.ret = in.call, in.ret
		e, result := op.apply(s[op.key])
		if result.failed {
			return before, output{failed: true}
		}
		s[op.key] = e
		out.results = append(out.results, result)
	}
	return s, out
}

func (o output) equal(other output) bool {
	return o.value == other.value && o.n == other.n && o.ok == other.ok && o.failed == other.failed &&
		slices.EqualFunc(o.results, other.results, output.equal)
}

// spec is how a store behaves that does one thing after the other.
var spec = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{state{}} },
	Step: func(s, in, out any) []any {
		var after []any
		for _, next := range next(s.(state), in.(input), out.(output)) {
			after = append(after, next)
		}
		return after
	},
	Equal: func(a, b any) bool { return a == b },
}).ToModel()

// perKey is spec for histories without transactions, in which every key has a history of its own.
var perKey = func() porcupine.Model {
	m := spec
	m.Partition = byKey
	return m
}()

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	parts := make([][]porcupine.Operation, keys)
	for _, o := range history {
		key := o.Input.(input).key
		parts[key] = append(parts[key], o)
	}
	return parts
}
