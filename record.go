package kv

import (
	"math"
	"math/bits"
	"strconv"
	"sync/atomic"
	"unsafe"
)

// A record is one version of a key: header, key, value and metadata, written
// once into a chunk and never changed afterwards, except for deadline and number. That
// is what makes it safe to hand out strings that point into it, and to read it
// without a lock.
//
//	offset 0   uint32   the key's number in its shard, noNumber if the record is dead
//	       4   uint32   shape: bit 0 there is a deadline, bit 1 extended lengths,
//	                    bit 2 numeric, bits 3-12 length of the key, bits 13-31 length of the value
//	       8   int64    deadline, 0 for none; only with bit 0; atomic
//	      +8   uint32 length of key, uint32 of metadata, uint64 of value; only with bit 1
//	      +8   int64    the first number; only with bit 2; atomic
//	           key, value, metadata; padded to 8 bytes
//
// The short shape is for what nearly all records are: no metadata, key below 1
// KiB, value below 512 KiB. Its header costs 8 bytes, with a deadline 16.
//
// A numeric record has numbers, which are changed in place, instead of a text. In a
// counter's, which Incr changes, the first number is all, and the value is empty. In that of a
// quota's state, which Take changes, the value is the other numbers, see [quotaState.rest]; they are read and written
// with the shard's mu held. [memory.settled] replaces the record by one with the text when somebody asks for it.
type record struct{ p unsafe.Pointer }

const (
	shapeDeadline = 1 << 0
	shapeExtended = 1 << 1
	shapeNumeric  = 1 << 2

	shortKeyShift  = 3
	shortKeyBits   = 10
	shortValShift  = shortKeyShift + shortKeyBits
	shortValueBits = 32 - shortValShift

	headerBytes   = 8
	deadlineBytes = 8
	extendedBytes = 16
	numberBytes   = 8

	// From this size on a record has room for a deadline even if it has none,
	// so that the first Expire need not copy it.
	roomyValue = 4 << 10
)

// fields are the contents of a record.
type fields struct {
	key, value, metadata string
	deadline             int64 // 0: none
	numeric              bool  // the value is number, and what value has; there is no metadata, and key is short
	number               int64
}

// stored returns the bytes of the strings that go into the record.
func (f *fields) stored() int { return len(f.key) + len(f.value) + len(f.metadata) }

// payload returns the bytes of key, value and metadata.
func (f *fields) payload() int {
	switch {
	case !f.numeric:
		return f.stored()
	case f.value == "":
		return len(f.key) + decimalLen(f.number)
	}
	s := makeState(f.number, f.value)
	return len(f.key) + s.textLen()
}

// text returns the value of a numeric record as text.
func (f *fields) text() string {
	if f.value == "" {
		return strconv.FormatInt(f.number, 10)
	}
	s := makeState(f.number, f.value)
	return string(s.append(nil))
}

// shape returns the second word of the header.
func (f *fields) shape() uint32 {
	var s uint32
	if f.deadline != 0 || len(f.value) >= roomyValue {
		s |= shapeDeadline
	}
	if f.numeric {
		s |= shapeNumeric
	}
	if f.metadata != "" || len(f.key) >= 1<<shortKeyBits || len(f.value) >= 1<<shortValueBits {
		return s | shapeExtended
	}
	return s | uint32(len(f.key))<<shortKeyShift | uint32(len(f.value))<<shortValShift
}

// dataOffset returns where the key begins in a record of this shape.
func dataOffset(shape uint32) uintptr {
	return headerBytes + uintptr(shape&shapeDeadline)*deadlineBytes +
		uintptr(shape&shapeExtended)*(extendedBytes/shapeExtended) + uintptr(shape&shapeNumeric)*(numberBytes/shapeNumeric)
}

// size returns the bytes of a record with contents f.
func (f *fields) size() int {
	return align(int(dataOffset(f.shape())) + f.stored())
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
	if shape&shapeNumeric != 0 {
		r.setNumber(f.number)
		at += numberBytes
	}
	data := unsafe.Slice((*byte)(unsafe.Add(r.p, at)), f.stored())
	n := copy(data, f.key)
	n += copy(data[n:], f.value)
	copy(data[n:], f.metadata)
}

// noNumber is what a dead record has for a number.
const noNumber = math.MaxUint32

// id returns the key's number, or noNumber. Its shard's mu is held.
func (r record) id() uint32 { return *(*uint32)(r.p) }

// die says that nothing points to r any more. Its shard's mu is held.
func (r record) die() { *(*uint32)(r.p) = noNumber }

func (r record) shape() uint32 { return *(*uint32)(unsafe.Add(r.p, 4)) }

// deadline returns the deadline, 0 for none.
func (r record) deadline() int64 { return r.deadlineIn(r.shape()) }

func (r record) deadlineIn(shape uint32) int64 {
	if shape&shapeDeadline == 0 {
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
func (r record) key() string { return r.keyIn(r.shape()) }

func (r record) keyIn(shape uint32) string {
	data := unsafe.Add(r.p, dataOffset(shape))
	if shape&shapeExtended != 0 {
		k, _, _ := r.lengths(shape)
		return unsafe.String((*byte)(data), k)
	}
	return unsafe.String((*byte)(data), shape>>shortKeyShift&(1<<shortKeyBits-1))
}

func (r record) isNumeric() bool { return r.shape()&shapeNumeric != 0 }

// isCounter says that the record is one whose only number Incr changes in place.
func (r record) isCounter() bool {
	shape := r.shape()
	return shape&shapeNumeric != 0 && shape>>shortValShift == 0
}

// isState says that the record is the state of a quota, which Take changes in place.
func (r record) isState() bool {
	shape := r.shape()
	return shape&shapeNumeric != 0 && shape>>shortValShift != 0
}

func (r record) numberAt() *int64 {
	return (*int64)(unsafe.Add(r.p, dataOffset(r.shape())-numberBytes))
}

// number returns the first number of a numeric record.
func (r record) number() int64 { return atomic.LoadInt64(r.numberAt()) }

// setNumber changes the first number of a numeric record. Its shard's mu is held.
func (r record) setNumber(n int64) { atomic.StoreInt64(r.numberAt(), n) }

// state returns the state of a quota that the value is, as text or numbers. The mu of its shard is held.
func (r record) state() quotaState {
	if r.isState() {
		return makeState(r.number(), r.stored())
	}
	return parseState(r.value())
}

// setState changes the state of a quota in place. The mu of its shard is held.
func (r record) setState(s *quotaState) {
	rest := s.rest()
	r.setNumber(s.numbers[0])
	copy(unsafe.Slice(unsafe.StringData(r.stored()), len(rest)), rest[:])
}

// stored returns what the record has for a value, which shares its memory.
func (r record) stored() string {
	shape := r.shape()
	k, v, _ := r.lengths(shape)
	return substring(unsafe.Add(r.p, dataOffset(shape)), k, v)
}

// value returns the value, which shares the record's memory unless that is numeric.
func (r record) value() string {
	if r.isNumeric() {
		return r.fields().value
	}
	return r.stored()
}

// fields returns the whole contents, the value as text. They share the record's memory but for the text of numbers.
func (r record) fields() fields { return r.fieldsIn(r.shape()) }

func (r record) fieldsIn(shape uint32) fields {
	f := r.contentsIn(shape)
	if f.numeric {
		return fields{key: f.key, value: f.text(), deadline: f.deadline}
	}
	return f
}

// contents returns the whole contents as they are stored, which share the record's memory.
func (r record) contents() fields { return r.contentsIn(r.shape()) }

func (r record) contentsIn(shape uint32) fields {
	k, v, m := r.lengths(shape)
	data := unsafe.Add(r.p, dataOffset(shape))
	f := fields{
		key:      substring(data, 0, k),
		value:    substring(data, k, v),
		metadata: substring(data, k+v, m),
		deadline: r.deadlineIn(shape),
	}
	if shape&shapeNumeric != 0 {
		f.numeric, f.number = true, r.number()
	}
	return f
}

// prefetchKey brings the end of a key of n bytes closer. It may be on another cache line than the
// beginning, and to find out where exactly would take waiting for the first one.
func (r record) prefetchKey(n int) { prefetch(uintptr(r.p) + headerBytes + uintptr(n)) }

// prefetchBehind brings the memory closer into which a record of n bytes, like this one, will be written next.
func (r record) prefetchBehind(n int) {
	if n <= 4*cacheLine {
		for end := n; end < 2*n+cacheLine; end += cacheLine {
			prefetch(uintptr(r.p) + uintptr(end))
		}
	}
}

// located is a record whose shape is known. If the record is plain, these methods touch nothing of it.
type located struct {
	record
	shape uint32
}

// isPlain says that the record has neither a deadline nor extended lengths and is not numeric.
func (l located) isPlain() bool { return l.shape&(shapeDeadline|shapeExtended|shapeNumeric) == 0 }

// isShort says that the record has no extended lengths and is not numeric.
func (l located) isShort() bool { return l.shape&(shapeExtended|shapeNumeric) == 0 }

// short returns key and value of a short record, and touches nothing of it.
func (l located) short() (key, value string) {
	k, v := int(l.shape>>shortKeyShift&(1<<shortKeyBits-1)), int(l.shape>>shortValShift)
	data := unsafe.Add(l.p, headerBytes+l.shape&shapeDeadline*deadlineBytes)
	return unsafe.String((*byte)(data), k), substring(data, k, v)
}

func (l located) key() string     { return l.keyIn(l.shape) }
func (l located) deadline() int64 { return l.deadlineIn(l.shape) }

// prefetch brings the key closer.
func (l located) prefetch() {
	prefetch(uintptr(l.p))
	l.prefetchKey(int(l.shape >> shortKeyShift & (1<<shortKeyBits - 1)))
}

func (l located) fields() fields { return l.fieldsIn(l.shape) }

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

// payload returns the bytes of key, value and metadata. The mu of its shard is held.
func (r record) payload() int {
	if r.isNumeric() {
		f := r.contents()
		return f.payload()
	}
	k, v, m := r.lengths(r.shape())
	return k + v + m
}

// decimalLen returns the length of n in base 10.
func decimalLen(n int64) int {
	length, u := 1, uint64(n)
	if n < 0 {
		length, u = 2, -u
	}
	guess := bits.Len64(u) * 1233 >> 12 // log10 of 2 is about 1233/4096
	if u < powersOf10[guess] {
		guess--
	}
	return length + max(guess, 0)
}

var powersOf10 = func() (powers [20]uint64) {
	powers[0] = 1
	for i := 1; i < len(powers); i++ {
		powers[i] = powers[i-1] * 10
	}
	return powers
}()
