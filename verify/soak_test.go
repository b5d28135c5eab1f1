package verify

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
)

// TestSoak lets some goroutines use one store at the same time, each with keys of
// its own, so that each knows exactly what has to come back. Time is virtual,
// and passes for all of them in the same steps.
func TestSoak(t *testing.T) {
	rounds(t, func(t *testing.T, r *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			s := kv.New(&kv.Options{Shards: shardsOf[r.IntN(len(shardsOf))]})
			defer s.Close()
			errs := make(chan error)
			owners := make([]*owner, 4)
			for i := range owners {
				owners[i] = newOwner(s, strconv.Itoa(i), rand.New(rand.NewPCG(r.Uint64(), 0)))
				go func() { errs <- owners[i].run(1500) }()
			}
			var all error
			for range owners {
				all = errors.Join(all, <-errs)
			}
			if all != nil {
				t.Fatal(all)
			}
			checkStats(t, s, owners)
		})
	})
}

// checkStats checks that the store has what the owners have, once the reaper has been there.
func checkStats(t *testing.T, s *kv.Store, owners []*owner) {
	time.Sleep(time.Minute - 1)
	live := func() (n int64) {
		for _, o := range owners {
			o.settle()
			n += int64(len(o.live))
		}
		return n
	}
	soon := live()
	time.Sleep(time.Second)
	if got := s.Stats().Keys; got < live() || got > soon {
		t.Fatalf("the store counts %d keys, there are %d to %d", got, live(), soon)
	}
}

// owner alone uses the keys under its prefix.
type owner struct {
	s    *kv.Store // a namespace
	r    *rand.Rand
	live map[string]kv.Entry
}

func newOwner(s *kv.Store, name string, r *rand.Rand) *owner {
	return &owner{s: s.Namespace(name), r: r, live: map[string]kv.Entry{}}
}

func (o *owner) run(steps int) error {
	for step := range steps {
		o.settle()
		var err error
		switch n := o.r.IntN(20); {
		case n == 0:
			err = o.scan()
		case n < 4:
			err = o.txn()
		case n < 8:
			err = o.batch()
		case n < 12:
			err = o.read()
		default:
			err = o.one()
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if o.r.IntN(3) == 0 {
			time.Sleep(time.Duration(o.r.IntN(5)) * 100 * time.Millisecond)
		}
	}
	return nil
}

func (o *owner) settle() {
	now := time.Now()
	maps.DeleteFunc(o.live, func(_ string, e kv.Entry) bool { return !e.ExpiresAt.IsZero() && !now.Before(e.ExpiresAt) })
}

func (o *owner) key() string {
	return []string{"a", "b", "c\x00", "\xff"}[o.r.IntN(4)] + strconv.Itoa(o.r.IntN(300))
}

func (o *owner) op() kv.Op {
	ttl := []time.Duration{kv.NoExpiry, kv.KeepTTL, time.Hour, 100 * time.Millisecond, time.Second, 1, 30 * time.Second}[o.r.IntN(7)]
	value := strings.Repeat(strconv.Itoa(o.r.IntN(1000)), 1+o.r.IntN(2)*o.r.IntN(100))
	switch o.r.IntN(7) {
	case 0, 1:
		return kv.OpSet(o.key(), value, ttl)
	case 2:
		return kv.OpSetNX(o.key(), value, ttl)
	case 3:
		return kv.OpIncr(o.key(), 1, ttl)
	case 4:
		return kv.OpExpire(o.key(), ttl)
	case 5:
		return kv.OpDelete(o.key())
	}
	return kv.OpGet(o.key())
}

func (o *owner) ops() []kv.Op {
	ops := make([]kv.Op, 1+o.r.IntN(10))
	for i := range ops {
		ops[i] = o.op()
	}
	return ops
}

// apply does to live what the store does to its data.
func (o *owner) apply(op kv.Op) kv.Result {
	e, ok := o.live[op.Key]
	switch op.Kind {
	case kv.KindGet:
		return kv.Result{Value: e.Value, OK: ok}
	case kv.KindDelete:
		delete(o.live, op.Key)
		return kv.Result{OK: ok}
	case kv.KindExpire:
		if ok {
			o.live[op.Key] = withTTL(e, op.TTL)
		}
		return kv.Result{OK: ok}
	case kv.KindIncr:
		if !ok {
			e = withTTL(kv.Entry{Key: op.Key, Value: "0"}, op.TTL)
		}
		n, err := strconv.ParseInt(e.Value, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != e.Value {
			return kv.Result{Err: kv.ErrNotInteger}
		}
		e.Value = strconv.FormatInt(n+op.Delta, 10)
		o.live[op.Key] = e
		return kv.Result{Int: n + op.Delta, OK: true}
	case kv.KindSetNX:
		if ok {
			return kv.Result{}
		}
	}
	e.Key, e.Value = op.Key, op.Value
	o.live[op.Key] = withTTL(e, op.TTL)
	return kv.Result{OK: true}
}

func withTTL(e kv.Entry, ttl time.Duration) kv.Entry {
	switch ttl {
	case kv.KeepTTL:
	case kv.NoExpiry:
		e.ExpiresAt = time.Time{}
	default:
		e.ExpiresAt = time.Now().Add(ttl)
	}
	return e
}

// compare returns an error unless got is what is due.
func compare(op kv.Op, want, got kv.Result) error {
	if !errors.Is(got.Err, want.Err) {
		return fmt.Errorf("%+v: error %w, want %w", op, got.Err, want.Err)
	}
	if got.Err = want.Err; got != want {
		return fmt.Errorf("%+v: %+v, want %+v", op, got, want)
	}
	return nil
}

func (o *owner) one() error {
	op := o.op()
	results, err := o.s.Batch(ctx, op)
	if err != nil {
		return err
	}
	return compare(op, o.apply(op), results[0])
}

func (o *owner) batch() error {
	ops := o.ops()
	results, err := o.s.Batch(ctx, ops...)
	for i, r := range results {
		err = errors.Join(err, compare(ops[i], o.apply(ops[i]), r))
	}
	return err
}

func (o *owner) txn() error {
	ops := o.ops()
	cond := kv.IfValue(ops[0].Key, o.live[ops[0].Key].Value)
	ok, results, err := o.s.Txn(ctx, []kv.Cond{cond}, ops...)
	if _, live := o.live[ops[0].Key]; live != (ok || err != nil) {
		return fmt.Errorf("a condition on a key that is live: %v, holds: %v", live, ok)
	}
	if !ok && err == nil {
		return nil
	}
	before := maps.Clone(o.live)
	for i, op := range ops {
		want := o.apply(op)
		if want.Err != nil {
			o.live = before
			return compare(op, want, kv.Result{Err: err})
		}
		if err == nil {
			if diff := compare(op, want, results[i]); diff != nil {
				return diff
			}
		}
	}
	return err
}

func (o *owner) read() error {
	key := o.key()
	want, live := o.live[key]
	got, err := o.s.Entry(ctx, key)
	if live != (err == nil) {
		return fmt.Errorf("entry %q is live: %v; %w", key, live, err)
	}
	if !got.ExpiresAt.Equal(want.ExpiresAt) || got.Value != want.Value {
		return fmt.Errorf("entry %+v, want %+v", got, want)
	}
	return nil
}

func (o *owner) scan() error {
	r := kv.Range{Prefix: o.key()[:o.r.IntN(2)], Reverse: o.r.IntN(2) == 0}
	var want []string
	for key := range o.live {
		if strings.HasPrefix(key, r.Prefix) {
			want = append(want, key)
		}
	}
	slices.Sort(want)
	if r.Reverse {
		slices.Reverse(want)
	}
	var got []string
	for e, err := range o.s.Scan(ctx, r) {
		if err != nil {
			return err
		}
		if e.Value != o.live[e.Key].Value {
			return fmt.Errorf("scan: %q has the value %q, want %q", e.Key, e.Value, o.live[e.Key].Value)
		}
		got = append(got, e.Key)
	}
	if !slices.Equal(want, got) {
		return fmt.Errorf("scan %+v: %q, want %q", r, got, want)
	}
	return nil
}
