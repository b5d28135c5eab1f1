package kv

import (
	"math"
	"math/bits"
)

// A wheel files the keys of a shard that have a deadline by when it comes: a
// hierarchical timing wheel (Varghese and Lauck, 1987) with 7 levels of 64
// lists. Level 0 has a list for each tick; a list of level n stands for 64^n
// ticks, and when its time comes, its keys are filed anew further down. Filing and
// removing a key are a few stores, and empty lists are skipped by a bitmap.
//
// Extending is lazy: the deadline in the record moves at once, the key stays
// filed where it was and is filed anew when that list's time comes. So a session that is
// touched on every request costs the wheel nothing.
//
// The lists are doubly linked through links, without pointers. The shard's mu guards it all.
type wheel struct {
	shift    uint           // a tick is 1 << shift ns
	now      int64          // the tick up to which lists have been emptied
	links    []link         // 0 is unused, then the heads of the circular lists, then keys by number; nil while no key was filed
	occupied [levels]uint64 // bit i: list i of the level may have keys
}

// link is a place in a circular list; next is 0 for a key that is in none.
type link struct{ next, prev uint32 }

const (
	levelBits = 6
	perLevel  = 1 << levelBits
	levels    = 7
	firstHead = 1
	firstKey  = firstHead + levels*perLevel
)

// schedule files the key anew if it could otherwise be noticed too late. now is at most the present time.
func (w *wheel) schedule(id uint32, was, deadline, now int64) {
	if w.occupied == [levels]uint64{} {
		w.now = now >> w.shift // nothing is filed: don't walk through the idle time later
	}
	switch {
	case deadline == 0:
		w.remove(id)
	case was == 0 || deadline < was:
		w.remove(id)
		w.file(id, deadline)
	}
}

// file adds a key that is in no list.
func (w *wheel) file(id uint32, deadline int64) {
	tick := w.tickOf(deadline)
	level := 0
	if tick > w.now {
		level = (bits.Len64(uint64(tick^w.now)) - 1) / levelBits
	} else {
		tick = w.now
	}
	i := int(tick>>(level*levelBits)) & (perLevel - 1)
	w.occupied[level] |= 1 << i
	w.append(uint32(firstHead+level*perLevel+i), id)
}

// tickOf returns the first tick that begins at or after the deadline.
func (w *wheel) tickOf(deadline int64) int64 {
	return (deadline-1)>>w.shift + 1
}

// timeOf returns when a tick begins.
func (w *wheel) timeOf(tick int64) int64 {
	if tick > math.MaxInt64>>w.shift {
		return math.MaxInt64
	}
	return tick << w.shift
}

// append puts a key at the end of a list.
func (w *wheel) append(head, id uint32) {
	w.grow(id)
	at := firstKey + id
	last := w.links[head].prev
	w.links[at] = link{next: head, prev: last}
	w.links[last].next = at
	w.links[head].prev = at
}

// grow makes room for the key in links.
func (w *wheel) grow(id uint32) {
	n := firstKey + int(id) + 1
	if n <= len(w.links) {
		return
	}
	fresh := w.links == nil
	w.links = grown(w.links, n)
	if fresh {
		for head := uint32(firstHead); head < firstKey; head++ {
			w.links[head] = link{head, head}
		}
	}
}

// remove takes a key out of its list, if it is in one.
func (w *wheel) remove(id uint32) {
	at := firstKey + int(id)
	if at >= len(w.links) || w.links[at].next == 0 {
		return
	}
	l := w.links[at]
	w.links[l.prev].next = l.next
	w.links[l.next].prev = l.prev
	w.links[at] = link{}
}

// reset forgets every key and gives the memory back.
func (w *wheel) reset() {
	w.links = nil
	w.occupied = [levels]uint64{}
}

// next returns the tick at which the next list must be looked at, math.MaxInt64 if there is none.
func (w *wheel) next() int64 {
	for level, occupied := range w.occupied {
		if occupied == 0 {
			continue
		}
		shift := level * levelBits
		base := w.now >> (shift + levelBits) << (shift + levelBits)
		return base | int64(bits.TrailingZeros64(occupied))<<shift
	}
	return math.MaxInt64
}

// due returns when the next list must be looked at, math.MaxInt64 if never.
func (w *wheel) due() int64 {
	return w.timeOf(w.next())
}

// advance moves on to tick and calls due with keys whose lists' time has come, n
// at the most; it returns how many it called. due says whether the key has another deadline to be filed under.
func (w *wheel) advance(tick int64, n int, due func(id uint32) (deadline int64)) int {
	done := 0
	for done < n {
		next := w.next()
		if next > tick {
			w.now = max(w.now, tick)
			return done
		}
		w.now = max(w.now, next)
		done += w.empty(n-done, due)
	}
	return done
}

// empty works on the first occupied list, n keys at the most.
func (w *wheel) empty(n int, due func(id uint32) (deadline int64)) int {
	level := 0
	for w.occupied[level] == 0 {
		level++
	}
	i := bits.TrailingZeros64(w.occupied[level])
	head := uint32(firstHead + level*perLevel + i)
	for done := range n {
		at := w.links[head].next
		if at == head {
			w.occupied[level] &^= 1 << i
			return done
		}
		id := at - firstKey
		w.remove(id)
		if deadline := due(id); deadline != 0 {
			w.file(id, deadline)
		}
		if w.links == nil { // that was the last key of the shard
			return done + 1
		}
	}
	return n
}
