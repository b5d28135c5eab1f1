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
type table struct{ words []uint64 }

const (
	bucketWords = 8
	bucketSlots = bucketWords - 1
	fullLoad    = 6 // keys per bucket, on average, at which a table grows
	tagOnes     = 0x0101010101010100
	tagHighs    = 0x8080808080808000
)

func makeTable(buckets int) table { return table{make([]uint64, buckets*bucketWords)} }

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

func (t table) word(i int) uint64       { return atomic.LoadUint64(&t.words[i]) }
func (t table) setWord(i int, w uint64) { atomic.StoreUint64(&t.words[i], w) }

func (t table) buckets() int { return len(t.words) / bucketWords }

// home returns the first word of the bucket at which the search for a hash begins. It grows with the
// hash, so that rehashing walks memory from front to back.
func (t table) home(hash uint32) int {
	return int(uint64(hash)*uint64(t.buckets())>>32) * bucketWords
}

// prefetchHome brings the bucket closer at which the search for a hash begins.
func (t table) prefetchHome(hash uint32) { prefetch(uintptr(unsafe.Pointer(&t.words[t.home(hash)]))) }

// next returns the bucket behind b.
func (t table) next(b int) int {
	if b += bucketWords; b == len(t.words) {
		return 0
	}
	return b
}

// full says whether a table with this many keys should grow before the next.
func (t table) full(keys int) bool { return keys >= t.buckets()*fullLoad }

// The methods below write: the shard's mu is held.

// add puts a slot into the first bucket with room. There must be one.
func (t table) add(slot uint64) {
	hash := slotHash(slot)
	b := t.home(hash)
	for {
		tags := t.words[b]
		if empty := ^tags & tagHighs; empty != 0 {
			i := place(empty)
			t.setWord(b+i, slot) // before its tag
			t.setWord(b, tags|tagOf(hash)<<(8*i))
			return
		}
		if byte(tags) < 255 {
			t.setWord(b, tags+1)
		}
		b = t.next(b)
	}
}

// remove empties the slot at word i.
func (t table) remove(i int) {
	home := t.home(slotHash(t.words[i]))
	b := i &^ (bucketWords - 1)
	t.setWord(b, t.words[b]&^(0xff<<(8*(i-b))))
	for passed := home; passed != b; passed = t.next(passed) {
		if byte(t.words[passed]) < 255 {
			t.setWord(passed, t.words[passed]-1)
		}
	}
}

// each calls f with every slot and its word.
func (t table) each(f func(i int, slot uint64)) {
	for b := 0; b < len(t.words); b += bucketWords {
		for used := t.words[b] & tagHighs; used != 0; used &= used - 1 {
			i := b + place(used)
			f(i, t.words[i])
		}
	}
}

// find returns the word of a slot that is in the table.
func (t table) find(slot uint64) int {
	hash := slotHash(slot)
	for b := t.home(hash); ; b = t.next(b) {
		for m := matches(t.words[b], tagOf(hash)); m != 0; m &= m - 1 {
			if i := b + place(m); t.words[i] == slot {
				return i
			}
		}
	}
}
