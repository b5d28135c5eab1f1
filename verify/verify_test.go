package verify

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kvrecipes/kv"
)

var (
	soak = flag.Duration("soak", 2*time.Second, "how long each test goes on")
	seed = flag.Uint64("seed", 0, "run the programs of this seed alone; 0: new ones in each round")
)

// rounds calls round with one seed after the other until the time is up.
func rounds(t *testing.T, round func(t *testing.T, r *rand.Rand)) {
	n := 0
	for begin := time.Now(); time.Since(begin) < *soak || n == 0; n++ {
		s := *seed
		if s == 0 {
			s = rand.Uint64()
		}
		round(t, rand.New(rand.NewPCG(s, 0)))
		if t.Failed() {
			t.Fatalf("round %d; its programs again: go test -run '^%s$' . -seed %d", n, t.Name(), s)
		}
	}
	t.Logf("%d rounds", n)
}

// check fails the test unless the history is possible, and prints what is wrong with it.
func check(t *testing.T, model porcupine.Model, history []porcupine.Operation) {
	t.Helper()
	if porcupine.CheckOperations(model, history) {
		return
	}
	for _, o := range history {
		t.Logf("%8d to %8d ns, client %d: %+v -> %+v", o.Call, o.Return, o.ClientId, o.Input, o.Output)
	}
	t.Error("no order of these operations explains what they returned")
}

// shardsOf are settings that make a difference for who meets whom.
var shardsOf = []int{1, 2, 0}

// TestKeysAreLinearizable: every single-key method is one atomic step, and the history of each key is linearizable.
func TestKeysAreLinearizable(t *testing.T) {
	rounds(t, func(t *testing.T, r *rand.Rand) {
		p := &programmer{r: r, values: []string{"1", "2", "3"}, ttls: []time.Duration{kv.NoExpiry, kv.KeepTTL, time.Hour}}
		runKeys(t, p)
	})
}

// TestExpiringKeysAreLinearizable: and no method treats a key as live at or after its deadline, nor as gone before.
func TestExpiringKeysAreLinearizable(t *testing.T) {
	rounds(t, func(t *testing.T, r *rand.Rand) {
		ttls := []time.Duration{1, time.Microsecond, 5 * time.Microsecond, 20 * time.Microsecond, 100 * time.Microsecond, time.Millisecond, kv.NoExpiry, kv.KeepTTL}
		p := &programmer{r: r, values: []string{"1", "2", "3"}, ttls: ttls}
		runKeys(t, p)
	})
}

func runKeys(t *testing.T, p *programmer) {
	s := kv.New(&kv.Options{Shards: shardsOf[p.r.IntN(len(shardsOf))], ReapInterval: time.Millisecond})
	defer s.Close()
	check(t, perKey, record(s, p.programs(2+p.r.IntN(4), 100, p.single)))
}

// TestTransactionsAreLinearizable: with each other and with single-key methods, across keys.
func TestTransactionsAreLinearizable(t *testing.T) {
	rounds(t, func(t *testing.T, r *rand.Rand) {
		p := &programmer{r: r, values: []string{"1", "2", "3"}, ttls: []time.Duration{kv.NoExpiry}}
		s := kv.New(&kv.Options{Shards: shardsOf[r.IntN(len(shardsOf))]})
		defer s.Close()
		step := func() input {
			if r.IntN(2) == 0 {
				return p.txn()
			}
			return p.single()
		}
		check(t, spec, record(s, p.programs(2+r.IntN(3), 30, step)))
	})
}

// TestEffectsOfTransactionsInOrder: no single-key read that follows a read of a transaction's effects sees a state before it.
func TestEffectsOfTransactionsInOrder(t *testing.T) {
	rounds(t, func(t *testing.T, r *rand.Rand) {
		p := &programmer{r: r}
		s := kv.New(&kv.Options{Shards: shardsOf[r.IntN(len(shardsOf))]})
		defer s.Close()
		programs := p.programs(3, 60, func() input { return input{name: "get", key: r.IntN(keys)} })
		writer := p.programs(1, 30, func() input {
			in := input{name: "txn"}
			for _, key := range r.Perm(keys) {
				in.ops = append(in.ops, input{name: "incr", key: key, delta: 1})
			}
			return in
		})
		check(t, spec, record(s, append(programs, writer...)))
	})
}

// operation is a line of a made-up history.
func operation(client int, call, ret int64, in input, out output) porcupine.Operation {
	in.call, in.ret = call, ret
	return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret}
}

// TestWhatTheSpecAllows shows that the tests above can fail: each history is
// possible with the one result, and impossible with the other.
func TestWhatTheSpecAllows(t *testing.T) {
	set := func(value string, ttl time.Duration) input { return input{name: "set", value: value, ttl: ttl} }
	get := input{name: "get"}
	incr := input{name: "incr", delta: 1}
	hit := func(value string) output { return output{value: value, ok: true} }
	done := output{ok: true}
	both := input{name: "txn", ops: []input{{name: "set", value: "1"}, {name: "set", key: 1, value: "1"}}}
	bothDone := output{ok: true, results: []output{done, done}}
	getB := input{name: "get", key: 1}
	for _, c := range []struct {
		name      string
		before    []porcupine.Operation
		last      input
		call, ret int64
		good, bad output
	}{
		{"a read after a write", []porcupine.Operation{operation(0, 0, 1, set("1", 0), done), operation(0, 2, 3, set("2", 0), done)}, get, 4, 5, hit("2"), hit("1")},
		{"a read beside a write", []porcupine.Operation{operation(0, 0, 1, set("1", 0), done), operation(0, 2, 9, set("2", 0), done)}, get, 4, 5, hit("1"), hit("3")},
		{"a lost update", []porcupine.Operation{operation(0, 0, 9, incr, output{n: 1, ok: true})}, incr, 1, 8, output{n: 2, ok: true}, output{n: 1, ok: true}},
		{"before the deadline", []porcupine.Operation{operation(0, 0, 1, set("1", 10), done)}, get, 2, 3, hit("1"), output{}},
		{"about the deadline", []porcupine.Operation{operation(0, 0, 1, set("1", 10), done)}, get, 9, 12, output{}, hit("2")},
		{"at the deadline", []porcupine.Operation{operation(0, 0, 1, set("1", 10), done)}, get, 11, 12, output{}, hit("1")},
		{"gone, and back", []porcupine.Operation{operation(0, 0, 1, set("1", 10), done), operation(0, 10, 11, get, output{})}, get, 12, 13, output{}, hit("1")},
		{"two winners", []porcupine.Operation{operation(0, 0, 9, input{name: "setnx", value: "1"}, done)}, input{name: "setnx", value: "2"}, 0, 9, output{}, done},
		{"half a transaction", []porcupine.Operation{operation(0, 0, 9, both, bothDone), operation(1, 1, 2, get, hit("1"))}, getB, 3, 4, hit("1"), output{}},
		{"half a transaction, other keys first", []porcupine.Operation{operation(0, 0, 9, both, bothDone), operation(1, 1, 2, getB, hit("1"))}, get, 3, 4, hit("1"), output{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !porcupine.CheckOperations(spec, append(c.before, operation(2, c.call, c.ret, c.last, c.good))) {
				t.Error("a possible history counts as impossible")
			}
			if porcupine.CheckOperations(spec, append(c.before, operation(2, c.call, c.ret, c.last, c.bad))) {
				t.Error("an impossible history counts as possible")
			}
		})
	}
}

// TestFaultsAreFound: a store whose Incr is a Get and a Set is found out.
func TestFaultsAreFound(t *testing.T) {
	for round := range 10_000 {
		s := kv.New(nil)
		history := recordTorn(s)
		_ = s.Close()
		if !porcupine.CheckOperations(perKey, history) {
			t.Logf("after %d rounds", round)
			return
		}
	}
	t.Error("a counter that loses updates is not found out")
}

// recordTorn records increments that are a read and a write.
func recordTorn(s *kv.Store) []porcupine.Operation {
	rec := &recorder{s: s, begin: time.Now()}
	both := make(chan []porcupine.Operation, 2)
	for client := range 2 {
		go func() {
			var mine []porcupine.Operation
			for range 50 {
				in := input{name: "incr", delta: 1, call: int64(time.Since(rec.begin))}
				old, _ := s.Get(ctx, keyName(0))
				var n int64
				_, _ = fmt.Sscan(old, &n)
				_ = s.Set(ctx, keyName(0), fmt.Sprint(n+1), 0)
				in.ret = int64(time.Since(rec.begin))
				mine = append(mine, porcupine.Operation{ClientId: client, Input: in, Call: in.call, Output: output{n: n + 1, ok: true}, Return: in.ret})
			}
			both <- mine
		}()
	}
	return append(<-both, <-both...)
}
