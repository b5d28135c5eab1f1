package kv

import "unsafe"

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

// victim returns the chunk with the most dead bytes, 0 if no chunk but the open one has any.
func (a *arena) victim() int {
	best, most := 0, 0
	for i := range a.chunks {
		if c := &a.chunks[i]; c.dead > most && i != int(a.open) {
			best, most = i, c.dead
		}
	}
	return best
}

// wasteful says whether a chunk should be emptied: a third of all is dead, and there is a chunk
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
	if chunk == int(a.open) {
		a.fill(0)
	}
}

// at returns the record at r in the chunk that begins at base.
func (r ref) at(base unsafe.Pointer) record {
	return record{unsafe.Add(base, r.offset())}
}
