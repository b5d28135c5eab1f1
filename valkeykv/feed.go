package valkeykv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

const (
	// wanted are the classes of notifications: on channels named after keys (K), of generic
	// commands (g) and those on strings ($), of expiry (x) and eviction (e).
	wanted = "Kg$xe"

	// maxPending bounds the notifications that have not been passed on yet.
	maxPending = 16384

	// pulse is how often a node is asked whether it still is what it was when
	// the watch began. Servers tell watchers neither that they have become replicas nor that slots
	// have moved to other nodes nor that notifications were turned off.
	pulse        = time.Second
	pulseTimeout = 3 * time.Second
)

// feed is the connection by which one node pushes its changes.
type feed struct {
	s       *session
	node    node
	conn    valkey.DedicatedClient
	channel string // what the channels of keys begin with, "__keyspace@0__:"
	lost    <-chan error
	blind   bool // CONFIG is not allowed

	mu      sync.Mutex
	pending []valkey.PubSubMessage // guarded by mu; in the order of the changes
	broken  bool                   // guarded by mu; there was a change that is not in pending
	wake    chan struct{}          // has one element if there is something to do
}

// connect connects to n.
func (s *session) connect(ctx context.Context, n node) (*feed, error) {
	type made struct {
		f   *feed
		err error
	}
	done := make(chan made, 1)
	calls := &s.hub.e.calls
	if !calls.start(func() {
		f, err := s.makeFeed(ctx, n)
		done <- made{f, err}
	}) {
		return nil, kv.ErrClosed
	}
	select {
	case m := <-done:
		return m.f, m.err
	case <-ctx.Done():
		calls.start(func() { // it does not heed ctx while it connects
			if m := <-done; m.f != nil {
				m.f.conn.Close()
			}
		})
		return nil, ctx.Err()
	}
}

func (s *session) makeFeed(ctx context.Context, n node) (*feed, error) {
	conn, _ := n.client.Dedicate() // is never given back to the pool, but closed
	f := &feed{s: s, node: n, conn: conn, wake: make(chan struct{}, 1)}
	conn.SetPubSubHooks(valkey.PubSubHooks{OnMessage: f.push})
	f.lost = conn.SetOnInvalidations(func(keys []valkey.ValkeyMessage) {
		if keys == nil {
			f.fail() // FLUSHALL or FLUSHDB, of which there are no notifications
		}
	})
	if err := f.prepare(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return f, nil
}

// prepare has the server tell changes on the connection.
func (f *feed) prepare(ctx context.Context) error {
	b := f.conn.B()
	info, err := f.conn.Do(ctx, b.ClientInfo().Build()).ToString()
	if err != nil {
		return readFault(err)
	}
	db := "0"
	for _, field := range strings.Fields(info) {
		if n, ok := strings.CutPrefix(field, "db="); ok {
			db = n
		}
	}
	f.channel = "__keyspace@" + db + "__:"

	// Tracking, which nothing is read under, tells of one thing alone: that all keys were flushed.
	err = f.conn.Do(ctx, b.ClientTracking().On().Optin().Build()).Error()
	if err != nil && !strings.Contains(err.Error(), "You can't switch") { // tracking in another mode does as well
		return fmt.Errorf("watch: CLIENT TRACKING, which needs RESP3: %w", readFault(err))
	}
	return f.enable(ctx)
}

// enable turns on the notifications that are wanted, in addition to those that are on.
func (f *feed) enable(ctx context.Context) error {
	b := f.conn.B()
	on, err := f.notifications(ctx)
	if _, refused := valkey.IsValkeyErr(err); refused {
		f.blind = true
		return f.probe(ctx)
	}
	if err != nil || covers(on) {
		return readFault(err)
	}
	err = f.conn.Do(ctx, b.ConfigSet().ParameterValue().ParameterValue("notify-keyspace-events", on+wanted).Build()).Error()
	if err != nil {
		return fmt.Errorf("watch: CONFIG SET notify-keyspace-events %s: %w", wanted, readFault(err))
	}
	return nil
}

// notifications returns the classes that are on.
func (f *feed) notifications(ctx context.Context) (string, error) {
	config, err := f.conn.Do(ctx, f.conn.B().ConfigGet().Parameter("notify-keyspace-events").Build()).AsStrMap()
	return config["notify-keyspace-events"], err
}

// covers says whether the classes that are on include those wanted.
func covers(on string) bool {
	for _, class := range wanted {
		if !strings.ContainsRune(on, class) && (class == 'K' || !strings.ContainsRune(on, 'A')) {
			return false
		}
	}
	return true
}

// push takes a notification. The connection is read by nobody else meanwhile, so it must not wait.
func (f *feed) push(m valkey.PubSubMessage) {
	f.mu.Lock()
	if len(f.pending) < maxPending {
		f.pending = append(f.pending, m)
	} else {
		f.broken = true
	}
	f.mu.Unlock()
	f.poke()
}

// fail says that a change was missed.
func (f *feed) fail() {
	f.mu.Lock()
	f.broken = true
	f.mu.Unlock()
	f.poke()
}

func (f *feed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// deliver passes notifications on until the session ends.
func (f *feed) deliver() {
	for {
		select {
		case <-f.s.done:
			return
		case <-f.lost:
			f.s.fail()
			return
		case <-f.wake:
		}
		f.mu.Lock()
		pending, broken := f.pending, f.broken
		f.pending = nil
		f.mu.Unlock()
		for chunk := range slices.Chunk(pending, readAtOnce) {
			if err := f.pass(chunk); err != nil {
				broken = true
				break
			}
		}
		if broken {
			f.s.fail()
			return
		}
	}
}

// gone is the deadline of the entry of a write that has been undone before it
// could be read. It has passed: such an entry is live for nobody.
var gone = time.Unix(0, 0)

// pass passes the changes on that notifications tell of, in their order. What was
// written is read now, all at once: it is what the notification told of, or newer.
// If there is nothing any more, the entry is the key alone with a deadline that has passed, and a deletion or expiry follows.
func (f *feed) pass(notifications []valkey.PubSubMessage) error {
	entries, err := f.read(notifications)
	if err != nil {
		return err
	}
	for _, m := range notifications {
		ev := kv.Event{Entry: kv.Entry{Key: f.keyOf(m.Channel)}}
		var ok bool
		if ev.Type, ok = eventType(m.Message); ok && ev.Type == kv.EventPut {
			entry, found := entries[ev.Entry.Key]
			if !found {
				entry = kv.Entry{Key: ev.Entry.Key, ExpiresAt: gone}
			}
			ev.Entry, ok = entry, found || writesString(m.Message)
		}
		if ok {
			f.s.send(m.Pattern, ev)
		}
	}
	return nil
}

// read returns the entries of the keys that were written.
func (f *feed) read(notifications []valkey.PubSubMessage) (map[string]kv.Entry, error) {
	var keys []string
	entries := make(map[string]kv.Entry)
	for _, m := range notifications {
		if t, ok := eventType(m.Message); ok && t == kv.EventPut {
			key := f.keyOf(m.Channel)
			if _, known := entries[key]; !known {
				entries[key] = kv.Entry{}
				keys = append(keys, key)
			}
		}
	}
	clear(entries)
	ctx, cancel := context.WithTimeout(context.Background(), pulseTimeout)
	defer cancel()
	for some, err := range f.s.hub.e.entries(ctx, keys, false) {
		if err != nil {
			return nil, err
		}
		for _, entry := range some {
			entries[entry.Key] = entry
		}
	}
	return entries, nil
}

// keepAlive asks the node every pulse whether it still tells everything, until the session ends.
func (f *feed) keepAlive() {
	ticker := time.NewTicker(pulse)
	defer ticker.Stop()
	for {
		select {
		case <-f.s.done:
			return
		case <-ticker.C:
		}
		if err := f.check(); err != nil {
			f.s.fail()
			return
		}
	}
}

var errChanged = errors.New("the node is not what it was")

// check returns an error unless the node answers and holds what it held.
func (f *feed) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), pulseTimeout)
	defer cancel()
	if !f.blind {
		on, err := f.notifications(ctx)
		if err != nil {
			return err
		}
		if !covers(on) {
			return errChanged
		}
	}
	if f.s.hub.e.cluster {
		return f.checkSlots(ctx)
	}
	role, err := f.conn.Do(ctx, f.conn.B().Role().Build()).ToArray()
	if err != nil {
		return err
	}
	if name, _ := role[0].ToString(); name != "master" {
		return errChanged
	}
	return nil
}

// checkSlots returns an error if the node holds other slots, or keys of a slot are moving.
func (f *feed) checkSlots(ctx context.Context) error {
	text, err := f.conn.Do(ctx, f.conn.B().ClusterNodes().Build()).ToString()
	if err != nil {
		return err
	}
	if n := parseSelf(strings.TrimPrefix(text, "txt:")); n.moving || !slices.Equal(n.slots, f.node.slots) {
		return errChanged
	}
	return nil
}
