package kv

import (
	"context"
	"errors"
	"sync"
	"time"
)

// wakes lets many waiters wait for changes of single keys by event. All of
// them share one watch, which is open only while somebody waits: a watch has a
// buffer of its own and makes every write pay for it.
type wakes struct {
	s      *Store
	prefix string // of all keys that may be subscribed to
	gone   bool   // only deletes and expiries wake, no writes; set before use

	mu   sync.Mutex
	keys map[string]map[*wake]struct{} // guarded by mu
	stop context.CancelFunc            // guarded by mu; ends the watch, nil while nobody waits
}

// The pause before a watch that could not be opened is tried again.
const (
	firstWatchPause = 50 * time.Millisecond
	maxWatchPause   = 5 * time.Second
)

func newWakes(s *Store, prefix string) *wakes {
	return &wakes{s: s, prefix: prefix, keys: make(map[string]map[*wake]struct{})}
}

// wake is one waiter's subscription to one key.
type wake struct {
	of     *wakes
	key    string
	signal chan struct{} // holds one signal, so that none between look and wait is missed
}

// subscribe registers for changes of key: subscribe, then look at the key, then
// wait. The watch may open a little later; everybody is woken when it has, and so misses nothing.
func (w *wakes) subscribe(key string) (*wake, error) {
	if w.s.root.closed.Load() {
		return nil, ErrClosed
	}
	k := &wake{of: w, key: key, signal: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[key] == nil {
		w.keys[key] = make(map[*wake]struct{}, 1)
	}
	w.keys[key][k] = struct{}{}
	if w.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		w.stop = stop
		go w.run(ctx)
	}
	return k, nil
}

// wait returns nil when the key changed, the watch was opened anew or atMost
// passed (if positive): look at the key again. Else it returns ctx's error or ErrClosed.
func (k *wake) wait(ctx context.Context, atMost time.Duration) error {
	var timeout <-chan time.Time
	if atMost > 0 {
		timer := time.NewTimer(atMost)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-k.signal:
		return nil
	case <-timeout:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-k.of.s.done():
		return ErrClosed
	}
}

// cancel ends the subscription; the last one closes the watch.
func (k *wake) cancel() {
	w := k.of
	w.mu.Lock()
	defer w.mu.Unlock()
	waiters := w.keys[k.key]
	delete(waiters, k)
	if len(waiters) == 0 {
		delete(w.keys, k.key)
	}
	if len(w.keys) == 0 && w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// run keeps a watch open until ctx ends or the store closes.
func (w *wakes) run(ctx context.Context) {
	pause := firstWatchPause
	for {
		opened, err := w.watch(ctx)
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return
		}
		if opened {
			pause = firstWatchPause
			continue
		}
		w.wakeAll() // without a watch, looking is all that is left
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		case <-w.s.done():
			return
		}
		pause = min(2*pause, maxWatchPause)
	}
}

// watch passes events on until the watch ends.
func (w *wakes) watch(ctx context.Context) (opened bool, err error) {
	watcher, err := w.s.Watch(ctx, w.prefix)
	if err != nil {
		return false, err
	}
	defer watcher.Stop()
	w.wakeAll() // for what changed before the watch was open
	for e := range watcher.Events() {
		if !w.gone || e.Type != EventPut {
			w.wakeKey(e.Entry.Key)
		}
	}
	return true, watcher.Err()
}

func (w *wakes) wakeKey(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.keys[key] {
		k.wake()
	}
}

func (w *wakes) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, waiters := range w.keys {
		for k := range waiters {
			k.wake()
		}
	}
}

func (k *wake) wake() {
	select {
	case k.signal <- struct{}{}:
	default: // one is pending already
	}
}
