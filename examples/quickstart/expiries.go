package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kvrecipes/kv"
)

// expiries counts the notes that a watch sees expire.
type expiries struct {
	mu     sync.Mutex
	seen   int           // guarded by mu
	wanted int           // guarded by mu; -1 while unknown
	all    chan struct{} // closed when seen reaches wanted
}

// watchExpiries counts from now on, until ctx ends or the store closes.
func watchExpiries(ctx context.Context, notes *kv.Store) (*expiries, error) {
	w, err := notes.Watch(ctx, "")
	if err != nil {
		return nil, err
	}
	x := &expiries{wanted: -1, all: make(chan struct{})}
	go func() {
		for {
			for event := range w.Events() {
				if event.Type == kv.EventExpire {
					x.count(1)
				}
			}
			// A watcher that falls more than 1,024 events behind is closed rather than
			// holding up a writer: watch again, and know that some were missed.
			if !errors.Is(w.Err(), kv.ErrLagged) {
				return
			}
			if w, err = notes.Watch(ctx, ""); err != nil {
				return
			}
		}
	}()
	return x, nil
}

func (x *expiries) count(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seen += n
	if x.seen == x.wanted {
		close(x.all)
	}
}

// wait returns how many notes the watch has seen expire, once it has seen
// written of them or once all must have, had it missed some.
func (x *expiries) wait(ctx context.Context, written int) (seen int) {
	x.mu.Lock()
	x.wanted = written
	x.mu.Unlock()
	x.count(0)
	select {
	case <-x.all:
	case <-time.After(noteTTL + time.Second):
	case <-ctx.Done():
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen
}
