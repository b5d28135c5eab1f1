package kv

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"runtime"
	"strconv"
	"time"
	"unsafe"
)

// memory is the engine that [New] uses. Keys are spread over shards by hash;
// each answers point operations from a hash table (shard.go) over records that the
// garbage collector need not look into (record.go, arena.go). The keys in byte
// order are kept beside it (order.go, walk.go), deadlines in timing wheels
// (ttl.go), which one timer empties (reaper.go).
//
// Locks are taken in this order: order.mu, shards' mu by number, watchers.mu and
// reaper.mu. Reads of single keys take none.
type memory struct {
	seed     maphash.Seed
	shards   []shard
	bits     int // shards are 1 << bits
	options  Options
	clock    clock
	order    order
	reaper   reaper
	watchers watchers
	spares   spares
}

var (
	errShardFull   = fmt.Errorf("%w: a shard can't address more than 32 GiB; use more shards", ErrTooLarge)
	errTooManyKeys = fmt.Errorf("%w: a store can't hold more than %d keys", ErrTooLarge, uint64(1)<<keyIDBits)
)

func newMemory(o Options) *memory {
	shardBits := bits.Len(uint(shardCount(o.Shards) - 1))
	m := &memory{seed: maphash.MakeSeed(), shards: make([]shard, 1<<shardBits), bits: shardBits, options: o, spares: makeSpares()}
	m.clock.start = time.Now()
	for i := range m.shards {
		m.shards[i].init(uint32(i), m)
	}
	m.order.init(m)
	m.reaper.init(m)
	return m
}

// shardCount returns how many shards to make: many more than there are
// processors, so that two writers rarely meet and the steps of one shard (rehashing, say) stay short.
func shardCount(asked int) int {
	if asked > 0 {
		return min(asked, 1<<16)
	}
	return min(max(64, 16*runtime.GOMAXPROCS(0)), 1024)
}

// tickShift returns the logarithm of the wheels' tick: at most an eighth of the interval, and 1 ms at the least.
func tickShift(interval time.Duration) uint {
	return uint(max(20, bits.Len64(uint64(interval/8))-1))
}

// A keyHash is the hash of a key: its upper bits choose the shard, its lower half the slot.
type keyHash uint64

func (h keyHash) slot() uint32 { return uint32(h) }

func (m *memory) hash(key string) keyHash { return keyHash(maphash.String(m.seed, key)) }

func (m *memory) shard(h keyHash) *shard { return &m.shards[h>>32&keyHash(len(m.shards)-1)] }

func (m *memory) resolve(id keyID) (record, bool) {
	sh, number := m.owner(id)
	found, ok := sh.resolve(number)
	return found.record, ok
}

// prefetchHome makes looking up a key faster that is not looked up at once.
func (m *memory) prefetchHome(key string) {
	h := m.hash(key)
	m.shard(h).view.Load().prefetchHome(h.slot())
}

// prefetchLocator makes resolving a number of a known key faster.
func (m *memory) prefetchLocator(id keyID) {
	sh, number := m.owner(id)
	sh.view.Load().prefetchLocator(number)
}

// alive says whether the key with this number is still there.
func (m *memory) alive(id keyID) bool {
	sh, number := m.owner(id)
	return sh.view.Load().locator(number) != 0
}

// Get implements [Engine].
func (m *memory) Get(_ context.Context, key string) (string, error) {
	h := m.hash(key)
	if rec, ok := m.shard(h).peek(h.slot(), len(key)); ok {
		deadline := rec.deadline()
		if k, value := rec.short(); k == key && (m.clock.far(deadline) || deadline > m.clock.now()) {
			return value, nil
		}
	}
	return m.getSlowly(key)
}

// getSlowly is Get where something is unusual.
func (m *memory) getSlowly(key string) (string, error) {
	rec, live := m.find(key)
	if !live {
		return "", ErrNotFound
	}
	return rec.value(), nil
}

// find returns the record of a live key. It takes a lock only if the key seems to have expired, or to be a counter.
func (m *memory) find(key string) (record, bool) {
	h := m.hash(key)
	rec, found := m.shard(h).lookup(key, h.slot())
	if !found {
		return record{}, false
	}
	if !rec.isNumeric() && !m.clock.expired(rec.deadline()) {
		return rec.record, true
	}
	return m.settled(key)
}

// settled is find with the lock taken. A writer that judged the key just before
// its deadline, and is about to give it a later one, has then either done so or
// not begun. Numbers are replaced by their text, so that Get allocates nothing for them either.
func (m *memory) settled(key string) (record, bool) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if !w.live || !w.rec.isNumeric() {
		return w.rec, w.live
	}
	f := w.rec.fields()
	rec, err := w.replaceLocked(w.at, w.rec, &f)
	if err != nil { // the shard is full: the reader gets a record of its own
		memory := make([]uint64, f.size()/8)
		rec = record{unsafe.Pointer(&memory[0])}
		rec.write(noNumber, &f)
	}
	return rec, true
}

// decimal returns n in base 10, in buf.
func decimal(buf *[20]byte, n int64) string {
	text := strconv.AppendInt(buf[:0], n, 10)
	return unsafe.String(&text[0], len(text))
}

// Entry implements [Engine].
func (m *memory) Entry(_ context.Context, key string) (Entry, error) {
	rec, live := m.find(key)
	if !live {
		return Entry{}, ErrNotFound
	}
	return m.entry(rec), nil
}

func (m *memory) entry(rec record) Entry {
	f := rec.fields()
	e := Entry{Key: f.key, Value: f.value, Metadata: f.metadata}
	if f.deadline != 0 {
		e.ExpiresAt = m.clock.wall(f.deadline, m.clock.step())
	}
	return e
}

// TTL implements [Engine].
func (m *memory) TTL(_ context.Context, key string) (time.Duration, error) {
	rec, live := m.find(key)
	if !live {
		return 0, ErrNotFound
	}
	deadline := rec.deadline()
	if deadline == 0 {
		return NoExpiry, nil
	}
	// Not below 1 ns: the deadline may pass between the two looks at the clock, and 0 would say that there is none.
	return time.Duration(max(1, deadline-m.clock.now())), nil
}

// Now implements [Engine].
func (m *memory) Now(context.Context) (time.Time, error) {
	return m.clock.wall(m.clock.now(), m.clock.step()), nil
}

// Stats implements [Engine].
func (m *memory) Stats() Stats {
	var s Stats
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		s.Keys += int64(sh.keys)
		s.Bytes += int64(sh.payload)
		s.Expired += sh.expired
		sh.mu.Unlock()
	}
	return s
}

// Close implements [Engine]. It leaves the data to the collector: a Get that is
// under way must not find an empty store instead of a closed one.
func (m *memory) Close() error {
	m.reaper.close()
	m.order.close()
	return nil
}

// A writing is one write operation under way: the shard's mu is held from begin to unlock.
type writing struct {
	*shard
	instant
	key  string
	hash uint32
	at   slotAt // the key's, if it is live
	rec  record
	live bool
}

// begin locks the key's shard and finds the key. One that has expired is removed first.
func (w *writing) begin(m *memory, key string) {
	h := m.hash(key)
	w.shard, w.clock = m.shard(h), &m.clock
	w.mu.Lock()
	w.findLocked(key, h.slot())
}

func (w *writing) findLocked(key string, hash uint32) {
	w.key, w.hash = key, hash
	w.at, w.rec, w.live = w.locateLocked(key, hash)
	if w.live && w.expired(w.rec.deadline()) {
		w.expireLocked(w.at, w.rec)
		w.live = false
	}
}

func (w *writing) expired(deadline int64) bool { return w.instant.expired(deadline) }

// deadlineFor returns the deadline that ttl means for this key.
func (w *writing) deadlineFor(ttl time.Duration) int64 {
	if w.live {
		return w.deadline(ttl, w.rec.deadline())
	}
	return w.deadline(ttl, 0)
}

// put stores a value under the key.
func (w *writing) put(value, metadata string, deadline int64) error {
	return w.store(&fields{key: w.key, value: value, metadata: metadata, deadline: deadline})
}

func (w *writing) store(f *fields) error {
	var rec record
	var err error
	if w.live {
		rec, err = w.replaceLocked(w.at, w.rec, f)
	} else {
		rec, err = w.insertLocked(w.hash, f)
	}
	if err == nil {
		w.engine.watchers.emit(EventPut, rec, &w.engine.clock)
	}
	return err
}

// delete removes the key, which is live.
func (w *writing) delete() {
	w.removeLocked(w.at, w.rec)
	w.engine.watchers.emit(EventDelete, w.rec, &w.engine.clock)
}

// expire gives the key, which is live, the deadline that ttl says.
func (w *writing) expire(ttl time.Duration) error {
	rec, err := w.setDeadlineLocked(w.at, w.rec, w.deadlineFor(ttl))
	if err == nil {
		w.rec = rec
	}
	return err
}

// incr adds delta to the key's value. What it writes is a counter, so that the next Incr need only change a number.
func (w *writing) incr(delta int64, ttl time.Duration) (int64, error) {
	if w.live && w.rec.isCounter() {
		return w.incrInPlace(delta)
	}
	var old int64
	f := fields{key: w.key}
	if w.live {
		var ok bool
		f = w.rec.fields()
		if old, ok = parseInteger(f.value); !ok {
			return 0, ErrNotInteger
		}
	} else {
		f.deadline = w.deadlineFor(ttl)
	}
	sum, ok := addInteger(old, delta)
	if !ok {
		return 0, ErrOverflow
	}
	if f.metadata == "" && len(f.key) < 1<<shortKeyBits {
		f.value, f.numeric, f.number = "", true, sum
		return sum, w.store(&f)
	}
	var buf [20]byte
	f.value = decimal(&buf, sum)
	return sum, w.store(&f)
}

func (w *writing) incrInPlace(delta int64) (int64, error) {
	old := w.rec.number()
	sum, ok := addInteger(old, delta)
	if !ok {
		return 0, ErrOverflow
	}
	w.rec.setNumber(sum)
	w.payload += decimalLen(sum) - decimalLen(old)
	w.engine.watchers.emit(EventPut, w.rec, &w.engine.clock)
	return sum, nil
}

// putState stores the state of a quota instead of old: as numbers, so that the next Take need only change these.
func (w *writing) putState(s, old *quotaState, deadline int64) error {
	if w.live && w.rec.isState() {
		return w.putStateInPlace(s, old, deadline)
	}
	if len(w.key) >= 1<<shortKeyBits {
		return w.put(string(s.append(nil)), "", deadline)
	}
	rest := s.rest()
	return w.store(&fields{
		key: w.key, value: unsafe.String(&rest[0], len(rest)), deadline: deadline,
		numeric: true, number: s.numbers[0],
	})
}

func (w *writing) putStateInPlace(s, old *quotaState, deadline int64) error {
	rec, err := w.setDeadlineLocked(w.at, w.rec, deadline)
	if err != nil {
		return err
	}
	rec.setState(s)
	w.payload += s.textLen() - old.textLen()
	w.engine.watchers.emit(EventPut, rec, &w.engine.clock)
	return nil
}

// parseInteger parses an int64 as strconv.FormatInt prints it, and nothing else.
func parseInteger(s string) (int64, bool) {
	digits := s
	if len(s) > 0 && s[0] == '-' {
		digits = s[1:]
	}
	if digits == "" || len(digits) > 19 || digits[0] == '0' && s != "0" {
		return 0, false
	}
	var n uint64
	for i := range len(digits) {
		d := digits[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d) // 19 digits don't overflow uint64
	}
	if len(digits) < len(s) {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n <= math.MaxInt64
}

func addInteger(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}

// Set implements [Engine].
func (m *memory) Set(_ context.Context, key, value string, ttl time.Duration) error {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	return w.put(value, "", w.deadlineFor(ttl))
}

// Put implements [Engine].
func (m *memory) Put(_ context.Context, e Entry) error {
	var w writing
	w.begin(m, e.Key)
	defer w.unlock()
	deadline := m.clock.deadline(e.ExpiresAt, m.clock.step())
	if deadline != 0 && deadline <= w.now() {
		if w.live {
			w.delete()
		}
		return nil
	}
	return w.put(e.Value, e.Metadata, deadline)
}

// SetNX implements [Engine].
func (m *memory) SetNX(_ context.Context, key, value string, ttl time.Duration) (bool, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if w.live {
		return false, nil
	}
	err := w.put(value, "", w.deadlineFor(ttl))
	return err == nil, err
}

// CompareAndSwap implements [Engine].
func (m *memory) CompareAndSwap(_ context.Context, key, old, new string, ttl time.Duration) (bool, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if !w.live {
		return false, nil
	}
	f := w.rec.fields()
	if f.value != old {
		return false, nil
	}
	err := w.put(new, f.metadata, w.deadlineFor(ttl))
	return err == nil, err
}

// CompareAndDelete implements [Engine].
func (m *memory) CompareAndDelete(_ context.Context, key, old string) (bool, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if !w.live || w.rec.value() != old {
		return false, nil
	}
	w.delete()
	return true, nil
}

// Incr implements [Engine].
func (m *memory) Incr(_ context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	return w.incr(delta, ttl)
}

// Expire implements [Engine].
func (m *memory) Expire(_ context.Context, key string, ttl time.Duration) (bool, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if !w.live {
		return false, nil
	}
	err := w.expire(ttl)
	return err == nil, err
}

// Delete implements [Engine].
func (m *memory) Delete(_ context.Context, key string) (bool, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if w.live {
		w.delete()
	}
	return w.live, nil
}

// GetDelete implements [Engine].
func (m *memory) GetDelete(_ context.Context, key string) (string, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if !w.live {
		return "", ErrNotFound
	}
	w.delete()
	return w.rec.value(), nil
}

// GetExpire implements [Engine].
func (m *memory) GetExpire(_ context.Context, key string, ttl time.Duration) (string, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	if !w.live {
		return "", ErrNotFound
	}
	if err := w.expire(ttl); err != nil {
		return "", err
	}
	return w.rec.value(), nil
}

// Take implements [Engine].
func (m *memory) Take(_ context.Context, key string, q Quota, n int64, dry bool) (Usage, error) {
	var w writing
	w.begin(m, key)
	defer w.unlock()
	var s quotaState
	if w.live {
		s = w.rec.state()
	}
	before := s
	usage, err := q.advance(&s, m.clock.micros(w.now()), n)
	switch {
	case err != nil || dry || s == before:
		return usage, err
	case s.kind == 0:
		w.delete()
		return usage, nil
	}
	return usage, w.putState(&s, &before, w.deadlineFor(usage.ResetAfter))
}
