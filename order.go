package kv

import (
	"cmp"
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"
)

// An order keeps all keys in byte order for scans: a B+ tree, whose inner part
// is a tidwall B-tree of leaves and whose leaves are plain arrays of
// some thousand key numbers, 4 bytes each.
//
// Point operations never touch it. A new key's number is staged in its shard; a background goroutine that lives only
// as long as there is work ("kick") hands staged numbers to their leaves, where
// they stay unsorted until a scan comes by; a leaf that grows too large is split as it is. Keys that are gone leave
// their number behind; it is swept out when such numbers pile up. So a write pays a few
// nanoseconds for the order, the first scan sorts no more than the leaves that it
// walks, and a key that lives shortly never gets here at all.
//
// docs/design.md has the figures, and what else was tried.
type order struct {
	engine *memory
	dirty  []atomic.Uint64 // bit i%64 of word i/64: shard i has staged numbers
	busy   atomic.Bool     // the background goroutine runs

	mu    sync.RWMutex // taken before a shard's mu
	tree  *btree.BTreeG[*leaf]
	total int     // guarded by mu: numbers in all leaves
	large []*leaf // guarded by mu: leaves that have grown too large

	life   sync.Mutex
	closed bool           // guarded by life
	work   sync.WaitGroup // Add is guarded by life
}

// A keyID is the number of a key in the engine: its number in its shard, and in the lower bits the shard's.
type keyID uint32

// keyIDBits bounds how many keys a store can have.
const keyIDBits = 32

func (sh *shard) keyID(number uint32) keyID { return keyID(number<<sh.engine.bits | sh.number) }

// owner returns the shard of a key and its number there.
func (m *memory) owner(k keyID) (sh *shard, number uint32) {
	return &m.shards[int(k)&(len(m.shards)-1)], uint32(k) >> m.bits
}

// A leaf holds the numbers of the keys from low up to the next leaf's low. The order's mu guards it.
type leaf struct {
	low     string
	sorted  []keyID // in the order of their keys
	pending []keyID // in no order
	changes uint64  // grows with every change

	// A search would wait for two cache misses at each step. These bring it
	// within sampleStep places of its goal: all keys of sorted begin with
	// common, and samples are the digests of what follows it in every sampleStep-th. nil: sorted has changed since.
	common  string
	samples []uint64
}

const sampleStep = 16

func (s *leaf) size() int { return len(s.sorted) + len(s.pending) }

// settled says whether a scan finds the leaf as it needs it.
func (s *leaf) settled() bool { return len(s.pending) == 0 && (s.samples != nil || len(s.sorted) == 0) }

const (
	maxLeaf     = 2048 // a leaf with more is split
	minLeaf     = maxLeaf / 8
	stageTarget = 64  // staged numbers of a shard at which the background work begins
	stageHelp   = 128 // at which the writer itself does it if nobody else is at work
	stageLimit  = 192 // at which it waits for that: all shards together bound what a scan finds undone
)

func (o *order) init(m *memory) {
	o.engine = m
	o.dirty = make([]atomic.Uint64, (len(m.shards)+63)/64)
	o.tree = btree.NewBTreeGOptions(func(a, b *leaf) bool { return a.low < b.low }, btree.Options{NoLocks: true})
	o.tree.Set(&leaf{})
}

// markDirty notes that a shard has staged numbers.
func (o *order) markDirty(shard uint32) { o.dirty[shard/64].Or(1 << (shard % 64)) }

// kick starts the background work if it isn't under way.
func (o *order) kick() {
	if o.busy.Load() || !o.busy.CompareAndSwap(false, true) {
		return
	}
	o.life.Lock()
	defer o.life.Unlock()
	if o.closed {
		return
	}
	o.work.Add(1)
	go func() {
		defer o.work.Done()
		o.catchUp()
	}()
}

func (o *order) close() {
	o.life.Lock()
	o.closed = true
	o.life.Unlock()
	o.work.Wait()
}

// catchUp hands out what is staged, splits leaves and sweeps, until nothing of
// that is due. It yields after each step: whoever shares a processor with it would else wait for its whole time slice.
func (o *order) catchUp() {
	for {
		o.handOut()
		o.splitAll()
		if o.shouldSweep() {
			o.sweep()
		}
		if o.behind() {
			continue
		}
		o.busy.Store(false)
		if !o.behind() && !o.shouldSweep() || !o.busy.CompareAndSwap(false, true) { // a kick meanwhile found us busy
			return
		}
	}
}

// behind says whether a shard has more staged than it should.
func (o *order) behind() bool {
	for i := range o.engine.shards {
		sh := &o.engine.shards[i]
		sh.mu.Lock()
		n := len(sh.staged)
		sh.mu.Unlock()
		if n >= stageTarget {
			return true
		}
	}
	return false
}

func (o *order) isDirty() bool {
	for i := range o.dirty {
		if o.dirty[i].Load() != 0 {
			return true
		}
	}
	return false
}

// handOut gives all staged numbers to their leaves.
func (o *order) handOut() {
	if !o.isDirty() {
		return
	}
	for i := range o.engine.shards {
		word, bit := &o.dirty[i/64], uint64(1)<<(i%64)
		if word.Load()&bit == 0 {
			continue
		}
		o.mu.Lock()
		word.And(^bit) // with mu held: who finds the bit cleared waits for mu, and then for the work
		o.handOutShardLocked(&o.engine.shards[i])
		o.mu.Unlock()
		runtime.Gosched()
	}
}

// help does so for one shard. If somebody else is at work with the order it waits only if it must.
func (o *order) help(sh *shard, must bool) {
	if !o.mu.TryLock() {
		if !must {
			return
		}
		o.mu.Lock()
	}
	defer o.mu.Unlock()
	o.handOutShardLocked(sh)
}

func (o *order) handOutShardLocked(sh *shard) {
	sh.mu.Lock()
	staged := sh.staged
	sh.staged = nil
	sh.mu.Unlock()
	var dead []uint32
	var pivot leaf
	for _, id := range staged {
		rec, ok := sh.resolve(id)
		if !ok {
			dead = append(dead, id)
			continue
		}
		pivot.low = rec.key()
		s := o.leafLocked(&pivot)
		s.pending = append(s.pending, sh.keyID(id))
		s.changes++
		if s.size() == maxLeaf+1 {
			o.large = append(o.large, s)
		}
	}
	o.total += len(staged) - len(dead)
	sh.release(dead)
}

// release makes numbers available again that the order has dropped.
func (sh *shard) release(ids []uint32) {
	if len(ids) == 0 {
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.freeIDsLocked(ids...)
}

// leafLocked returns the leaf that the key pivot.low belongs to. o.mu is held, for reading at least.
func (o *order) leafLocked(pivot *leaf) *leaf {
	var found *leaf
	o.tree.Descend(pivot, func(s *leaf) bool {
		found = s
		return false
	})
	return found
}

// beforeLocked returns the leaf before s, nil if there is none. o.mu is held, for reading at least.
func (o *order) beforeLocked(s *leaf) *leaf {
	var found *leaf
	o.tree.Descend(s, func(t *leaf) bool {
		found = t
		return t.low == s.low
	})
	if found != nil && found.low == s.low {
		return nil
	}
	return found
}

// afterLocked returns the leaf behind s, nil if there is none. o.mu is held, for reading at least.
func (o *order) afterLocked(s *leaf) *leaf {
	var found *leaf
	o.tree.Ascend(s, func(t *leaf) bool {
		found = t
		return t.low == s.low
	})
	if found != nil && found.low == s.low {
		return nil
	}
	return found
}

// leaves returns all leaves as they are now.
func (o *order) leaves() []*leaf {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.tree.Items()
}

// splitAll splits the leaves that are too large, one hold of mu each.
func (o *order) splitAll() {
	for o.splitOne() {
		runtime.Gosched()
	}
}

// splitOne splits the first leaf that is too large, false if there is none.
func (o *order) splitOne() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.large)
	if n == 0 {
		return false
	}
	s := o.large[n-1]
	o.large[n-1], o.large = nil, o.large[:n-1]
	o.splitLocked(s)
	return true
}

// pivotSample is how many keys of a leaf are compared to find one from its middle.
const pivotSample = 31

// splitLocked halves a leaf until no piece is too large. It sorts nothing: that is put off until a scan comes by.
func (o *order) splitLocked(s *leaf) {
	if s.size() <= maxLeaf {
		return
	}
	var dead deadIDs
	before := s.size()
	pending := o.resolveLocked(s.pending, &dead)
	if len(s.sorted)+len(pending) <= maxLeaf { // it needn't be split once the dead are gone
		s.pending = ids(pending)
		s.changes++
		o.total -= before - s.size()
		dead.release()
		return
	}
	pivot := o.pivotLocked(s.sorted, pending)
	if pivot == "" { // nearly all of sorted is dead
		o.settleLocked(s)
		return
	}
	t := &leaf{low: strings.Clone(pivot)} // not to keep a chunk alive
	cut := o.engine.search(s, pivot, false)
	t.sorted, s.sorted = slices.Clone(s.sorted[cut:]), slices.Clone(s.sorted[:cut])
	below := 0
	for i := range pending {
		if pending[i].key < pivot {
			below++
		}
	}
	s.pending, t.pending = make([]keyID, 0, below), make([]keyID, 0, len(pending)-below)
	for i := range pending {
		if pending[i].key < pivot {
			s.pending = append(s.pending, pending[i].id)
		} else {
			t.pending = append(t.pending, pending[i].id)
		}
	}
	s.samples = nil
	s.changes++
	o.tree.Set(t)
	o.total -= before - s.size() - t.size()
	dead.release()
	o.splitLocked(s)
	o.splitLocked(t)
}

// pivotLocked returns a key from the middle of a leaf, "" if it has fewer than two that are alive.
func (o *order) pivotLocked(sorted []keyID, pending []keyed) string {
	var sample []string
	n := len(sorted) + len(pending)
	for i := range min(pivotSample, n) {
		if at := i * n / min(pivotSample, n); at >= len(sorted) {
			sample = append(sample, pending[at-len(sorted)].key)
		} else if rec, ok := o.engine.resolve(sorted[at]); ok {
			sample = append(sample, rec.key())
		}
	}
	if len(sample) < 2 {
		return ""
	}
	slices.Sort(sample)
	return sample[len(sample)/2]
}

// keyed is a key number with its key and, for fast comparison, the 8 bytes behind what all keys to sort have in common.
type keyed struct {
	digest uint64
	key    string
	id     keyID
}

func compareKeyed(a, b keyed) int {
	if c := cmp.Compare(a.digest, b.digest); c != 0 {
		return c
	}
	return cmp.Compare(a.key, b.key)
}

// settleLocked sorts a leaf, drops the numbers of dead keys, and splits it if it is too large.
func (o *order) settleLocked(s *leaf) {
	var dead deadIDs
	pending := o.resolveLocked(s.pending, &dead)
	setDigests(pending)
	slices.SortFunc(pending, compareKeyed)
	all := pending
	if len(s.sorted) > 0 {
		all = merge(o.resolveLocked(s.sorted, &dead), pending)
	}
	o.total -= s.size() - len(all)
	o.setLocked(s, all)
	dead.release()
}

// setLocked makes all the keys of s, in several leaves if they are many.
func (o *order) setLocked(s *leaf, all []keyed) {
	pieces := 1
	if len(all) > maxLeaf {
		pieces = (len(all) + maxLeaf/2 - 1) / (maxLeaf / 2)
	}
	for i := range pieces {
		part := all[i*len(all)/pieces : (i+1)*len(all)/pieces]
		t := s
		if i > 0 {
			t = &leaf{low: strings.Clone(part[0].key)} // not to keep a chunk alive
			o.tree.Set(t)
		}
		t.sorted, t.pending = ids(part), nil
		t.sampleLocked(part)
		t.changes++
	}
}

// sampleLocked prepares s, whose keys are these, for searches.
func (s *leaf) sampleLocked(keys []keyed) {
	s.common, s.samples = "", nil
	if len(keys) == 0 {
		return
	}
	s.common = strings.Clone(commonPrefix(keys[0].key, keys[len(keys)-1].key))
	s.samples = make([]uint64, 0, (len(keys)+sampleStep-1)/sampleStep)
	for i := 0; i < len(keys); i += sampleStep {
		s.samples = append(s.samples, digest(keys[i].key[len(s.common):]))
	}
}

// narrow returns bounds of the place that [memory.search] looks for.
func (s *leaf) narrow(key string) (low, high int) {
	high = len(s.sorted)
	if s.samples == nil {
		return 0, high
	}
	if !strings.HasPrefix(key, s.common) {
		if key < s.common {
			return 0, 0
		}
		return high, high
	}
	d := digest(key[len(s.common):])
	below, _ := slices.BinarySearch(s.samples, d) // samples before this one are of keys below key
	if below > 0 {
		low = (below-1)*sampleStep + 1
	}
	for below < len(s.samples) && s.samples[below] == d { // equal digests say nothing
		below++
	}
	if below < len(s.samples) {
		high = below * sampleStep
	}
	return low, high
}

func ids(keys []keyed) []keyID {
	list := make([]keyID, len(keys))
	for i := range keys {
		list[i] = keys[i].id
	}
	return list
}

// resolveLocked returns the keys of numbers, and notes which are dead.
func (o *order) resolveLocked(numbers []keyID, dead *deadIDs) []keyed {
	for _, id := range numbers {
		o.engine.prefetchLocator(id)
	}
	keys := make([]keyed, 0, len(numbers))
	for _, id := range numbers {
		sh, number := o.engine.owner(id)
		rec, ok := sh.resolve(number)
		if !ok {
			dead.add(sh, number)
			continue
		}
		rec.prefetch()
		keys = append(keys, keyed{key: rec.key(), id: id})
	}
	return keys
}

// setDigests prepares keys for sorting.
func setDigests(keys []keyed) {
	if len(keys) < 2 {
		return
	}
	common := keys[0].key
	for i := range keys[1:] {
		common = commonPrefix(common, keys[i+1].key)
	}
	for i := range keys {
		keys[i].digest = digest(keys[i].key[len(common):])
	}
}

func commonPrefix(a, b string) string {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return a[:i]
		}
	}
	return a[:n]
}

// digest returns the first 8 bytes of s as a number that compares as they do. Shorter strings are padded with zeros; so equal digests say nothing.
func digest(s string) uint64 {
	if len(s) >= 8 {
		return binary.BigEndian.Uint64([]byte(s[:8]))
	}
	var d uint64
	for i := range len(s) {
		d |= uint64(s[i]) << (56 - 8*i)
	}
	return d
}

// merge merges two sorted lists.
func merge(a, b []keyed) []keyed {
	all := make([]keyed, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].key <= b[0].key {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// deadIDs collects numbers of keys that are gone, by shard.
type deadIDs map[*shard][]uint32

func (d *deadIDs) add(sh *shard, number uint32) {
	if *d == nil {
		*d = make(deadIDs)
	}
	(*d)[sh] = append((*d)[sh], number)
}

func (d deadIDs) release() {
	for sh, numbers := range d {
		sh.release(numbers)
	}
}

// shouldSweep says whether a fifth of the numbers in the leaves belongs to keys
// that are gone, or a shard waits for the last of them to give its memory back.
func (o *order) shouldSweep() bool {
	dead, waits := 0, false
	for i := range o.engine.shards {
		sh := &o.engine.shards[i]
		sh.mu.Lock()
		dead += sh.deadIDs
		waits = waits || sh.keys == 0 && sh.deadIDs > 0 && sh.nextID > fewIDs
		sh.mu.Unlock()
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return waits || dead > stageTarget && dead > o.total/5
}

// sweep drops the numbers of dead keys from all leaves, one hold of mu each.
func (o *order) sweep() {
	for _, s := range o.leaves() {
		o.mu.Lock()
		var dead deadIDs
		before := s.size()
		s.sorted = o.liveLocked(s.sorted, &dead)
		s.pending = o.liveLocked(s.pending, &dead)
		if n := s.size(); n != before {
			o.total -= before - n
			s.samples = nil
			s.changes++
		}
		o.joinLocked(s)
		o.mu.Unlock()
		dead.release()
		runtime.Gosched()
	}
}

// liveLocked returns numbers without those of dead keys, in new memory if there are any.
func (o *order) liveLocked(numbers []keyID, dead *deadIDs) []keyID {
	gone := 0
	for _, id := range numbers {
		if !o.engine.alive(id) {
			gone++
		}
	}
	if gone == 0 {
		return numbers
	}
	live := make([]keyID, 0, len(numbers)-gone)
	for _, id := range numbers {
		if o.engine.alive(id) {
			live = append(live, id)
		} else {
			dead.add(o.engine.owner(id))
		}
	}
	return live
}

// joinLocked gives the keys of a leaf that has become small to the one before it, if that is small, too.
func (o *order) joinLocked(s *leaf) {
	if s.low == "" || s.size() >= minLeaf {
		return
	}
	left := o.beforeLocked(s)
	if left.size() > maxLeaf/2 {
		return
	}
	o.tree.Delete(s)
	left.sorted = append(left.sorted, s.sorted...)
	left.pending = append(left.pending, s.pending...)
	left.samples = nil
	left.changes++
	s.sorted, s.pending = nil, nil
	s.changes++
}
