package kv

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// A table finds records by the hash of their key. It consists of buckets of one
// cache line, 8 words each: a word of tags and 7 slots. A slot is
//
//	hash << 32 | ref
//
// and byte i of the tags, 1 <= i <= 7, is 0 if slot i is empty, or 0x80 and 7
// bits of its hash. So one comparison of the tags finds the slot without a loop whose length the
// processor can't predict, and it goes on to the record, and to the next
// lookup, while the cache line is still on its way. Byte 0 counts the keys that found this bucket full and went
// on to the next ones; where it is 0, or all buckets have been seen, a search ends. At 255 it counts no further, in either direction.
//
// Words are read and written atomically: readers hold no lock. A key never
// moves within a table, so adding, replacing and removing one can't hide another from a reader.
type table struct{ buckets []bucket }

// A bucket is the tags, then the slots.
type bucket [bucketWords]uint64

const (
	bucketWords = 8
	bucketSlots = bucketWords - 1
	fullLoad    = 6 // keys per bucket, on average, at which a table grows
	tagOnes     = 0x0101010101010100
	tagHighs    = 0x8080808080808000
)

func makeTable(buckets int) table { return table{make([]bucket, buckets)} }

func slotOf(hash uint32, r ref) uint64 { return uint64(hash)<<32 | uint64(r) }
func slotHash(slot uint64) uint32      { return uint32(slot >> 32) }
func slotRef(slot uint64) ref          { return ref(uint32(slot)) }

func tagOf(hash uint32) uint64 { return uint64(hash&0x7f | 0x80) }

// matches returns a word in which the highest bit of each byte whose tag is this one is set. It may
// set others, too.
func matches(tags, tag uint64) uint64 {
	x := tags ^ tag*tagOnes
	return (x - tagOnes) &^ x & tagHighs
}

// place returns the number of the slot, 1 to 7, that the lowest bit of matches stands for.
func place(matches uint64) int { return bits.TrailingZeros64(matches) >> 3 }

func (b *bucket) tags() uint64            { return atomic.LoadUint64(&b[0]) }
func (b *bucket) slot(place int) uint64   { return atomic.LoadUint64(&b[place&(bucketWords-1)]) }
func (b *bucket) set(place int, w uint64) { atomic.StoreUint64(&b[place&(bucketWords-1)], w) }

// A slotAt is a place in a table: the number of the bucket, and in the lower 3 bits that of the slot.
type slotAt int

func at(bucket, place int) slotAt { return slotAt(bucket*bucketWords + place) }

func (a slotAt) bucket() int { return int(a) / bucketWords }
func (a slotAt) place() int  { return int(a) % bucketWords }

func (t table) slot(a slotAt) uint64          { return t.buckets[a.bucket()].slot(a.place()) }
func (t table) setSlot(a slotAt, slot uint64) { t.buckets[a.bucket()].set(a.place(), slot) }

// home returns the number of the bucket at which the search for a hash begins. It grows with the
// hash, so that rehashing walks memory from front to back.
func (t table) home(hash uint32) int {
	return int(uint64(hash) * uint64(len(t.buckets)) >> 32)
}

// prefetchHome brings the bucket closer at which the search for a hash begins.
func (t table) prefetchHome(hash uint32) {
	prefetch(uintptr(unsafe.Pointer(&t.buckets[t.home(hash)])))
}

// next returns the number of the bucket behind i.
func (t table) next(i int) int {
	if i++; i == len(t.buckets) {
		return 0
	}
	return i
}

// large says that there is so much behind the table that little of it is in the cache.
func (t table) large() bool { return len(t.buckets) > 128 }

// full says whether a table with this many keys should grow before the next.
func (t table) full(keys int) bool { return keys >= len(t.buckets)*fullLoad }

// The methods below write: the shard's mu is held.

// add puts a slot into the first bucket with room. There must be one.
func (t table) add(slot uint64) {
	hash := slotHash(slot)
	for i := t.home(hash); ; i = t.next(i) {
		b := &t.buckets[i]
		tags := b[0]
		if empty := ^tags & tagHighs; empty != 0 {
			p := place(empty)
			b.set(p, slot) // before its tag
			b.set(0, tags|tagOf(hash)<<(8*p))
			return
		}
		if byte(tags) < 255 {
			b.set(0, tags+1)
		}
	}
}

// remove empties a slot.
func (t table) remove(a slotAt) {
	b := &t.buckets[a.bucket()]
	home := t.home(slotHash(b[a.place()]))
	b.set(0, b[0]&^(0xff<<(8*a.place())))
	for i := home; i != a.bucket(); i = t.next(i) {
		if passed := &t.buckets[i]; byte(passed[0]) < 255 {
			passed.set(0, passed[0]-1)
		}
	}
}

// each calls f with every slot and its place.
func (t table) each(f func(a slotAt, slot uint64)) {
	for i := range t.buckets {
		b := &t.buckets[i]
		for used := b[0] & tagHighs; used != 0; used &= used - 1 {
			f(at(i, place(used)), b[place(used)])
		}
	}
}

// find returns the place of a slot that is in the table.
func (t table) find(slot uint64) slotAt {
	hash := slotHash(slot)
	for i := t.home(hash); ; i = t.next(i) {
		b := &t.buckets[i]
		for m := matches(b[0], tagOf(hash)); m != 0; m &= m - 1 {
			if p := place(m); b[p] == slot {
				return at(i, p)
			}
		}
	}
}
