package kv

import (
	"sync/atomic"
	"unsafe"
)

// A record is one version of a key: header, key, value and metadata, written
// once into a chunk and never changed afterwards, except for the deadline. That
// is what makes it safe to hand out strings that point into it, and to read it
// without a lock.
//
//	offset 0   uint32   the key's number in its shard
//	       4   uint32   shape: bit 0 there is a deadline, bit 1 extended lengths,
//	                    bits 2-11 length of the key, bits 12-31 length of the value
//	       8   int64    deadline, 0 for none; only with bit 0; atomic
//	      +8   uint32 length of key, uint32 of metadata, uint64 of value; only with bit 1
//	           key, value, metadata; padded to 8 bytes
//
// The short shape is for what nearly all records are: no metadata, key below 1
// KiB, value below 1 MiB. Its header costs 8 bytes, with a deadline 16.
type record struct{ p unsafe.Pointer }

const (
	shapeDeadline = 1 << 0
	shapeExtended = 1 << 1

	shortKeyBits   = 10
	shortKeyShift  = 2
	shortValueBits = 20
	shortValShift  = shortKeyShift + shortKeyBits

	headerBytes   = 8
	deadlineBytes = 8
	extendedBytes = 16

	// From this size on a record has room for a deadline even if it has none,
	// so that the first Expire need not copy it.
	roomyValue = 4 << 10
)

// fields are the contents of a record.
type fields struct {
	key, value, metadata string
	deadline             int64 // 0: none
}

func (f *fields) payload() int { return len(f.key) + len(f.value) + len(f.metadata) }

// shape returns the second word of the header.
func (f *fields) shape() uint32 {
	var s uint32
	if f.deadline != 0 || len(f.value) >= roomyValue {
		s |= shapeDeadline
	}
	if f.metadata != "" || len(f.key) >= 1<<shortKeyBits || len(f.value) >= 1<<shortValueBits {
		return s | shapeExtended
	}
	return s | uint32(len(f.key))<<shortKeyShift | uint32(len(f.value))<<shortValShift
}

// dataOffset returns where the key begins in a record of this shape.
func dataOffset(shape uint32) uintptr {
	return headerBytes + uintptr(shape&shapeDeadline)*deadlineBytes + uintptr(shape&shapeExtended)*(extendedBytes/shapeExtended)
}

// size returns the bytes of a record with contents f.
func (f *fields) size() int {
	return align(int(dataOffset(f.shape())) + f.payload())
}

func align(n int) int { return (n + 7) &^ 7 }

// write makes r, which is zeroed memory of f.size() bytes, the record of f.
func (r record) write(id uint32, f *fields) {
	shape := f.shape()
	*(*uint32)(r.p) = id
	*(*uint32)(unsafe.Add(r.p, 4)) = shape
	at := uintptr(headerBytes)
	if shape&shapeDeadline != 0 {
		r.setDeadline(f.deadline)
		at += deadlineBytes
	}
	if shape&shapeExtended != 0 {
		*(*uint32)(unsafe.Add(r.p, at)) = uint32(len(f.key))
		*(*uint32)(unsafe.Add(r.p, at+4)) = uint32(len(f.metadata))
		*(*uint64)(unsafe.Add(r.p, at+8)) = uint64(len(f.value))
		at += extendedBytes
	}
	data := unsafe.Slice((*byte)(unsafe.Add(r.p, at)), f.payload())
	n := copy(data, f.key)
	n += copy(data[n:], f.value)
	copy(data[n:], f.metadata)
}

func (r record) id() uint32    { return *(*uint32)(r.p) }
func (r record) shape() uint32 { return *(*uint32)(unsafe.Add(r.p, 4)) }

// deadline returns the deadline, 0 for none.
func (r record) deadline() int64 {
	if r.shape()&shapeDeadline == 0 {
		return 0
	}
	return atomic.LoadInt64((*int64)(unsafe.Add(r.p, headerBytes)))
}

// setDeadline changes the deadline of a record that has room for one. Its shard's mu is held.
func (r record) setDeadline(d int64) {
	atomic.StoreInt64((*int64)(unsafe.Add(r.p, headerBytes)), d)
}

func (r record) hasRoom() bool { return r.shape()&shapeDeadline != 0 }

// key returns the key, which shares the record's memory.
func (r record) key() string {
	shape := r.shape()
	data := unsafe.Add(r.p, dataOffset(shape))
	if shape&shapeExtended != 0 {
		k, _, _ := r.lengths(shape)
		return unsafe.String((*byte)(data), k)
	}
	return unsafe.String((*byte)(data), shape>>shortKeyShift&(1<<shortKeyBits-1))
}

// value returns the value, which shares the record's memory.
func (r record) value() string {
	shape := r.shape()
	k, v, _ := r.lengths(shape)
	return substring(unsafe.Add(r.p, dataOffset(shape)), k, v)
}

// fields returns the whole contents, which share the record's memory.
func (r record) fields() fields {
	shape := r.shape()
	k, v, m := r.lengths(shape)
	data := unsafe.Add(r.p, dataOffset(shape))
	return fields{
		key:      substring(data, 0, k),
		value:    substring(data, k, v),
		metadata: substring(data, k+v, m),
		deadline: r.deadline(),
	}
}

// substring returns the n bytes at data+at. An empty one points nowhere: it may
// lie at the very end of its chunk, where a pointer would keep what comes behind alive.
func substring(data unsafe.Pointer, at, n int) string {
	if n == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Add(data, at)), n)
}

// lengths returns the lengths of key, value and metadata.
func (r record) lengths(shape uint32) (k, v, m int) {
	if shape&shapeExtended == 0 {
		return int(shape >> shortKeyShift & (1<<shortKeyBits - 1)), int(shape >> shortValShift), 0
	}
	at := dataOffset(shape) - extendedBytes
	return int(*(*uint32)(unsafe.Add(r.p, at))), int(*(*uint64)(unsafe.Add(r.p, at+8))), int(*(*uint32)(unsafe.Add(r.p, at+4)))
}

// size returns the record's bytes.
func (r record) size() int {
	shape := r.shape()
	k, v, m := r.lengths(shape)
	return align(int(dataOffset(shape)) + k + v + m)
}

func (r record) payload() int {
	k, v, m := r.lengths(r.shape())
	return k + v + m
}
