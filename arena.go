package kv

import (
	"runtime"
	"unsafe"
)

// A ref addresses a record within its shard: the number of its chunk and the
// offset there in units of 8 bytes. 0 is none; so chunk 0 does not exist.
type ref uint32

const (
	chunkBytes    = 32 << 10
	firstChunk    = 4 << 10 // the first chunk of a shard; they double until chunkBytes
	ownChunkBytes = 8 << 10 // records from this size on get a chunk of their own
	refOffsetBits = 12      // chunkBytes / 8
	refOffsetMask = 1<<refOffsetBits - 1
	maxChunks     = 1 << (32 - refOffsetBits)
)

func makeRef(chunk, offset int) ref { return ref(chunk<<refOffsetBits | offset>>3) }
func (r ref) chunk() int            { return int(r >> refOffsetBits) }
func (r ref) offset() int           { return int(r&refOffsetMask) << 3 }

// An arena is the memory of a shard's records: chunks that are filled once from
// front to back and then never written again (deadlines apart), so that the
// garbage collector sees a few large blocks without pointers instead of millions
// of objects. A chunk whose records are all dead is let go; the collector frees it when
// the last string that was handed out from it is gone, too. A chunk that is
// mostly dead is emptied first, see [shard.compact].
//
// Everything is guarded by the shard's mu. Readers know chunks only through the shard's view.
type arena struct {
	open   uint32       // the chunk that is being filled; 0: none
	used   uint32       // bytes of it that are
	size   uint32       // bytes of it
	ripe   uint32       // chunks of which half is dead, or more
	live   int          // bytes of records that are not dead
	dead   int          // bytes of dead records in chunks that still exist
	chunks []chunkState // by chunk number
	free   []uint32     // numbers of chunks that were let go

	victim  uint32 // the chunk that compaction is emptying; 0: none
	cleared uint32 // bytes at its front that it has seen to
}

// chunkState counts the bytes of a chunk.
type chunkState struct {
	size, used, dead int // used is 0 while the chunk is being filled
}

func (c *chunkState) ripe() bool { return c.dead > 0 && c.dead >= c.size/2 }

// fits says whether a record of n bytes goes into the open chunk.
func (a *arena) fits(n int) bool { return int(a.used)+n <= int(a.size) }

// close ends the filling of the open chunk, if there is one, and returns its number.
func (a *arena) close() int {
	if a.open != 0 {
		a.chunks[a.open].used = int(a.used)
	}
	return int(a.open)
}

// fill makes an empty chunk the open one, or none.
func (a *arena) fill(chunk int) {
	a.open, a.used, a.size = uint32(chunk), 0, 0
	if chunk != 0 {
		a.size = uint32(a.chunks[chunk].size)
	}
}

// nextChunkBytes returns the size of the next shared chunk for a record of n
// bytes: small shards stay small.
func (a *arena) nextChunkBytes(n int) int {
	size := firstChunk
	for size < chunkBytes && size < a.live/4 {
		size *= 2
	}
	for size < n {
		size *= 2
	}
	return size
}

// number returns a free chunk number, 0 if there is none.
func (a *arena) number() int {
	if n := len(a.free); n > 0 {
		c := a.free[n-1]
		a.free = a.free[:n-1]
		return int(c)
	}
	if len(a.chunks) == 0 {
		a.chunks = append(a.chunks, chunkState{}) // 0 does not exist
	}
	if len(a.chunks) == maxChunks {
		return 0
	}
	a.chunks = append(a.chunks, chunkState{})
	return len(a.chunks) - 1
}

// choose makes the chunk with the most dead bytes the victim, none if no chunk but the open one has any.
func (a *arena) choose() {
	most := 0
	a.victim, a.cleared = 0, 0
	for i := range a.chunks {
		if c := &a.chunks[i]; c.dead > most && i != int(a.open) {
			a.victim, most = uint32(i), c.dead
		}
	}
}

// wasteful says whether another chunk should be emptied: a third of all is dead, and there is a chunk
// with so much of it that this costs no more than it gains; or half of all is dead.
func (a *arena) wasteful() bool {
	return a.dead > a.live/2+chunkBytes && a.ripe > 0 || a.dead > a.live+chunkBytes
}

// bury counts n bytes of a chunk as dead.
func (a *arena) bury(chunk, n int) {
	c := &a.chunks[chunk]
	wasRipe := c.ripe()
	c.dead += n
	if !wasRipe && c.ripe() {
		a.ripe++
	}
	a.dead += n
	a.live -= n
}

// forget counts a chunk no more.
func (a *arena) forget(chunk int) {
	c := &a.chunks[chunk]
	if c.ripe() {
		a.ripe--
	}
	a.dead -= c.dead
	*c = chunkState{}
	a.free = append(a.free, uint32(chunk))
	if chunk == int(a.victim) {
		a.victim = 0
	}
	if chunk == int(a.open) {
		a.fill(0)
	}
}

// at returns the record at r in the chunk that begins at base.
func (r ref) at(base unsafe.Pointer) record {
	return record{unsafe.Add(base, r.offset())}
}

// Spares are empty chunks that were made while no lock was held. To make one takes as long as many writes, most
// of it the kernel's time where the memory was never used before, and who waits so long for a lock goes to sleep,
// which costs as much again. A writer replaces what it has taken when it has unlocked its shard.
type spares chan *[chunkBytes]byte

func makeSpares() spares { return make(spares, runtime.GOMAXPROCS(0)) }

func (s spares) take() unsafe.Pointer {
	select {
	case c := <-s:
		return unsafe.Pointer(c)
	default:
		return unsafe.Pointer(new([chunkBytes]byte))
	}
}

func (s spares) refill() {
	if len(s) == cap(s) {
		return
	}
	c := new([chunkBytes]byte)
	for i := 0; i < len(c); i += pageBytes {
		c[i] = 0 // so that the kernel gives us the page now
	}
	select {
	case s <- c:
	default:
	}
}

const pageBytes = 4 << 10
