package kv

import (
	"context"
	"iter"
	"time"
)

// A walker goes through the order between two bounds, a batch of records at a
// time: it holds the order's lock only while it collects a batch.
type walker struct {
	engine  *memory
	low     string // the walk's bounds: low <= key < high; "" is open
	high    string
	reverse bool
	done    bool

	started bool // at is the last key that was collected
	at      string

	pivot     leaf   // what leafLocked looks for; here to save its memory
	unsettled *leaf  // must be sorted before the walk can go on
	hint      *leaf  // where the last batch ended: at place hintNext of its sorted,
	hintAt    uint64 // unless hint.changes differs from this
	hintNext  int

	room [secondBatch]located // memory of the first batches
}

// A scan fetches few records at first, in case that few are wanted, then a page's worth, then many.
const (
	firstBatch  = 16
	secondBatch = 96
	largeBatch  = 512
)

func newWalker(m *memory, r Range) *walker {
	w := &walker{engine: m, low: max(r.Prefix, r.From), high: prefixEnd(r.Prefix), reverse: r.Reverse}
	if r.To != "" && (w.high == "" || r.To < w.high) {
		w.high = r.To
	}
	w.done = w.high != "" && w.low >= w.high
	return w
}

// prefixEnd returns the least string above all that begin with prefix, "" if there is none.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return ""
}

// startAfter makes the walk begin behind a key.
func (w *walker) startAfter(key string) { w.started, w.at = true, key }

// next appends the next records to batch, up to its capacity. The walk is over when it returns none.
func (w *walker) next(batch []located) []located {
	o := &w.engine.order
	o.handOut()
	for !w.done && len(batch) == 0 {
		o.mu.RLock()
		batch = w.collectLocked(batch)
		o.mu.RUnlock()
		if len(batch) == 0 && w.unsettled != nil {
			o.settle(w.unsettled)
		}
	}
	return batch
}

// collectLocked appends records until batch is full, the walk is done, or it
// comes to a leaf that must be settled first, which is then w.unsettled.
func (w *walker) collectLocked(batch []located) []located {
	s, i := w.placeLocked()
	for w.unsettled = nil; ; {
		if !s.settled() {
			w.unsettled = s
			break
		}
		if batch, i = w.collectLeaf(s, i, batch); w.done || len(batch) == cap(batch) {
			break
		}
		next := w.neighbourLocked(s)
		if next == nil {
			w.done = true
			break
		}
		s, i = next, 0
		if w.reverse {
			i = len(s.sorted) - 1
		}
	}
	w.hint, w.hintAt, w.hintNext = s, s.changes, i
	if n := len(batch); n > 0 {
		w.started, w.at = true, batch[n-1].key()
	}
	return batch
}

// placeLocked returns the leaf and the place in it from which to go on.
func (w *walker) placeLocked() (*leaf, int) {
	if w.hint != nil && w.hint.changes == w.hintAt {
		return w.hint, w.hintNext
	}
	if w.reverse {
		s, key := w.lastLocked()
		if key == "" {
			return s, len(s.sorted) - 1
		}
		return s, w.engine.search(s, key, false) - 1
	}
	key := w.low
	if w.started && w.at >= key {
		key = w.at
	}
	s := w.leafLocked(key)
	return s, w.engine.search(s, key, w.started && w.at == key)
}

// lastLocked returns the key below which a walk in reverse goes on, "" for the end, and its leaf.
func (w *walker) lastLocked() (*leaf, string) {
	key := w.high
	if w.started && (key == "" || w.at < key) {
		key = w.at
	}
	o := &w.engine.order
	if key == "" {
		s, _ := o.tree.Max()
		return s, ""
	}
	return w.leafLocked(key), key
}

// leafLocked returns the leaf that key belongs to.
func (w *walker) leafLocked(key string) *leaf {
	w.pivot.low = key
	return w.engine.order.leafLocked(&w.pivot)
}

func (w *walker) neighbourLocked(s *leaf) *leaf {
	if w.reverse {
		if s.low <= w.low {
			return nil
		}
		return w.engine.order.beforeLocked(s)
	}
	next := w.engine.order.afterLocked(s)
	if next == nil || w.high != "" && next.low >= w.high {
		return nil
	}
	return next
}

// collectLeaf appends the records from place i of a leaf on, and returns the
// place behind the last. Its loop looks at no record, so that the processor goes
// through it with many loads under way; only the last one is held against the walk's bound.
func (w *walker) collectLeaf(s *leaf, i int, batch []located) ([]located, int) {
	step, from := 1, len(batch)
	if w.reverse {
		step = -1
	}
	for n, j := cap(batch)-from, i; n > 0 && j >= 0 && j < len(s.sorted); n, j = n-1, j+step {
		w.engine.prefetchLocator(s.sorted[j])
	}
	for ; i >= 0 && i < len(s.sorted) && len(batch) < cap(batch); i += step {
		sh, number := w.engine.owner(s.sorted[i])
		if rec, ok := sh.resolve(number); ok {
			batch = append(batch, rec)
		}
	}
	for len(batch) > from && w.outside(batch[len(batch)-1].key()) {
		batch, w.done = batch[:len(batch)-1], true
	}
	return batch, i
}

// outside says whether key lies behind the end of the walk.
func (w *walker) outside(key string) bool {
	if w.reverse {
		return key < w.low
	}
	return w.high != "" && key >= w.high
}

// settle sorts a leaf.
func (o *order) settle(s *leaf) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !s.settled() {
		o.settleLocked(s)
	}
}

// search returns the first place in s.sorted whose key is not below key (with
// beyond: is above it). Places of keys that are gone may come before it.
func (m *memory) search(s *leaf, key string, beyond bool) int {
	low, high := s.narrow(key)
	for low < high {
		mid := int(uint(low+high) / 2)
		i := mid
		rec, ok := m.resolve(s.sorted[i])
		for !ok && i+1 < high {
			i++
			rec, ok = m.resolve(s.sorted[i])
		}
		if ok && (rec.key() < key || beyond && rec.key() == key) {
			low = i + 1
		} else {
			high = mid
		}
	}
	return low
}

// Scan implements [Engine].
func (m *memory) Scan(ctx context.Context, r Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		w := newWalker(m, r)
		step := m.clock.step()
		ends := ctx.Done() != nil
		batch := w.room[:0:firstBatch]
		for n := 1; ; n++ {
			if batch = w.next(batch[:0]); len(batch) == 0 {
				break
			}
			for _, rec := range batch {
				if ends && ctx.Err() != nil {
					yield(Entry{}, ctx.Err())
					return
				}
				e, live := Entry{}, true
				if rec.isPlain() { // the common case, in line: it is what long scans cost
					if e.Key, e.Value = rec.short(); r.KeysOnly {
						e.Value = ""
					}
				} else {
					e, live = m.scanned(rec, r.KeysOnly, step)
				}
				if live && !yield(e, nil) {
					return
				}
			}
			switch n {
			case 1:
				batch = w.room[:0]
			case 2:
				batch = make([]located, 0, largeBatch)
			}
		}
		if err := ctx.Err(); err != nil {
			yield(Entry{}, err)
		}
	}
}

// scanned returns the entry of a record that a walker found, false if it has
// expired meanwhile. Its deadline may have been moved since; so it is looked up again then. The
// state of a quota is looked up, too: its numbers may be changing.
func (m *memory) scanned(rec located, keyOnly bool, step time.Duration) (Entry, bool) {
	deadline := rec.deadline()
	if m.clock.expired(deadline) || rec.isState() && !keyOnly {
		now, live := m.settled(rec.key())
		if !live {
			return Entry{}, false
		}
		rec, deadline = located{now, now.shape()}, now.deadline()
	}
	if keyOnly {
		return Entry{Key: rec.key(), ExpiresAt: m.clock.wall(deadline, step)}, true
	}
	f := rec.fields()
	return Entry{Key: f.key, Value: f.value, Metadata: f.metadata, ExpiresAt: m.clock.wall(deadline, step)}, true
}

// Page implements [Engine]. A position is "k" and the last key of the page before.
func (m *memory) Page(ctx context.Context, r Range, cursor string, limit int) ([]Entry, string, error) {
	w := newWalker(m, r)
	if cursor != "" {
		if cursor[0] != 'k' {
			return nil, "", ErrCursor
		}
		w.startAfter(cursor[1:])
	}
	step := m.clock.step()
	var entries []Entry
	batch := make([]located, 0, min(limit+1, largeBatch))
	for {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		if batch = w.next(batch[:0]); len(batch) == 0 {
			return entries, "", nil
		}
		for _, rec := range batch {
			e, live := m.scanned(rec, r.KeysOnly, step)
			if live && len(entries) == limit {
				return entries, "k" + entries[limit-1].Key, nil
			}
			if live {
				entries = append(entries, e)
			}
		}
	}
}
