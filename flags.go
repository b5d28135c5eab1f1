package kv

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FlagsOptions of [NewFlags]. The zero value of each field is its default.
type FlagsOptions struct {
	Prefix string // of the store's keys, flag x being Key(Prefix, x); "": "feature", so "feature:x"

	// OnError is told what is wrong: garbage in a flag ([ErrInvalidFlag]), once
	// for each time that the flag's value becomes that garbage, and with "" as
	// flag a watch that broke ([ErrLagged], or what the engine says) or could not be opened again.
	//
	// Calls come one at a time, for what NewFlags finds before it returns, later from a
	// goroutine of their own: a slow OnError delays no change of a flag and no
	// Close, and it may call any method of the Flags. If it
	// panics, that is logged with its stack through slog.Default, and the
	// program goes on: garbage in a flag must not take a service down.
	// nil: a warning through slog.Default.
	OnError func(flag string, err error)
}

// Flags are feature flags, shared by all processes on one store, that a process
// asks as cheaply as a local variable. Make them with [NewFlags], once for the life of the process.
//
// A flag's value is "on", "off" or a percentage of units from "0" to "100" with
// up to three decimals, under the key "feature:" + name, without deadline or
// with one. A unit is whatever shall get the same answer every time: a user's,
// a tenant's, an order's id. A flag that does not exist, was deleted, has
// expired or holds garbage is off. Keys under the prefix that [Key] would not make are ignored.
//
// [Flags.Enabled] answers from a local copy, which NewFlags reads and a
// [Store.Watch] keeps fresh: a change shows in every process within the watch's
// delay, which in memory is microseconds (an expiry: [Options.ReapInterval]). When the watch
// breaks, the last known values serve until a new one is open and all
// flags have been read again; it is tried at once, then after pauses that double from 10 ms to 5 s.
//
// # Which units are on
//
// A unit is on when its bucket is below the percentage times 1,000:
//
//	bucket = XXH64(unit, seed = XXH64(name, seed = 0)) mod 100,000
//
// XXH64 is the 64-bit xxHash of https://xxhash.com, over the bytes of the
// strings. The bucket of a unit never changes, so whoever is on at 10 % is on at
// 30 %, too, in every process and every release; and it depends on the flag,
// so that it's not always the same users who get what is new. Other languages come to the same answer:
//
//	name            unit                                    bucket
//	"checkout"      "user-1"                                60125
//	"checkout"      "user-2"                                34753
//	"new-search"    "user-1"                                  962
//	"new-search"    "6f9619ff-8b86-d011-b42d-00c04fc964ff"  70852
//	""              ""                                        636
type Flags struct {
	store   *Store
	scope   string // FlagsOptions.Prefix
	prefix  string // of the keys: scope, escaped, with ":"
	table   flagTable
	reports flagReports

	watch   atomic.Pointer[flagWatch] // the latest
	ctx     context.Context           // ends with Close, and with the goroutine
	cancel  context.CancelFunc
	stopped chan struct{} // closed when the goroutine has ended
}

// NewFlags reads the flags in s and starts to follow their changes. opts may be
// nil. Close the Flags, or the store, to end that.
func NewFlags(s *Store, opts *FlagsOptions) (*Flags, error) {
	var o FlagsOptions
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = "feature"
	}
	if o.OnError == nil {
		o.OnError = logFlagError
	}
	f := &Flags{store: s, scope: o.Prefix, prefix: Key(o.Prefix, ""), stopped: make(chan struct{})}
	f.table.byName.Store(new(map[string]*flag))
	f.reports.call = o.OnError
	f.reports.busy = true // until run below
	f.ctx, f.cancel = context.WithCancel(context.Background())
	w, err := f.connect()
	if err != nil {
		f.cancel()
		return nil, err
	}
	go f.run(w)
	f.reports.run()
	return f, nil
}

func logFlagError(flag string, err error) {
	slog.Warn("kv: feature flags", "flag", flag, "err", err)
}

// Enabled says whether the flag name is on for unit. It asks the local copy
// alone: it never waits, never fails, and allocates nothing. An unknown flag is
// off. After [Flags.Close], or when the store is closed, it goes on answering from what was known last.
func (f *Flags) Enabled(name, unit string) bool {
	flag := (*f.table.byName.Load())[name]
	return flag != nil && flag.enabled(unit)
}

// Set gives the flag a value, "on", "off" or a percentage "0" to "100" with up to three
// decimals, for all processes; anything else is [ErrInvalidFlag]. To
// delete a flag, delete its key.
//
// In memory, these Flags know the value when Set returns. Other ones, and these
// on a network engine, know it after the watch's delay.
func (f *Flags) Set(ctx context.Context, name, value string) error {
	if _, ok := parseFlag(value); !ok {
		return wrap("set", name, ErrInvalidFlag)
	}
	if err := f.store.Set(ctx, Key(f.scope, name), value, NoExpiry); err != nil {
		return err
	}
	f.watch.Load().catchUp()
	return nil
}

// Close ends the following of changes and waits for its goroutine. It may be
// called often, from many goroutines, and from OnError, which may still be
// running when Close returns but is not called again. The error is always nil.
func (f *Flags) Close() error {
	f.cancel()
	<-f.stopped
	f.reports.drop()
	return nil
}

// The pauses before a broken watch is opened again. The first try comes at
// once: most often the reader was just too slow for a moment.
const (
	minFlagsPause = 10 * time.Millisecond
	maxFlagsPause = 5 * time.Second // also how long a watch must last to count as healthy
)

// run follows w and its successors until f or the store is closed.
func (f *Flags) run(w *flagWatch) {
	defer close(f.stopped)
	defer f.cancel()
	tries := 0 // in a row, to get a watch that lasts
	for w != nil {
		began := time.Now()
		f.follow(w)
		err := w.Err()
		if f.over(err) {
			return
		}
		f.reports.add("", wrap("watch", f.prefix, err))
		if time.Since(began) >= maxFlagsPause {
			tries = 0
		}
		w = f.reconnect(&tries)
	}
}

// over says whether to stop after err rather than to try again.
func (f *Flags) over(err error) bool {
	return f.ctx.Err() != nil || errors.Is(err, ErrClosed)
}

// reconnect returns a new watch, the flags having been read, or nil when it's over.
func (f *Flags) reconnect(tries *int) *flagWatch {
	for f.pause(*tries) {
		*tries++
		w, err := f.connect()
		if err == nil {
			return w
		}
		if f.over(err) {
			return nil
		}
		f.reports.add("", err)
	}
	return nil
}

// pause waits as is due after so many tries, and returns false if it's over.
func (f *Flags) pause(tries int) bool {
	if tries == 0 {
		return true
	}
	d := maxFlagsPause
	if tries < 10 { // 10 ms doubled nine times is over 5 s
		d = min(d, minFlagsPause<<(tries-1))
	}
	timer := time.NewTimer(d/2 + rand.N(d/2)) // so that not all processes come back together
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-f.ctx.Done():
		return false
	case <-f.store.done():
		return false
	}
}

// connect opens a watch, and then reads the flags: this way no change is missed.
func (f *Flags) connect() (*flagWatch, error) {
	watcher, err := f.store.Watch(f.ctx, f.prefix)
	if err != nil {
		return nil, err
	}
	w := &flagWatch{Watcher: watcher, asks: make(chan chan struct{}), over: make(chan struct{})}
	values, err := f.read()
	if err != nil {
		w.Stop()
		return nil, err
	}
	w.overtake(f, values)
	for name := range *f.table.byName.Load() {
		if _, ok := values[name]; !ok {
			f.table.remove(name)
		}
	}
	for name, value := range values {
		f.put(name, value)
	}
	f.table.publish()
	f.watch.Store(w)
	return w, nil
}

// read returns the values in the store by the names of their flags.
func (f *Flags) read() (map[string]string, error) {
	values := make(map[string]string)
	for e, err := range f.store.Scan(f.ctx, Range{Prefix: f.prefix}) {
		if err != nil {
			return nil, err
		}
		if name, ok := f.name(e.Key); ok {
			values[name] = e.Value
		}
	}
	return values, nil
}

// follow applies the events of w until it ends.
func (f *Flags) follow(w *flagWatch) {
	defer close(w.over)
	for {
		select {
		case e, open := <-w.Events():
			if !open {
				return
			}
			f.apply(e)
			if !f.applyBuffered(w) {
				return
			}
		case done := <-w.asks:
			open := f.applyBuffered(w)
			close(done)
			if !open {
				return
			}
		}
	}
}

// applyBuffered applies the events that are waiting and publishes them
// together. It returns false when w has ended.
func (f *Flags) applyBuffered(w *flagWatch) (open bool) {
	defer f.table.publish()
	for range watchBuffer { // all there were when it began, but no endless flood
		select {
		case e, open := <-w.Events():
			if !open {
				return false
			}
			f.apply(e)
		default:
			return true
		}
	}
	return true
}

func (f *Flags) apply(e Event) {
	name, ok := f.name(e.Entry.Key)
	switch {
	case !ok:
	case e.live():
		f.put(name, e.Entry.Value)
	default:
		f.table.remove(name)
	}
}

func (f *Flags) put(name, value string) {
	if f.table.put(name, value) {
		f.reports.add(name, wrap("flag", name, ErrInvalidFlag))
	}
}

// name returns the name of the flag under key; ok is false if key is no flag's.
func (f *Flags) name(key string) (name string, ok bool) {
	name = keyUnescaper.Replace(strings.TrimPrefix(key, f.prefix))
	return name, Key(f.scope, name) == key
}

var keyUnescaper = strings.NewReplacer("%25", "%", "%3A", ":", "%7B", "{")

// flagWatch is a watch with a way to wait for its reader.
type flagWatch struct {
	*Watcher
	asks chan chan struct{} // each to be closed when the events of before are applied
	over chan struct{}      // closed when nobody follows it any more
}

// catchUp returns when the events that were sent before the call are applied, or nobody follows w any more.
func (w *flagWatch) catchUp() {
	done := make(chan struct{})
	select {
	case w.asks <- done:
		<-done // soon: the follower waits for nobody
	case <-w.over:
	}
}

// overtake applies the events that are waiting to values, which were read after
// they were sent, or before, so that no flag goes back to what it was for an instant.
func (w *flagWatch) overtake(f *Flags, values map[string]string) {
	for range watchBuffer {
		select {
		case e, open := <-w.Events():
			if !open {
				return // follow will see it, too
			}
			name, ok := f.name(e.Entry.Key)
			switch {
			case !ok:
			case e.live():
				values[name] = e.Entry.Value
			default:
				delete(values, name)
			}
		default:
			return
		}
	}
}

// flagTable is the local copy of the flags. One goroutine at a time writes it,
// any number read it.
//
// A changed value is one atomic store, however many flags there are. Only new
// names need a new map, and publish makes one for a whole run of events.
type flagTable struct {
	byName atomic.Pointer[map[string]*flag] // a map that has been stored is never written again

	// The writer's alone:
	fresh map[string]*flag // names that byName lacks
	gone  int              // flags in byName that were removed
}

// flag is one entry of a flagTable.
type flag struct {
	seed uint64        // of the units' hashes
	on   atomic.Uint32 // units whose bucket is below it are on

	// The writer's alone:
	garbage uint64 // hash of the value if it is garbage, 0 if not
	gone    bool
}

const flagBuckets = 100_000

func (g *flag) enabled(unit string) bool {
	switch on := g.on.Load(); on {
	case 0:
		return false
	case flagBuckets:
		return true
	default:
		return xxh64(unit, g.seed)%flagBuckets < uint64(on)
	}
}

// put gives a flag its value and says whether that is garbage that was not there before.
func (t *flagTable) put(name, value string) (garbage bool) {
	on, ok := parseFlag(value)
	g := t.entry(name)
	g.on.Store(on)
	if ok {
		g.garbage = 0
		return false
	}
	hash := xxh64(value, 0) | 1 // not the value, which may be 25 MiB
	garbage = g.garbage != hash
	g.garbage = hash
	return garbage
}

// entry returns the flag, which it makes if need be.
func (t *flagTable) entry(name string) *flag {
	if g := t.find(name); g != nil {
		if g.gone {
			g.gone = false
			t.gone--
		}
		return g
	}
	if t.fresh == nil {
		t.fresh = make(map[string]*flag)
	}
	g := &flag{seed: xxh64(name, 0)}
	t.fresh[strings.Clone(name)] = g // the event's name may be part of a larger string
	return g
}

func (t *flagTable) find(name string) *flag {
	if g, ok := t.fresh[name]; ok {
		return g
	}
	return (*t.byName.Load())[name]
}

// remove turns a flag off at once; publish frees it.
func (t *flagTable) remove(name string) {
	g := t.find(name)
	if g == nil || g.gone {
		return
	}
	g.on.Store(0)
	g.garbage, g.gone = 0, true
	t.gone++
}

// publish makes fresh names known. Removed ones it frees along with that, or
// when they are most of the map, so that each costs little.
func (t *flagTable) publish() {
	old := *t.byName.Load()
	if len(t.fresh) == 0 && t.gone <= len(old)/2 {
		return
	}
	merged := make(map[string]*flag, len(old)+len(t.fresh))
	for _, part := range []map[string]*flag{old, t.fresh} {
		for name, g := range part {
			if !g.gone {
				merged[name] = g
			}
		}
	}
	t.byName.Store(&merged)
	t.fresh, t.gone = nil, 0
}

// parseFlag returns how many of flagBuckets a value turns on; garbage none.
func parseFlag(value string) (on uint32, ok bool) {
	switch value {
	case "on":
		return flagBuckets, true
	case "off":
		return 0, true
	}
	whole, decimals, point := strings.Cut(value, ".")
	if !isDigits(whole) || len(whole) > 1 && whole[0] == '0' || point != isDigits(decimals) {
		return 0, false
	}
	thousandths, err := strconv.Atoi(whole + (decimals + "000")[:3])
	if err != nil || thousandths > flagBuckets {
		return 0, false
	}
	return uint32(thousandths), true
}

// isDigits says whether s is one to three decimal digits.
func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 3
}

// flagReports calls OnError, one call at a time, without ever making the
// reporter wait: it may hold up neither the flags nor Close.
type flagReports struct {
	call func(flag string, err error)

	mu    sync.Mutex
	queue []flagReport // guarded by mu
	busy  bool         // guarded by mu; somebody is in run
}

type flagReport struct {
	flag string
	err  error
}

func (r *flagReports) add(flag string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, flagReport{flag, err})
	if !r.busy {
		r.busy = true
		go r.run()
	}
}

// run makes the calls that are due. r.busy is set by the caller, and run's to clear.
func (r *flagReports) run() {
	idle := false
	defer func() {
		if !idle { // OnError called runtime.Goexit, as a test does that fails in it
			go r.run()
		}
	}()
	for {
		next, ok := r.next()
		if !ok {
			idle = true
			return
		}
		r.one(next)
	}
}

func (r *flagReports) next() (next flagReport, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		r.busy = false
		return next, false
	}
	next, r.queue = r.queue[0], r.queue[1:]
	return next, true
}

func (r *flagReports) one(report flagReport) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("kv: FlagsOptions.OnError panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	r.call(report.flag, report.err)
}

// drop forgets the calls that have not begun.
func (r *flagReports) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = nil
}
