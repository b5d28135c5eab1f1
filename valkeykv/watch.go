package valkeykv

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// hub keeps the connections by which the nodes push their changes. All watches
// of an engine share them; they are made for the first watch and kept until the
// engine closes. Whatever breaks them fails all watches, and the next watch makes them anew.
type hub struct {
	e    *engine
	work calls         // goroutines of the sessions
	turn chan struct{} // held while connections or subscriptions are made or ended; a mutex that heeds a context

	mu     sync.Mutex
	live   *session // guarded by mu; nil without connections
	closed bool     // guarded by mu
}

func newHub(e *engine) *hub { return &hub{e: e, turn: make(chan struct{}, 1)} }

// session is the life of one set of connections.
type session struct {
	hub   *hub
	feeds []*feed // one for each node
	done  chan struct{}

	mu       sync.Mutex
	over     bool                             // guarded by mu
	patterns map[string]map[*kv.Sink]struct{} // guarded by mu; subscribed to, or about to be
}

// Watch implements [kv.Engine].
func (e *engine) Watch(ctx context.Context, prefix string, sink *kv.Sink) (func(), error) {
	return e.hub.watch(ctx, prefix, sink)
}

func (h *hub) watch(ctx context.Context, prefix string, sink *kv.Sink) (stop func(), err error) {
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s, err := h.session(ctx)
	if err != nil {
		return nil, err
	}
	pattern := s.pattern(prefix)
	if s.add(pattern, sink) {
		if err := s.subscribe(ctx, pattern); err != nil {
			s.remove(pattern, sink)
			s.fail() // nobody knows which nodes are subscribed
			return nil, err
		}
	}
	return sync.OnceFunc(func() { s.stop(pattern, sink) }), nil
}

// session returns the live session, a new one if there is none. The turn is held.
func (h *hub) session(ctx context.Context) (*session, error) {
	h.mu.Lock()
	s, closed := h.live, h.closed
	h.mu.Unlock()
	if closed {
		return nil, kv.ErrClosed
	}
	if s != nil {
		return s, nil
	}
	s, err := h.open(ctx)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	closed = h.closed
	if !closed {
		h.live = s
	}
	h.mu.Unlock()
	if closed {
		s.end()
		return nil, kv.ErrClosed
	}
	s.start()
	return s, nil
}

// open connects to every node.
func (h *hub) open(ctx context.Context) (*session, error) {
	nodes, err := h.e.nodes(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{hub: h, done: make(chan struct{}), patterns: make(map[string]map[*kv.Sink]struct{})}
	for _, n := range nodes {
		f, err := s.connect(ctx, n)
		if err != nil {
			s.end()
			return nil, err
		}
		s.feeds = append(s.feeds, f)
	}
	return s, nil
}

// close ends the connections and waits for their goroutines.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	s := h.live
	h.live = nil
	h.mu.Unlock()
	if s != nil {
		s.end()
	}
	h.work.close()
	h.work.wait()
}

// pattern returns the pattern of the channels on which changes of keys with prefix are told.
func (s *session) pattern(prefix string) string {
	return escapeGlob(s.feeds[0].channel) + escapeGlob(prefix) + "*"
}

// add adds sink to those of pattern and says whether it is the first.
func (s *session) add(pattern string, sink *kv.Sink) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sinks, ok := s.patterns[pattern]
	if !ok {
		sinks = make(map[*kv.Sink]struct{})
		s.patterns[pattern] = sinks
	}
	sinks[sink] = struct{}{}
	return !ok
}

// remove removes sink from those of pattern and says whether none is left.
func (s *session) remove(pattern string, sink *kv.Sink) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.patterns[pattern], sink)
	return len(s.patterns[pattern]) == 0 && !s.over
}

// stop removes sink, and the subscription if nobody else wants it. It doesn't wait for a server.
func (s *session) stop(pattern string, sink *kv.Sink) {
	if s.remove(pattern, sink) {
		s.hub.e.calls.start(func() { s.drop(pattern) })
	}
}

// drop ends the subscription to pattern unless somebody wants it by now.
func (s *session) drop(pattern string) {
	select {
	case s.hub.turn <- struct{}{}:
		defer func() { <-s.hub.turn }()
	case <-s.done:
		return
	}
	s.mu.Lock()
	unwanted := len(s.patterns[pattern]) == 0 && s.patterns[pattern] != nil
	if unwanted {
		delete(s.patterns, pattern)
	}
	s.mu.Unlock()
	if unwanted && s.unsubscribe(pattern) != nil {
		s.fail()
	}
}

// subscribe returns when every node has confirmed the subscription to pattern.
func (s *session) subscribe(ctx context.Context, pattern string) error {
	return s.each(ctx, func(f *feed) error {
		return f.conn.Do(ctx, f.conn.B().Psubscribe().Pattern(pattern).Build()).Error()
	})
}

func (s *session) unsubscribe(pattern string) error {
	ctx, cancel := context.WithTimeout(context.Background(), pulseTimeout)
	defer cancel()
	return s.each(ctx, func(f *feed) error {
		return f.conn.Do(ctx, f.conn.B().Punsubscribe().Pattern(pattern).Build()).Error()
	})
}

// each runs f for all feeds at the same time.
func (s *session) each(ctx context.Context, f func(*feed) error) error {
	errs := make(chan error, len(s.feeds))
	for _, fd := range s.feeds {
		if !s.hub.e.calls.start(func() { errs <- f(fd) }) {
			return kv.ErrClosed
		}
	}
	var err error
	for range s.feeds {
		select {
		case e := <-errs:
			err = errors.Join(err, e)
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return readFault(valkey.ErrClosing)
		}
	}
	return readFault(err)
}

// start starts the goroutines of the feeds.
func (s *session) start() {
	for _, f := range s.feeds {
		s.hub.work.start(f.deliver)
		s.hub.work.start(f.keepAlive)
	}
}

// fail ends the session and every watch on it: events may have been missed.
func (s *session) fail() {
	h := s.hub
	h.mu.Lock()
	if h.live == s {
		h.live = nil
	}
	h.mu.Unlock()
	for _, sink := range s.end() {
		sink.Fail(kv.ErrLagged)
	}
}

// end closes the connections and returns the sinks, the first time that it is called.
func (s *session) end() (sinks []*kv.Sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	s.over = true
	close(s.done)
	for _, all := range s.patterns {
		for sink := range all {
			sinks = append(sinks, sink)
		}
	}
	for _, f := range s.feeds {
		if !s.hub.work.start(f.conn.Close) { // it waits a second for a silent server
			f.conn.Close()
		}
	}
	return sinks
}

// send passes ev to the sinks of pattern.
func (s *session) send(pattern string, ev kv.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sink := range s.patterns[pattern] {
		if !sink.Send(ev) {
			delete(s.patterns[pattern], sink)
		}
	}
	if len(s.patterns[pattern]) == 0 && s.patterns[pattern] != nil && !s.over {
		s.hub.e.calls.start(func() { s.drop(pattern) })
	}
}

// eventType says what the server's name of a change means; false for what is no
// change of an entry. Names that are not known, of commands to come, count as
// writes: the entry is read anyway, and there is none if the key is no string.
func eventType(name string) (kv.EventType, bool) {
	switch name {
	case "del", "evicted", "rename_from", "move_from":
		return kv.EventDelete, true
	case "expired":
		return kv.EventExpire, true
	case "expire", "persist", "new", "keymiss":
		return 0, false
	}
	return kv.EventPut, true
}

// writesString says whether the change is surely one of an entry, and not of a list or another type.
func writesString(name string) bool {
	switch name {
	case "set", "incrby", "incrbyfloat", "append", "setrange":
		return true
	}
	return false
}

// keyOf returns the key that a channel tells of.
func (f *feed) keyOf(channel string) string { return strings.TrimPrefix(channel, f.channel) }
