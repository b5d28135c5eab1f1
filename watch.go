package kv

import (
	"context"
	"sync"
)

// EventType says what happened to a key.
type EventType uint8

// The types of events.
const (
	EventPut    EventType = iota + 1 // the key was written
	EventDelete                      // the key was deleted
	EventExpire                      // the key's deadline passed
)

// String returns "put", "delete" or "expire".
func (t EventType) String() string {
	switch t {
	case EventPut:
		return "put"
	case EventDelete:
		return "delete"
	case EventExpire:
		return "expire"
	}
	return "unknown"
}

// Event is a change of one key.
//
// On a network engine an EventPut may carry a newer entry than the write that
// caused it; if the key is gone again, it has the key alone, with a deadline in 1970.
type Event struct {
	Type  EventType
	Entry Entry // EventPut: the new entry; in memory EventDelete and EventExpire carry the last value
}

// live says whether the event leaves the key live: a network engine that can't read an
// entry any more passes on a put with the key alone and a deadline in 1970.
func (e *Event) live() bool {
	return e.Type == EventPut && (e.Entry.ExpiresAt.IsZero() || e.Entry.ExpiresAt.Unix() > 0)
}

// watchBuffer is how many events a watcher may be behind. A slow reader must
// not block writers, so one that is further behind is closed with ErrLagged.
const watchBuffer = 1024

// Watcher receives the changes of the keys under a prefix. Range over its
// [Watcher.Events]; when that ends, [Watcher.Err] says why. Call [Watcher.Stop] when done.
type Watcher struct {
	events chan Event
	ns     *Store // whose keys the events name

	mu     sync.Mutex
	over   bool        // guarded by mu; events is closed
	err    error       // guarded by mu
	stop   func()      // guarded by mu; unsubscribes from the engine, nil until it has subscribed
	detach func() bool // guarded by mu; unsubscribes from ctx
}

// Watch subscribes to the changes of keys that begin with prefix; it is
// subscribed when it returns. Per key, events come in the order of the writes.
//
// A changed deadline alone is no event. A key's expiry is reported when the
// store notices it: within [Options.ReapInterval] in memory. A reader that falls
// more than 1,024 events behind never blocks a writer: its watch ends with
// [ErrLagged], and it should read the state anew and watch again. The watch ends
// with ctx, too, and with the store.
func (s *Store) Watch(ctx context.Context, prefix string) (*Watcher, error) {
	ctx = background(ctx)
	if s.root.closed.Load() {
		return nil, wrap("watch", prefix, ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return nil, wrap("watch", prefix, err)
	}
	w := &Watcher{events: make(chan Event, watchBuffer), ns: s}
	if !s.root.addWatcher(w) {
		return nil, wrap("watch", prefix, ErrClosed)
	}
	stop, err := s.engine.Watch(ctx, s.prefix+prefix, &Sink{w})
	if err != nil {
		w.end(err)
		return nil, wrap("watch", prefix, err)
	}
	w.follow(ctx, stop)
	return w, nil
}

// follow arranges that w ends with ctx, and that stop is called when w ends.
func (w *Watcher) follow(ctx context.Context, stop func()) {
	detach := context.AfterFunc(ctx, func() { w.end(ctx.Err()) })
	w.mu.Lock()
	w.stop, w.detach = stop, detach
	over := w.over
	w.mu.Unlock()
	if over { // before stop was known
		w.release()
	}
}

// Events returns the channel of events. It is closed when the watch has ended;
// what was buffered until then can still be read.
func (w *Watcher) Events() <-chan Event { return w.events }

// Err returns why the watch ended: nil after Stop and while it goes on, ctx's
// error, [ErrClosed] or [ErrLagged].
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Stop ends the watch. It may be called more than once and from any goroutine.
func (w *Watcher) Stop() { w.end(nil) }

func (w *Watcher) end(err error) {
	w.mu.Lock()
	ended := w.endLocked(err)
	w.mu.Unlock()
	if ended {
		w.release()
	}
}

// endLocked closes w and says whether it was open.
func (w *Watcher) endLocked(err error) bool {
	if w.over {
		return false
	}
	w.over, w.err = true, err
	close(w.events)
	w.ns.root.removeWatcher(w)
	return true
}

// release unsubscribes w from the engine and from its ctx.
func (w *Watcher) release() {
	w.mu.Lock()
	stop, detach := w.stop, w.detach
	w.mu.Unlock()
	if detach != nil {
		detach()
	}
	if stop != nil {
		stop()
	}
}

// Sink is where an [Engine] puts the events of one watch.
type Sink struct{ w *Watcher }

// Send passes e, with its whole key, to the watcher, without blocking. It returns false once the
// watch has ended, and the engine may then forget the sink. It may be called
// with locks of the engine held.
func (s *Sink) Send(e Event) bool {
	w := s.w
	e.Entry.Key = w.ns.strip(e.Entry.Key)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return false
	}
	select {
	case w.events <- e:
		return true
	default: // engine's locks may be held: unsubscribe from ctx alone, the engine forgets us by itself
		w.endLocked(ErrLagged)
		if w.detach != nil {
			w.detach()
		}
		return false
	}
}

// Fail ends the watch with err, [ErrLagged] if events may have been missed. It
// calls the stop function that [Engine.Watch] returned.
func (s *Sink) Fail(err error) { s.w.end(err) }

func (r *root) addWatcher(w *Watcher) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watchers == nil {
		return false
	}
	r.watchers[w] = struct{}{}
	return true
}

func (r *root) removeWatcher(w *Watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, w)
}

func (r *root) endWatchers() {
	r.mu.Lock()
	watchers := r.watchers
	r.watchers = nil
	r.mu.Unlock()
	for w := range watchers {
		w.end(ErrClosed)
	}
}
