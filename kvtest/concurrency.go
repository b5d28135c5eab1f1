package kvtest

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/kvrecipes/kv"
)

const goroutines = 64

var concurrencyCases = []testCase{
	{
		name:     "concurrency/counter",
		contract: "Every single-key method is one atomic step on every engine: goroutines incrementing one key lose nothing.",
		run: func(e *env) {
			const each = 200
			returned := make([]map[int64]bool, goroutines)
			e.parallel(goroutines, func(g int) error {
				returned[g] = map[int64]bool{}
				for range each {
					n, err := e.store.Incr(e.ctx, "counter", 1, 0)
					if err != nil {
						return err
					}
					returned[g][n] = true
				}
				return nil
			})
			e.value("counter", fmt.Sprint(goroutines*each))
			all := map[int64]bool{}
			for _, some := range returned {
				for n := range some {
					e.Falsef(all[n], "%d was returned twice", n)
					all[n] = true
				}
			}
			e.Len(all, goroutines*each)
		},
	},
	{
		name:     "concurrency/counter by every method",
		contract: "Every single-key method is one atomic step on every engine (Update: its write is).",
		run: func(e *env) {
			const each = 40
			e.set(e.key("counter"), "0", kv.NoExpiry)
			e.parallel(goroutines/2, func(g int) error {
				for range each {
					if err := e.increment(g%5, e.key("counter")); err != nil {
						return err
					}
				}
				return nil
			})
			e.value(e.key("counter"), fmt.Sprint(goroutines/2*each))
		},
	},
	{
		name:     "concurrency/SetNX",
		contract: "SetNX stores value if key is not live: of many callers one stores.",
		run: func(e *env) {
			for round := range 20 {
				key := fmt.Sprint("key", round)
				var winners atomic.Int64
				var winner atomic.Value
				e.parallel(goroutines, func(g int) error {
					stored, err := e.store.SetNX(e.ctx, key, fmt.Sprint(g), 0)
					if stored {
						winners.Add(1)
						winner.Store(fmt.Sprint(g))
					}
					return err
				})
				e.EqualValues(1, winners.Load())
				e.value(key, winner.Load().(string))
			}
		},
	},
	{
		name:     "concurrency/one of many takes",
		contract: "GetDelete: one-time tokens; CompareAndDelete, Delete: one atomic step.",
		run: func(e *env) {
			take := map[string]func(key string) (bool, error){
				"getdelete": func(key string) (bool, error) {
					value, err := e.store.GetDelete(e.ctx, key)
					return value == "v", ignoreMiss(err)
				},
				"compareanddelete": func(key string) (bool, error) { return e.store.CompareAndDelete(e.ctx, key, "v") },
				"delete":           func(key string) (bool, error) { n, err := e.store.Delete(e.ctx, key); return n == 1, err },
				"compareandswap":   func(key string) (bool, error) { return e.store.CompareAndSwap(e.ctx, key, "v", "w", 0) },
			}
			for name, f := range take {
				for round := range 10 {
					key := fmt.Sprint(name, round)
					e.set(key, "v", kv.NoExpiry)
					var winners atomic.Int64
					e.parallel(goroutines, func(int) error {
						won, err := f(key)
						if won {
							winners.Add(1)
						}
						return err
					})
					e.EqualValues(1, winners.Load(), name)
				}
			}
		},
	},
	{
		name:     "concurrency/CompareAndSwap chains",
		contract: "the history of each key is linearizable: CompareAndSwap chains lose nothing.",
		run: func(e *env) {
			const each = 25
			e.set("chain", "", kv.NoExpiry)
			e.parallel(8, func(g int) error {
				for range each {
					if err := e.append("chain", string(rune('a'+g))); err != nil {
						return err
					}
				}
				return nil
			})
			chain, err := e.store.Get(e.ctx, "chain")
			e.NoError(err)
			count := map[rune]int{}
			for _, c := range chain {
				count[c]++
			}
			e.Len(count, 8)
			for c, n := range count {
				e.Equalf(each, n, "links of %q", c)
			}
		},
	},
	{
		name:     "concurrency/transfers",
		contract: "Txn: all or nothing and isolated: another Txn sees all of it or nothing.",
		run: func(e *env) {
			b := newBank(e, 10, 1000)
			var stop atomic.Bool
			var sums atomic.Int64
			e.parallel(12, func(g int) error {
				if g >= 8 {
					for first := true; first || !stop.Load(); first = false {
						if err := b.checkSum(); err != nil {
							return err
						}
						sums.Add(1)
					}
					return nil
				}
				defer func() {
					if g == 0 {
						stop.Store(true)
					}
				}()
				for i := range 150 {
					if err := b.transfer(g, g+i, g*i+i/3+1); err != nil {
						return err
					}
				}
				return nil
			})
			e.NoError(b.checkSum())
			e.Positive(sums.Load())
		},
	},
	{
		name:     "concurrency/effects in order",
		contract: "no single-key read that follows a read of its effects sees a state before it.",
		run: func(e *env) {
			keys := []string{e.key("a"), e.key("b"), e.key("c"), e.key("d")}
			set := func(n int) error {
				ops := make([]kv.Op, len(keys))
				for i, key := range keys {
					ops[(i+n)%len(keys)] = kv.OpSet(key, strconv.Itoa(n), 0)
				}
				_, _, err := e.store.Txn(e.ctx, nil, ops...)
				return err
			}
			e.NoError(set(0))
			var stop atomic.Bool
			e.parallel(5, func(g int) error {
				if g == 0 {
					defer stop.Store(true)
					for n := range 1000 {
						if err := set(n); err != nil {
							return err
						}
					}
					return nil
				}
				for i := g; !stop.Load(); i++ {
					if err := e.ascending(keys[i%len(keys)], keys[(i+g)%len(keys)]); err != nil {
						return err
					}
				}
				return nil
			})
		},
	},
	{
		name:     "concurrency/scan while writing",
		contract: "every key that is live throughout is returned, and each entry is a value that the key really had during the scan.",
		run: func(e *env) {
			stay := e.fill("stay", 1000)
			var stop atomic.Bool
			e.parallel(4, func(g int) error {
				if g == 0 {
					defer stop.Store(true)
					for range 20 {
						if err := e.scanStaying(len(stay)); err != nil {
							return err
						}
					}
					return nil
				}
				for i := 0; !stop.Load(); i++ {
					key := fmt.Sprintf("stay%04d", (i*7)%1000)
					if err := e.store.Set(e.ctx, key, key[4:]+"!", 0); err != nil {
						return err
					}
					other := fmt.Sprintf("%c%d", 's'+byte(i%2), (i*13+g)%500) // between and after the others
					if _, err := e.store.Batch(e.ctx, kv.OpSet(other, "x", 0), kv.OpDelete(other)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	},
	{
		name:     "concurrency/creation and deletion",
		contract: "the history of each key is linearizable.",
		run: func(e *env) {
			var held atomic.Int64 // whoever creates the key has it alone until it deletes it
			var turns atomic.Int64
			e.parallel(8, func(g int) error {
				for turns.Load() < 500 {
					won, err := e.store.SetNX(e.ctx, "turn", fmt.Sprint(g), 0)
					if err != nil {
						return err
					}
					if !won {
						runtime.Gosched()
						continue
					}
					if held.Add(1) != 1 {
						return errors.New("two goroutines have created the key")
					}
					turns.Add(1)
					held.Add(-1)
					if deleted, err := e.store.CompareAndDelete(e.ctx, "turn", fmt.Sprint(g)); err != nil || !deleted {
						return fmt.Errorf("a key that nobody else deletes is gone: %w", err)
					}
				}
				return nil
			})
		},
	},
}

// increment adds 1 to key in one of five ways.
func (e *env) increment(way int, key string) error {
	add := func(old string) string {
		n, _ := strconv.Atoi(old)
		return strconv.Itoa(n + 1)
	}
	switch way {
	case 0:
		_, err := e.store.Incr(e.ctx, key, 1, 0)
		return err
	case 1:
		_, err := e.store.Update(e.ctx, key, 0, func(old string, _ bool) (string, error) { return add(old), nil })
		return err
	case 2:
		_, err := e.store.Batch(e.ctx, kv.OpIncr(key, 1, 0))
		return err
	case 3:
		_, _, err := e.store.Txn(e.ctx, nil, kv.OpIncr(key, 1, 0))
		return err
	}
	for {
		old, err := e.store.Get(e.ctx, key)
		if err != nil {
			return err
		}
		ok, _, err := e.store.Txn(e.ctx, []kv.Cond{kv.IfValue(key, old)}, kv.OpSet(key, add(old), 0))
		if ok || err != nil {
			return err
		}
		runtime.Gosched()
	}
}

// append appends link to the value of key by compare-and-swap.
func (e *env) append(key, link string) error {
	for {
		old, err := e.store.Get(e.ctx, key)
		if err != nil {
			return err
		}
		swapped, err := e.store.CompareAndSwap(e.ctx, key, old, old+link, kv.KeepTTL)
		if swapped || err != nil {
			return err
		}
		runtime.Gosched()
	}
}

// ascending reads two keys, one after the other, that transactions raise together.
func (e *env) ascending(first, second string) error {
	a, err := e.store.Get(e.ctx, first)
	if err != nil {
		return err
	}
	b, err := e.store.Get(e.ctx, second)
	if err != nil {
		return err
	}
	before, _ := strconv.Atoi(a)
	after, _ := strconv.Atoi(b)
	if after < before {
		return fmt.Errorf("%q shows transaction %d, and after that %q shows %d", first, before, second, after)
	}
	return nil
}

// scanStaying checks that a scan yields the n keys that stay, with values that they had.
func (e *env) scanStaying(n int) error {
	seen := 0
	previous := ""
	for entry, err := range e.store.Scan(e.ctx, kv.Range{Prefix: "stay"}) {
		if err != nil {
			return err
		}
		if !e.h.Unordered && entry.Key <= previous {
			return fmt.Errorf("%q comes after %q", entry.Key, previous)
		}
		previous = entry.Key
		number, _ := strconv.Atoi(entry.Key[4:])
		if entry.Value != strconv.Itoa(number) && entry.Value != entry.Key[4:]+"!" {
			return fmt.Errorf("%q never had the value %q", entry.Key, entry.Value)
		}
		seen++
	}
	if seen != n {
		return fmt.Errorf("a scan yields %d keys of %d that are live throughout", seen, n)
	}
	return nil
}

// bank is some accounts between which transactions move money.
type bank struct {
	e        *env
	accounts []string
	sum      int64
}

func newBank(e *env, accounts int, each int64) *bank {
	b := &bank{e: e, sum: int64(accounts) * each}
	for i := range accounts {
		b.accounts = append(b.accounts, e.key(fmt.Sprint("account", i)))
		e.set(b.accounts[i], fmt.Sprint(each), kv.NoExpiry)
	}
	return b
}

// transfer moves an amount, in one of three ways.
func (b *bank) transfer(way, from, to int) error {
	source, target := b.accounts[from%len(b.accounts)], b.accounts[to%len(b.accounts)]
	if source == target {
		return nil
	}
	if way%2 == 0 {
		_, _, err := b.e.store.Txn(b.e.ctx, nil, kv.OpIncr(source, -3, 0), kv.OpIncr(target, 3, 0))
		return err
	}
	values, err := b.e.store.GetMany(b.e.ctx, source, target)
	if err != nil {
		return err
	}
	has, _ := strconv.Atoi(values[source])
	gets, _ := strconv.Atoi(values[target])
	conds := []kv.Cond{kv.IfValue(source, values[source]), kv.IfValue(target, values[target])}
	_, _, err = b.e.store.Txn(b.e.ctx, conds, // if somebody else comes between, nothing moves
		kv.OpDelete(source), kv.OpSet(target, strconv.Itoa(gets+5), 0), kv.OpSetNX(source, strconv.Itoa(has-5), 0))
	return err
}

// checkSum returns an error unless a transaction reads all the money there is.
func (b *bank) checkSum() error {
	ops := make([]kv.Op, len(b.accounts))
	for i, account := range b.accounts {
		ops[i] = kv.OpGet(account)
	}
	ok, results, err := b.e.store.Txn(b.e.ctx, nil, ops...)
	if err != nil || !ok {
		return fmt.Errorf("reading the sum: %v, %w", ok, err)
	}
	var sum int64
	for i, r := range results {
		n, err := strconv.ParseInt(r.Value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q: %w", b.accounts[i], err)
		}
		sum += n
	}
	if sum != b.sum {
		return fmt.Errorf("a transaction sees %d, there are %d", sum, b.sum)
	}
	return nil
}
