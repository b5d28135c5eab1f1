package valkeykv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/valkey-io/valkey-go"
)

// errSilent: CONFIG may not be asked, and nothing is told.
var errSilent = fmt.Errorf("watch: the server tells no changes, and CONFIG is not allowed: set notify-keyspace-events to %q", wanted)

const (
	probeTimeout = 2 * time.Second
	probeTTL     = time.Minute // of what a probe that is cut off leaves behind
)

// probe finds out whether the server tells writes, deletes and expiries where
// CONFIG can't be asked, as on most hosted servers, by doing one of each on a key of its own. (Whether it tells
// evictions can't be found out so.)
func (f *feed) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	key := f.probeKey()
	subscribe := f.conn.B().Subscribe().Channel(f.channel + key).Build()
	if err := f.conn.Do(ctx, subscribe).Error(); err != nil {
		return readFault(err)
	}
	if err := f.changes(ctx, key); err != nil {
		return fmt.Errorf("watch: a trial, because CONFIG is not allowed: %w", readFault(err))
	}
	if err := f.await(ctx, "set", "expired", "del"); err != nil {
		return err
	}
	return readFault(f.conn.Do(ctx, f.conn.B().Unsubscribe().Channel(f.channel+key).Build()).Error())
}

// probeKey returns a key that nobody else uses, which the node holds.
func (f *feed) probeKey() string {
	tag := ""
	if len(f.node.slots) > 0 {
		tag = "{" + keyOfSlot(f.node.slots[0].first, f.s.hub.e.slot) + "}"
	}
	return "kv:probe:" + tag + rand.Text()
}

// changes writes key, lets it expire, writes it again and deletes it.
func (f *feed) changes(ctx context.Context, key string) error {
	c := f.node.client
	if err := c.Do(ctx, c.B().Set().Key(key).Value("").PxMilliseconds(1).Build()).Error(); err != nil {
		return err
	}
	for { // a server notices at the latest when it is asked
		err := c.Do(ctx, c.B().Get().Key(key).Build()).Error()
		if valkey.IsValkeyNil(err) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := c.Do(ctx, c.B().Set().Key(key).Value("").PxMilliseconds(probeTTL.Milliseconds()).Build()).Error(); err != nil {
		return err
	}
	return c.Do(ctx, c.B().Del().Key(key).Build()).Error()
}

// await takes notifications until all names have come.
func (f *feed) await(ctx context.Context, names ...string) error {
	missing := make(map[string]bool)
	for _, name := range names {
		missing[name] = true
	}
	for len(missing) > 0 {
		select {
		case <-f.wake:
		case err := <-f.lost:
			return readFault(errors.Join(valkey.ErrClosing, err))
		case <-ctx.Done():
			return errSilent
		}
		f.mu.Lock()
		for _, m := range f.pending {
			delete(missing, m.Message)
		}
		f.pending = nil
		f.mu.Unlock()
	}
	return nil
}
