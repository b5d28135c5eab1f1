package kv

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// watchers are the watches on an engine in memory.
type watchers struct {
	list atomic.Pointer[[]*subscription] // nil: none; so without watchers a write pays one load

	mu sync.Mutex // guards changes of list; taken after a shard's mu
}

type subscription struct {
	prefix string
	sink   *Sink
}

// Watch implements [Engine].
func (m *memory) Watch(_ context.Context, prefix string, sink *Sink) (stop func(), err error) {
	s := &subscription{prefix, sink}
	m.watchers.change(func(list []*subscription) []*subscription { return append(list, s) })
	return func() { m.watchers.remove(s) }, nil
}

func (w *watchers) change(f func([]*subscription) []*subscription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var old []*subscription
	if p := w.list.Load(); p != nil {
		old = *p
	}
	next := f(slices.Clone(old))
	if len(next) == 0 {
		w.list.Store(nil)
		return
	}
	w.list.Store(&next)
}

func (w *watchers) remove(s *subscription) {
	w.change(func(list []*subscription) []*subscription {
		return slices.DeleteFunc(list, func(t *subscription) bool { return t == s })
	})
}

// emit tells the watchers what has become of a record. The mu of its shard is held, which keeps the events of a key in order.
func (w *watchers) emit(t EventType, rec record, c *clock) {
	if list := w.list.Load(); list != nil {
		w.send(*list, t, rec, c)
	}
}

func (w *watchers) send(list []*subscription, t EventType, rec record, c *clock) {
	f := rec.fields()
	e := Event{Type: t, Entry: Entry{Key: f.key, Value: f.value, Metadata: f.metadata}}
	if f.deadline != 0 {
		e.Entry.ExpiresAt = c.wall(f.deadline, c.step())
	}
	for _, s := range list {
		if strings.HasPrefix(f.key, s.prefix) && !s.sink.Send(e) {
			w.remove(s)
		}
	}
}
