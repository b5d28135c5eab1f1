package kvtest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/kvrecipes/kv"
)

// Errors for faults: engines on a network return such ones.
var (
	// ErrDown says that the engine can't be reached: nothing has happened.
	ErrDown = errors.New("kvtest: engine is down")
	// ErrUnknown says that nobody knows whether the write has happened. It
	// matches [kv.ErrUnknownOutcome] and its cause, [ErrDown].
	ErrUnknown = fmt.Errorf("%w: %w", kv.ErrUnknownOutcome, ErrDown)
)

// Call is a call of one of an engine's methods.
type Call struct {
	Method string    // as [kv.Engine] names it: "CompareAndSwap"
	Key    string    // with its namespace; the prefix for Scan, Page and Watch; "" for Now, Batch and Txn
	Conds  []kv.Cond // of Txn
	Ops    []kv.Op   // of Batch and Txn
}

// Fault is what befalls a call. The zero Fault is none.
type Fault struct {
	// Err is what the call returns; nil: what it returns by itself.
	Err error
	// Delay is how long the call takes. If its ctx ends before that, it returns
	// ctx's error, and for a write that has been applied [kv.ErrUnknownOutcome] with it.
	Delay time.Duration
	// Applied says that the fault befalls the answer: the call has been applied
	// before the delay and the error. Without it, a call with an Err changes nothing.
	Applied bool
}

// Plan says what befalls a call. It is called by many goroutines.
type Plan func(Call) Fault

// Always is the plan in which the fault befalls every call of the methods; all methods if none is named.
func Always(fault Fault, methods ...string) Plan {
	return func(c Call) Fault {
		if len(methods) == 0 || slices.Contains(methods, c.Method) {
			return fault
		}
		return Fault{}
	}
}

// Times is the plan in which the fault befalls the next n calls of the methods, all methods if none is named.
func Times(n int, fault Fault, methods ...string) Plan {
	var mu sync.Mutex
	always := Always(fault, methods...)
	return func(c Call) Fault {
		f := always(c)
		if f == (Fault{}) {
			return f
		}
		mu.Lock()
		defer mu.Unlock()
		if n == 0 {
			return Fault{}
		}
		n--
		return f
	}
}

// Faulty is an engine that keeps its data in another store, and fails on demand:
//
//	engine := kvtest.NewFaulty(kv.New(nil))
//	store := kv.NewWithEngine(engine, nil)
//	// ... the code under test works on store, and then the server goes away:
//	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
//	// ... and comes back:
//	engine.Heal()
//
// Writes of which nobody knows whether they have happened, the commonest fault of a network:
//
//	engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, "Set"))  // it has
//	engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: false}, "Set")) // it hasn't
//
// The other store, which the test may keep to look behind the scenes, is not affected. Delays are
// those of package time, so that they cost nothing in a bubble of testing/synctest.
// Close and Stats never fail. Without a plan it is an engine like any other, and passes [Run].
type Faulty struct {
	inner  *kv.Store
	closed chan struct{}
	begun  sync.WaitGroup // goroutines of watches

	mu      sync.Mutex
	plan    Plan                  // guarded by mu
	calls   map[string]int        // guarded by mu
	watches map[*kv.Sink]struct{} // guarded by mu
}

// NewFaulty returns an engine on the data of inner, which it closes when it is closed.
func NewFaulty(inner *kv.Store) *Faulty {
	return &Faulty{
		inner:   inner,
		closed:  make(chan struct{}),
		calls:   make(map[string]int),
		watches: make(map[*kv.Sink]struct{}),
	}
}

// Inject makes p the plan for the calls from now on, in place of the plan before.
func (f *Faulty) Inject(p Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = p
}

// Heal ends all faults of calls from now on.
func (f *Faulty) Heal() { f.Inject(nil) }

// Count returns how many calls of the methods there have been, failed ones
// included; of all methods if none is named.
func (f *Faulty) Count(methods ...string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for method, calls := range f.calls {
		if len(methods) == 0 || slices.Contains(methods, method) {
			n += calls
		}
	}
	return n
}

// BreakWatches ends all watches with [kv.ErrLagged], as a lost connection does.
func (f *Faulty) BreakWatches() {
	f.mu.Lock()
	sinks := make([]*kv.Sink, 0, len(f.watches))
	for sink := range f.watches {
		sinks = append(sinks, sink)
	}
	f.mu.Unlock()
	for _, sink := range sinks {
		sink.Fail(kv.ErrLagged)
	}
}

// faultOf counts the call and returns what befalls it.
func (f *Faulty) faultOf(c Call) Fault {
	f.mu.Lock()
	f.calls[c.Method]++
	plan := f.plan
	f.mu.Unlock()
	if plan == nil {
		return Fault{}
	}
	return plan(c) // without the lock: a plan may look at the Faulty
}

var reads = []string{"Now", "Get", "Entry", "TTL", "Scan", "Page", "Watch"}

// through makes a call of f's store with the fault that is due.
func through[T any](ctx context.Context, f *Faulty, c Call, do func() (T, error)) (T, error) {
	fault := f.faultOf(c)
	var none T
	if !fault.Applied {
		if err := f.delay(ctx, fault.Delay); err != nil {
			return none, err
		}
		if fault.Err != nil {
			return none, fault.Err
		}
		v, err := do()
		return v, bare(err)
	}
	v, err := do()
	if broken := f.delay(ctx, fault.Delay); broken != nil {
		if slices.Contains(reads, c.Method) {
			return none, broken
		}
		return none, fmt.Errorf("%w: %w", kv.ErrUnknownOutcome, broken)
	}
	if fault.Err != nil {
		return none, fault.Err
	}
	return v, bare(err)
}

func (f *Faulty) delay(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	var done <-chan struct{} // of Get, whose ctx may be nil: never
	if ctx != nil {
		done = ctx.Done()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-done:
		return ctx.Err()
	case <-f.closed:
		return kv.ErrClosed
	}
}

// bare takes off what a Store has wrapped around an engine's error, because the outer Store wraps it again.
func bare(err error) error {
	if e, ok := err.(*kv.Error); ok {
		return e.Err
	}
	return err
}

// nothing makes a function without a result one for through.
func nothing(do func() error) func() (struct{}, error) {
	return func() (struct{}, error) { return struct{}{}, do() }
}

// Scan is part of [kv.Engine]. A fault with Applied comes after the last entry.
func (f *Faulty) Scan(ctx context.Context, r kv.Range) iter.Seq2[kv.Entry, error] {
	return func(yield func(kv.Entry, error) bool) {
		fault := f.faultOf(Call{Method: "Scan", Key: r.Prefix})
		strike := func() error {
			if err := f.delay(ctx, fault.Delay); err != nil {
				return err
			}
			return fault.Err
		}
		if !fault.Applied {
			if err := strike(); err != nil {
				yield(kv.Entry{}, err)
				return
			}
		}
		for e, err := range f.inner.Scan(ctx, r) {
			if !yield(e, bare(err)) || err != nil {
				return
			}
		}
		if fault.Applied {
			if err := strike(); err != nil {
				yield(kv.Entry{}, err)
			}
		}
	}
}

// Watch is part of [kv.Engine].
func (f *Faulty) Watch(ctx context.Context, prefix string, sink *kv.Sink) (stop func(), err error) {
	w, err := through(ctx, f, Call{Method: "Watch", Key: prefix}, func() (*kv.Watcher, error) {
		return f.inner.Watch(context.WithoutCancel(ctx), prefix) // the outer Store ends it with ctx
	})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.closed:
		return nil, kv.ErrClosed
	default:
	}
	f.watches[sink] = struct{}{}
	f.begun.Go(func() { f.forward(w, sink) }) // with mu, so that Close does not begin to wait meanwhile
	return w.Stop, nil
}

// forward passes the events of w on until it ends.
func (f *Faulty) forward(w *kv.Watcher, sink *kv.Sink) {
	for e := range w.Events() {
		if !sink.Send(e) {
			w.Stop()
		}
	}
	f.mu.Lock()
	delete(f.watches, sink)
	f.mu.Unlock()
	if err := w.Err(); err != nil {
		sink.Fail(err)
	}
}

// Stats is part of [kv.Engine].
func (f *Faulty) Stats() kv.Stats { return f.inner.Stats() }

// Close closes the store beneath. Calls that are delayed return [kv.ErrClosed].
func (f *Faulty) Close() error {
	f.mu.Lock()
	close(f.closed)
	f.mu.Unlock()
	err := f.inner.Close()
	f.begun.Wait()
	return bare(err)
}
