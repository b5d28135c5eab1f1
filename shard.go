package kv

import (
	"math"
	"sync"
	"sync/atomic"
	"unsafe"
)

// A shard holds the keys of one part of the hash space: a table of refs, and the
// arena with the records that they point to.
//
// Writers hold mu. Readers hold nothing: they follow view -> slot -> chunk ->
// record through atomic loads. Replacing a record is one store of its slot, which needs nothing
// more. What would mislead a reader on its way (another table, letting a chunk
// go, replacing the view, the steps of a transaction) happens while seq is odd,
// and a reader that finds seq odd or changed starts again. It compares seq
// before it follows a pointer into a chunk, so it never reads memory that is being written.
//
// The fields are grouped by cache line: a line that the other processor has written costs as much as one from
// memory, so what is read everywhere stays away from what is written, and a write needs few lines.
type shard struct {
	// Read by every operation, written rarely.
	seq    atomic.Uint64
	view   atomic.Pointer[view]
	engine *memory // immutable
	number uint32  // immutable: this shard's place in the engine
	_      [cacheLine - 28]byte

	// What every write needs, and the beginning of arena.
	mu      sync.Mutex
	keys    int    // guarded by mu: records in the table
	payload int    // guarded by mu: bytes of keys, values and metadata
	chores  chores // guarded by mu: what to do when mu has been unlocked
	arena   arena
	depth   int   // guarded by mu: nesting of begin
	expired int64 // guarded by mu: total

	// What new keys need.
	staged  []uint32 // guarded by mu: numbers of keys that are not in the order yet
	freeIDs []uint32 // guarded by mu: numbers of no key, to be given again
	nextID  uint32   // guarded by mu: numbers from here on were never given
	deadIDs int      // guarded by mu: numbers of keys that are gone but still in the order

	// What deadlines need.
	timers wheel // guarded by mu
	due    atomic.Int64
	_      [16]byte
}

const cacheLine = 64

// view is what readers see of a shard. The elements of its slices are read and
// written atomically, except to copy them with mu held.
type view struct {
	table
	chunks []unsafe.Pointer // by chunk number; nil for one that was let go
	ids    []locator        // by key number; 0 for a number of no key
}

// A locator is the ref of a record, and in its upper half the record's shape: a scan need not go to
// the record to know how long key and value are.
type locator uint64

func (l locator) ref() ref      { return ref(uint32(l)) }
func (l locator) shape() uint32 { return uint32(l >> 32) }

func (v *view) locator(id uint32) locator {
	return locator(atomic.LoadUint64((*uint64)(&v.ids[id])))
}

func (v *view) prefetchLocator(id uint32) {
	if int(id) < len(v.ids) {
		prefetch(uintptr(unsafe.Pointer(&v.ids[id])))
	}
}

func (v *view) setLocator(id uint32, r ref, shape uint32) {
	atomic.StoreUint64((*uint64)(&v.ids[id]), uint64(shape)<<32|uint64(r))
}

func (v *view) record(r ref) record { return r.at(v.chunk(r.chunk())) }

func (v *view) setChunk(c int, p unsafe.Pointer) { atomic.StorePointer(&v.chunks[c], p) }

// chunk returns the memory of a chunk, nil if this view is too old to know it: its table and
// ids may be those of later views, too, and lead to chunks that only these have.
func (v *view) chunk(c int) unsafe.Pointer {
	if c >= len(v.chunks) {
		return nil
	}
	return atomic.LoadPointer(&v.chunks[c])
}

// lookupTries is how often a reader starts again before it takes the lock.
const lookupTries = 64

// lookup returns the record of key without taking the lock.
func (sh *shard) lookup(key string, hash uint32) (rec located, found bool) {
	for range lookupTries {
		switch rec, got := sh.tryLookup(key, hash, sh.seq.Load()); got {
		case lookupFound:
			return rec, true
		case lookupAbsent:
			return rec, false
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, r, found := sh.locateLocked(key, hash)
	if !found {
		return located{}, false
	}
	return located{r, r.shape()}, true
}

// peek is lookup for the most common case, straight ahead: a short record, the first candidate in
// its home bucket. The key is still to be compared. false means nothing. This is the hot path of Get.
func (sh *shard) peek(hash uint32, keyLen int) (rec located, ok bool) {
	seq := sh.seq.Load()
	v := sh.view.Load()
	b := &v.buckets[v.home(hash)]
	candidates := matches(b.tags(), tagOf(hash))
	slot := b.slot(place(candidates))
	r := slotRef(slot)
	if candidates == 0 || slotHash(slot) != hash || r.chunk() >= len(v.chunks) {
		return located{}, false
	}
	base := atomic.LoadPointer(&v.chunks[r.chunk()])
	if base == nil || sh.seq.Load() != seq || seq&1 != 0 { // as in tryLookup
		return located{}, false
	}
	rec.record = r.at(base)
	if v.large() {
		rec.prefetchKey(keyLen)
	}
	rec.shape = rec.record.shape()
	return rec, rec.isShort()
}

type lookupResult int

const (
	lookupChanged lookupResult = iota // seq was odd, or it is another one by now
	lookupFound
	lookupAbsent
)

// tryLookup is one try of lookup, at seq.
func (sh *shard) tryLookup(key string, hash uint32, seq uint64) (located, lookupResult) {
	v := sh.view.Load()
	tag, home := tagOf(hash), v.home(hash)
	for i := home; ; {
		b := &v.buckets[i]
		tags := b.tags()
		for m := matches(tags, tag); m != 0; m &= m - 1 {
			slot := b.slot(place(m))
			if slotHash(slot) != hash {
				continue
			}
			r := slotRef(slot)
			base := v.chunk(r.chunk())
			if base == nil || sh.seq.Load() != seq || seq&1 != 0 { // before base is followed: it may be another chunk by now
				return located{}, lookupChanged
			}
			rec := r.at(base)
			if v.large() {
				rec.prefetchKey(len(key))
			}
			if shape := rec.shape(); rec.keyIn(shape) == key {
				return located{rec, shape}, lookupFound
			}
		}
		if i = v.next(i); byte(tags) == 0 || i == home {
			if sh.seq.Load() != seq || seq&1 != 0 {
				return located{}, lookupChanged
			}
			return located{}, lookupAbsent
		}
	}
}

// resolve returns the current record of the key with this number, without
// taking the lock; false if the key is gone. It doesn't touch the record.
func (sh *shard) resolve(id uint32) (located, bool) {
	for range lookupTries {
		seq := sh.seq.Load()
		if seq&1 != 0 {
			continue
		}
		v := sh.view.Load()
		l := v.locator(id)
		if l == 0 {
			return located{}, false
		}
		base := v.chunk(l.ref().chunk())
		if base != nil && sh.seq.Load() == seq {
			return located{l.ref().at(base), l.shape()}, true
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	v := sh.view.Load()
	if l := v.locator(id); l != 0 {
		return located{v.record(l.ref()), l.shape()}, true
	}
	return located{}, false
}

// locateLocked returns the slot and the record of key.
func (sh *shard) locateLocked(key string, hash uint32) (slotAt, record, bool) {
	v := sh.view.Load()
	home := v.home(hash)
	for i := home; ; {
		b := &v.buckets[i]
		for m := matches(b[0], tagOf(hash)); m != 0; m &= m - 1 {
			slot := b[place(m)]
			if slotHash(slot) != hash {
				continue
			}
			rec := v.record(slotRef(slot))
			if v.large() {
				rec.prefetchKey(len(key))
			}
			if rec.key() == key {
				return at(i, place(m)), rec, true
			}
		}
		if i = v.next(i); byte(b[0]) == 0 || i == home {
			return 0, record{}, false
		}
	}
}

// init makes sh an empty shard.
func (sh *shard) init(number uint32, m *memory) {
	sh.number, sh.engine = number, m
	sh.view.Store(&view{table: makeTable(1)})
	sh.due.Store(math.MaxInt64)
	sh.timers.shift = tickShift(m.options.ReapInterval)
}

// beginLocked makes readers wait until the matching endLocked. Calls nest.
func (sh *shard) beginLocked() {
	if sh.depth++; sh.depth == 1 {
		sh.seq.Add(1)
	}
}

func (sh *shard) endLocked() {
	if sh.depth--; sh.depth == 0 {
		sh.seq.Add(1)
	}
}

// chores are what a writer leaves to be done without the lock.
type chores uint8

const (
	choreOrder chores = 1 << iota // the order has work with this shard
	choreHelp                     // so much that the background can't keep up: this writer does some of it
	choreMust                     // so much that it must, even if it has to wait for that
	choreSpare                    // a spare chunk was taken
)

// unlock unlocks mu, and does what there is to do then.
func (sh *shard) unlock() {
	chores := sh.chores
	if chores != 0 {
		sh.chores = 0
	}
	sh.mu.Unlock()
	if chores&choreOrder != 0 {
		sh.engine.order.kick()
	}
	if chores&(choreHelp|choreMust) != 0 {
		sh.engine.order.help(sh, chores&choreMust != 0)
	}
	if chores&choreSpare != 0 {
		sh.engine.spares.refill()
	}
}

// changeViewLocked replaces the view by one that change has altered.
func (sh *shard) changeViewLocked(change func(*view)) {
	next := *sh.view.Load()
	change(&next)
	sh.beginLocked()
	sh.view.Store(&next)
	sh.endLocked()
}

// appendLocked writes a record into the arena. The result is on no one's way yet.
func (sh *shard) appendLocked(id uint32, f *fields) (ref, record, error) {
	n := f.size()
	chunk, offset := 0, 0
	switch {
	case n >= ownChunkBytes:
		if chunk = sh.addChunkLocked(n); chunk == 0 {
			return 0, record{}, errShardFull
		}
		sh.arena.chunks[chunk].used = n
	default:
		if !sh.arena.fits(n) {
			if err := sh.openChunkLocked(n); err != nil {
				return 0, record{}, err
			}
		}
		chunk = int(sh.arena.open)
		offset = int(sh.arena.used)
		sh.arena.used += uint32(n)
	}
	sh.arena.live += n
	r := makeRef(chunk, offset)
	rec := r.at(sh.view.Load().chunk(chunk))
	rec.write(id, f)
	rec.prefetchBehind(n)
	return r, rec, nil
}

// openChunkLocked replaces the open chunk by one with room for n bytes.
func (sh *shard) openChunkLocked(n int) error {
	next := sh.addChunkLocked(sh.arena.nextChunkBytes(n))
	if next == 0 {
		return errShardFull
	}
	old := sh.arena.close()
	sh.arena.fill(next)
	if old != 0 {
		if c := &sh.arena.chunks[old]; c.dead == c.used {
			sh.dropChunkLocked(old)
		}
	}
	return nil
}

// addChunkLocked makes a chunk of n bytes and returns its number, 0 if a shard can't have more.
func (sh *shard) addChunkLocked(n int) int {
	c := sh.arena.number()
	if c == 0 {
		return 0
	}
	memory := sh.makeChunkLocked(n)
	if c >= len(sh.view.Load().chunks) {
		sh.changeViewLocked(func(v *view) { v.chunks = grown(v.chunks, c+1) })
	}
	sh.view.Load().setChunk(c, memory)
	sh.arena.chunks[c] = chunkState{size: n}
	return c
}

func (sh *shard) makeChunkLocked(n int) unsafe.Pointer {
	if n != chunkBytes {
		return unsafe.Pointer(&make([]byte, n)[0])
	}
	sh.chores |= choreSpare
	return sh.engine.spares.take()
}

// grown returns a copy of s with room for n elements and a sixteenth more.
func grown[T any](s []T, n int) []T {
	t := make([]T, n+n/16+4)
	copy(t, s)
	return t
}

// dropChunkLocked lets a chunk go in which no live record is left.
func (sh *shard) dropChunkLocked(c int) {
	sh.beginLocked()
	sh.view.Load().setChunk(c, nil)
	sh.endLocked()
	sh.arena.forget(c)
}

// buryLocked counts the record at r, to which nothing points any more, as dead, and returns its size.
func (sh *shard) buryLocked(r ref, rec record) (size int) {
	rec.die()
	c, size := r.chunk(), rec.size()
	sh.arena.bury(c, size)
	if state := &sh.arena.chunks[c]; state.dead == state.used && c != int(sh.arena.open) {
		sh.dropChunkLocked(c)
	}
	return size
}

// compactLocked goes on emptying a chunk if there is too much garbage. Each write that leaves some behind makes one
// step, of few records, so that nobody waits long for the lock; but of four times as many bytes as have died, so that
// garbage, which is at least half of them, is collected faster than it is made.
func (sh *shard) compactLocked(died int) {
	a := &sh.arena
	if a.victim == 0 && a.wasteful() {
		a.choose()
	}
	for end := int(a.cleared) + 4*died; a.victim != 0; {
		if !sh.emptyLocked(int(a.victim)) || int(a.cleared) >= end {
			return
		}
	}
}

// emptyLocked moves the next records out of the victim c. It is false if there is no chunk to be had to move them to.
func (sh *shard) emptyLocked(c int) bool {
	a := &sh.arena
	base, used := sh.view.Load().chunk(c), a.chunks[c].used
	var moves [moveBatch]move
	found, offset := moves[:0], int(a.cleared)
	for offset < used && len(found) < len(moves) {
		r := makeRef(c, offset)
		rec := r.at(base)
		offset += rec.size()
		if rec.id() != noNumber {
			found = append(found, sh.prepareLocked(r, rec))
		}
	}
	a.cleared = uint32(offset)
	for i := range found { // with the last live record of it the chunk goes, and is no victim any more
		if !sh.moveLocked(&found[i]) {
			a.victim = 0
			return false
		}
	}
	return true
}

// A move is a record that compaction copies to the open chunk. Several are prepared before the
// first is made, so that their places in the table and in ids are on their way into the cache meanwhile.
type move struct {
	ref  ref
	rec  record
	hash uint32
}

const moveBatch = 8

func (sh *shard) prepareLocked(r ref, rec record) move {
	v := sh.view.Load()
	hash := sh.engine.hash(rec.key()).slot()
	v.prefetchHome(hash)
	v.prefetchLocator(rec.id())
	return move{r, rec, hash}
}

func (sh *shard) moveLocked(m *move) bool {
	f, id := m.rec.contents(), m.rec.id()
	to, moved, err := sh.appendLocked(id, &f)
	if err != nil {
		return false // no chunk to be had: stay wasteful
	}
	v := sh.view.Load()
	v.setSlot(v.find(slotOf(m.hash, m.ref)), slotOf(m.hash, to))
	v.setLocator(id, to, moved.shape())
	sh.buryLocked(m.ref, m.rec)
	return true
}

// insertLocked adds a key that is not in the table.
func (sh *shard) insertLocked(hash uint32, f *fields) (record, error) {
	id, ok := sh.takeIDLocked()
	if !ok {
		return record{}, errTooManyKeys
	}
	sh.reserveLocked()
	r, rec, err := sh.appendLocked(id, f)
	if err != nil {
		sh.freeIDs = append(sh.freeIDs, id)
		return record{}, err
	}
	v := sh.view.Load()
	v.setLocator(id, r, rec.shape())
	v.add(slotOf(hash, r))
	sh.keys++
	sh.payload += f.payload()
	sh.stageLocked(id)
	sh.scheduleLocked(id, 0, f.deadline)
	return rec, nil
}

// replaceLocked gives the key at a new record.
func (sh *shard) replaceLocked(at slotAt, old record, f *fields) (record, error) {
	id, was := old.id(), old.deadline()
	v := sh.view.Load()
	v.prefetchLocator(id)
	to, rec, err := sh.appendLocked(id, f)
	if err != nil {
		return record{}, err
	}
	v = sh.view.Load() // appendLocked may have changed it
	slot := v.slot(at)
	v.setSlot(at, slotOf(slotHash(slot), to))
	v.setLocator(id, to, rec.shape())
	sh.payload += f.payload() - old.payload()
	sh.scheduleLocked(id, was, f.deadline)
	sh.compactLocked(sh.buryLocked(slotRef(slot), old))
	return rec, nil
}

// setDeadlineLocked changes the deadline of the key at, in place if its record has room for one.
func (sh *shard) setDeadlineLocked(at slotAt, rec record, deadline int64) (record, error) {
	was := rec.deadline()
	if was == deadline {
		return rec, nil
	}
	if rec.hasRoom() {
		rec.setDeadline(deadline)
		sh.scheduleLocked(rec.id(), was, deadline)
		return rec, nil
	}
	f := rec.contents()
	f.deadline = deadline
	return sh.replaceLocked(at, rec, &f)
}

// removeLocked removes the key at slot.
func (sh *shard) removeLocked(at slotAt, rec record) {
	v := sh.view.Load()
	id, r := rec.id(), slotRef(v.slot(at))
	v.remove(at)
	v.setLocator(id, 0, 0)
	sh.keys--
	sh.payload -= rec.payload()
	sh.timers.remove(id) // now: a lock that was released must not stay for its ttl
	sh.unstageLocked(id)
	sh.compactLocked(sh.buryLocked(r, rec))
	sh.shrinkLocked()
}

// reserveLocked makes room for one more key in the table.
func (sh *shard) reserveLocked() {
	if t := sh.view.Load().table; t.full(sh.keys) {
		n := len(t.buckets)
		sh.rehashLocked(n + n/6 + 1) // growing by a sixth keeps tables 6/7 full and more
	}
}

// shrinkLocked gives back what a table that was once fuller holds.
func (sh *shard) shrinkLocked() {
	if n := len(sh.view.Load().buckets); n > 1 && sh.keys < n*fullLoad/4 {
		sh.rehashLocked(sh.keys*2/fullLoad + 1)
	}
	if sh.keys == 0 && sh.arena.open != 0 && sh.arena.size > firstChunk {
		sh.dropChunkLocked(int(sh.arena.open))
	}
}

// rehashLocked gives the table another size. A slot has the whole hash in it, so the keys need not be looked at.
func (sh *shard) rehashLocked(buckets int) {
	sh.changeViewLocked(func(v *view) {
		old := v.table
		v.table = makeTable(buckets)
		old.each(func(_ slotAt, slot uint64) { v.add(slot) })
	})
}

// takeIDLocked returns the number of a new key, false if a shard can't have more.
func (sh *shard) takeIDLocked() (id uint32, ok bool) {
	if n := len(sh.freeIDs); n > 0 {
		id = sh.freeIDs[n-1]
		sh.freeIDs = sh.freeIDs[:n-1]
		return id, true
	}
	if id = sh.nextID; uint64(id) >= 1<<(keyIDBits-sh.engine.bits)-1 { // the last one would be noNumber in some
		return 0, false
	}
	sh.nextID++
	if int(id) >= len(sh.view.Load().ids) {
		sh.changeViewLocked(func(v *view) { v.ids = grown(v.ids, int(id)+1) })
	}
	return id, true
}

// fewIDs is how many numbers a shard keeps room for when its last key goes: the
// next lock in an otherwise empty store should not have to make it again.
const fewIDs = 64

// freeIDsLocked makes numbers of keys that are gone, and that the order has
// forgotten, available again.
func (sh *shard) freeIDsLocked(ids ...uint32) {
	sh.freeIDs = append(sh.freeIDs, ids...)
	sh.deadIDs -= len(ids)
	if sh.keys == 0 && sh.deadIDs == 0 && sh.nextID > fewIDs { // nobody has a number: begin anew, and give the memory back
		sh.freeIDs, sh.nextID = nil, 0
		sh.changeViewLocked(func(v *view) { v.ids = nil })
		sh.timers.reset()
	}
}

// stageLocked remembers that a new key is not in the order yet.
func (sh *shard) stageLocked(id uint32) {
	if len(sh.staged) == 0 {
		sh.engine.order.markDirty(sh.number)
	}
	sh.staged = append(sh.staged, id)
	if n := len(sh.staged); n >= stageTarget && n%stageTarget == 0 {
		if sh.deadIDs > stageTarget/2 {
			sh.pruneLocked()
		}
		if len(sh.staged) >= stageTarget {
			sh.chores |= choreOrder
		}
		if len(sh.staged) >= stageHelp {
			sh.chores |= choreHelp
		}
		if len(sh.staged) >= stageLimit {
			sh.chores |= choreMust
		}
	}
}

// unstageLocked deals with the number of a key that was removed: if the key was the last to be staged, it
// never reaches the order, else the order finds out later.
func (sh *shard) unstageLocked(id uint32) {
	sh.deadIDs++
	if n := len(sh.staged); n > 0 && sh.staged[n-1] == id {
		sh.staged = sh.staged[:n-1]
		sh.freeIDsLocked(id)
	} else if sh.deadIDs%stageTarget == 0 && sh.deadIDs > sh.keys/4 || sh.keys == 0 && sh.nextID > fewIDs { // all gone: give memory back
		sh.chores |= choreOrder
	}
}

// pruneLocked drops the numbers of dead keys from staged.
func (sh *shard) pruneLocked() {
	v := sh.view.Load()
	kept := sh.staged[:0]
	var dead []uint32
	for _, id := range sh.staged {
		if v.locator(id) != 0 {
			kept = append(kept, id)
		} else {
			dead = append(dead, id)
		}
	}
	sh.staged = kept
	if len(dead) > 0 {
		sh.freeIDsLocked(dead...)
	}
}

// scheduleLocked tells the timers that the deadline of a key has changed.
func (sh *shard) scheduleLocked(id uint32, was, now int64) {
	if was == now {
		return
	}
	sh.timers.schedule(id, was, now, sh.engine.clock.coarse.Load())
	if now != 0 {
		sh.engine.reaper.expect(sh, sh.timers.timeOf(sh.timers.tickOf(now)))
	}
}
