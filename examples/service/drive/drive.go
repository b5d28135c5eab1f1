// Package drive plays the customers of the shop, good and bad ones, all at the
// same time, and then compares what they saw with what happened outside.
package drive

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/kvrecipes/kv/examples/service/outside"
)

// Config says what to drive.
type Config struct {
	Shops     []string // base URLs; customers go to each in turn
	World     *outside.World
	Secret    string // of the payment provider's webhooks
	PerMinute int    // the shops' limit for one user
}

// Check is one thing that was done, what came of it, and whether that is right.
type Check struct {
	Did, Got string
	OK       bool
}

// Result of [Run].
type Result struct {
	Checks   []Check
	Requests int64
}

// OK says whether every check holds.
func (r Result) OK() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	return len(r.Checks) > 0
}

const customers = 20

// drive is one run.
type drive struct {
	Config
	ctx       context.Context
	client    *http.Client
	customers []*customer
	checks    []Check
	requests  atomic.Int64

	mu       sync.Mutex
	admitted map[string]int // guarded by mu: user -> requests that were not refused as too many
	refused  map[string]int // guarded by mu: user -> requests that were
}

// Run sends the customers. An error means that a server could not be reached or
// talked nonsense; what the shop did wrong is in the result.
func Run(ctx context.Context, c Config) (Result, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 512}
	defer transport.CloseIdleConnections()
	d := &drive{
		Config:   c,
		ctx:      ctx,
		client:   &http.Client{Transport: transport},
		admitted: make(map[string]int),
		refused:  make(map[string]int),
	}
	for _, act := range []func() error{d.logIn, d.browse, d.order, d.pay, d.settle, d.rollOut, d.flood, d.account} {
		if err := act(); err != nil {
			return Result{}, err
		}
	}
	return Result{Checks: d.checks, Requests: d.requests.Load()}, nil
}

// check notes what was done, what is right, and, unless that is what it was, the difference.
func (d *drive) check(did, got string, wrong ...string) {
	c := Check{Did: did, Got: got, OK: len(wrong) == 0}
	if !c.OK {
		c.Got = fmt.Sprintf("NOT TRUE: %s, but: %s", got, wrong[0])
	}
	d.checks = append(d.checks, c)
}

// faults collects what went wrong, from many goroutines.
type faults struct {
	mu   sync.Mutex
	list []string
	err  error
}

// unless notes a fault if ok is false.
func (f *faults) unless(ok bool, format string, args ...any) {
	if ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, fmt.Sprintf(format, args...))
}

// failed notes that the work can't go on.
func (f *faults) failed(err error) bool {
	if err == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	return true
}

// together calls f n times at the same moment.
func together(n int, f func(i int)) {
	var ready, running sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		ready.Add(1)
		running.Go(func() {
			ready.Done()
			<-gate
			f(i)
		})
	}
	ready.Wait()
	close(gate)
	running.Wait()
}
