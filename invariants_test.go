package kv

import (
	"fmt"
	"math"
	"slices"
)

// check holds the parts of the engine against each other: table, records, key
// numbers, arena, timers and order must tell the same story. Nobody may write meanwhile.
func (m *memory) check() error {
	defer m.pause()()
	m.order.handOut()
	inOrder, err := m.order.check()
	if err != nil {
		return err
	}
	for i := range m.shards {
		if err := m.shards[i].check(inOrder[uint32(i)]); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

// pause stops the engine's background work until the function that it returns is called.
func (m *memory) pause() (resume func()) {
	r, o := &m.reaper, &m.order
	wasClosed := r.closed
	r.close()
	o.close()
	return func() {
		if wasClosed {
			return
		}
		o.life.Lock()
		o.closed = false
		o.life.Unlock()
		o.busy.Store(false) // a kick meanwhile found it closed
		r.mu.Lock()
		defer r.mu.Unlock()
		r.closed = false
		r.armed.Store(math.MaxInt64)
		for i := range m.shards {
			if due := m.shards[i].due.Load(); due < math.MaxInt64 {
				r.armLocked(due)
			}
		}
	}
}

// check returns how often each key number occurs in the leaves, by shard.
func (o *order) check() (map[uint32]map[uint32]int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := make(map[uint32]map[uint32]int)
	total := 0
	leaves := o.tree.Items()
	for i, s := range leaves {
		last := ""
		for j, id := range slices.Concat(s.sorted, s.pending) {
			total++
			sh, number := o.engine.owner(id)
			if seen[sh.number] == nil {
				seen[sh.number] = make(map[uint32]int)
			}
			seen[sh.number][number]++
			rec, ok := o.engine.resolve(id)
			if !ok {
				continue
			}
			key := rec.key()
			if key < s.low || i+1 < len(leaves) && key >= leaves[i+1].low {
				return nil, fmt.Errorf("key %q is in the leaf of %q", key, s.low)
			}
			if j < len(s.sorted) {
				if key <= last {
					return nil, fmt.Errorf("key %q comes after %q", key, last)
				}
				last = key
			}
		}
	}
	if total != o.total {
		return nil, fmt.Errorf("%d numbers in leaves, counted %d", total, o.total)
	}
	return seen, nil
}

// deadIn returns the bytes of a chunk's records that are marked as dead.
func (sh *shard) deadIn(c int) (dead int) {
	used := sh.arena.chunks[c].used
	if c == int(sh.arena.open) {
		used = int(sh.arena.used)
	}
	for offset := 0; offset < used; {
		rec := sh.view.Load().record(makeRef(c, offset))
		if rec.id() == noNumber {
			dead += rec.size()
		}
		offset += rec.size()
	}
	return dead
}

func (sh *shard) check(inOrder map[uint32]int) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	v := sh.view.Load()
	if sh.seq.Load()%2 != 0 || sh.depth != 0 {
		return fmt.Errorf("seq %d, depth %d at rest", sh.seq.Load(), sh.depth)
	}
	staged := make(map[uint32]int)
	for _, id := range sh.staged {
		staged[id]++
	}
	keys, payload, live, ids := 0, 0, 0, make(map[uint32]bool)
	var problem error
	v.each(func(i slotAt, slot uint64) {
		rec := v.record(slotRef(slot))
		id := rec.id()
		keys++
		payload += rec.payload()
		live += rec.size()
		ids[id] = true
		if at, _, found := sh.locateLocked(rec.key(), slotHash(slot)); !found || at != i {
			problem = fmt.Errorf("key %q at word %d can't be found", rec.key(), i)
		}
		if l := v.locator(id); l.ref() != slotRef(slot) || l.shape() != rec.shape() {
			problem = fmt.Errorf("number %d of key %q points elsewhere", id, rec.key())
		}
		if staged[id]+inOrder[id] != 1 {
			problem = fmt.Errorf("key %q is staged %d times and in the order %d times", rec.key(), staged[id], inOrder[id])
		}
		if err := sh.checkTimer(id, rec); err != nil {
			problem = err
		}
	})
	if problem != nil {
		return problem
	}
	dead := 0
	for id, n := range inOrder {
		if !ids[id] {
			dead += n
		}
	}
	for id, n := range staged {
		if !ids[id] {
			dead += n
		}
	}
	free := make(map[uint32]bool)
	for _, id := range sh.freeIDs {
		if free[id] || ids[id] || staged[id]+inOrder[id] > 0 {
			return fmt.Errorf("number %d is free and in use", id)
		}
		free[id] = true
	}
	deadBytes, ripe := 0, 0
	for c, state := range sh.arena.chunks {
		deadBytes += state.dead
		if state.ripe() {
			ripe++
		}
		if dead := sh.deadIn(c); dead != state.dead {
			return fmt.Errorf("chunk %d: %d bytes of dead records, counted %d", c, dead, state.dead)
		}
		if (state != chunkState{}) != (c < len(v.chunks) && v.chunk(c) != nil) {
			return fmt.Errorf("chunk %d: %+v but its memory says otherwise", c, state)
		}
	}
	if err := sh.checkGarbage(); err != nil {
		return err
	}
	if n := keys + dead + len(free); n != int(sh.nextID) {
		return fmt.Errorf("%d keys, %d dead, %d free numbers, but %d were given", keys, dead, len(free), sh.nextID)
	}
	got := []int{sh.keys, sh.payload, sh.arena.live, sh.arena.dead, int(sh.arena.ripe), sh.deadIDs}
	if want := []int{keys, payload, live, deadBytes, ripe, dead}; !slices.Equal(got, want) {
		return fmt.Errorf("keys, payload, live, dead bytes, ripe chunks, dead numbers are counted as %v, are %v", got, want)
	}
	return nil
}

// checkGarbage checks that compaction keeps up, and that it has left nothing behind where it was.
func (sh *shard) checkGarbage() error {
	a := &sh.arena
	if a.dead > a.live+2*chunkBytes {
		return fmt.Errorf("%d bytes live, but %d dead", a.live, a.dead)
	}
	if a.victim == 0 {
		return nil
	}
	base, used := sh.view.Load().chunk(int(a.victim)), a.chunks[a.victim].used
	if a.victim == a.open || base == nil || int(a.cleared) >= used {
		return fmt.Errorf("chunk %d of %d bytes, %d of them cleared, is the victim", a.victim, used, a.cleared)
	}
	for offset := 0; offset < int(a.cleared); {
		rec := makeRef(int(a.victim), offset).at(base)
		if rec.id() != noNumber {
			return fmt.Errorf("key %q is left in a part of chunk %d that was cleared", rec.key(), a.victim)
		}
		offset += rec.size()
	}
	return nil
}

// checkTimer checks that a key with a deadline is filed under no later time.
func (sh *shard) checkTimer(id uint32, rec record) error {
	w := &sh.timers
	at := int(firstKey + id)
	filed := at < len(w.links) && w.links[at].next != 0
	if filed != (rec.deadline() != 0) {
		return fmt.Errorf("key %q with deadline %d: filed is %v", rec.key(), rec.deadline(), filed)
	}
	if !filed {
		return nil
	}
	head := w.links[at].next
	for head >= firstKey {
		head = w.links[head].next
	}
	level, i := int(head-firstHead)/perLevel, int(head-firstHead)%perLevel
	if w.occupied[level]&(1<<i) == 0 {
		return fmt.Errorf("key %q is in list %d of level %d, which counts as empty", rec.key(), i, level)
	}
	shift := level * levelBits
	begins := w.now>>(shift+levelBits)<<(shift+levelBits) | int64(i)<<shift
	if begins > w.tickOf(rec.deadline()) {
		return fmt.Errorf("key %q is looked at in tick %d, its deadline is tick %d", rec.key(), begins, w.tickOf(rec.deadline()))
	}
	if due := sh.due.Load(); due > w.due() && due > w.timeOf(w.tickOf(rec.deadline())) {
		return fmt.Errorf("key %q: the reaper comes at %d, its deadline is %d", rec.key(), due, rec.deadline())
	}
	return nil
}
