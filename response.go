package kv

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Response is the result of a request that [Idempotency] replays byte for byte. It fits an HTTP
// response; whoever has another kind of result uses [Once].
type Response struct {
	Status int
	Header map[string][]string // as net/http's Header
	Body   []byte
}

// A receipt is what [Idempotency] keeps under a key: that the work is pending, or
// its result. It is stored as
//
//	"kvi1" kind fingerprint rest
//
// where fingerprint, like every string in what follows, has its length before it, and every number is
// a varint. rest is a token for pending work and events, and for a result
//
//	parts status [headers] [body]
//
// with headers as their number, then each as its name, the number of its values plus 1 (0 for nil) and
// the values. The body is all that remains.
type receipt struct {
	raw         string // as it is stored; "" if the key is missing
	kind        byte   // 0 if the key is missing
	fingerprint string
	rest        string
}

const (
	receiptMagic   = "kvi1"
	receiptPending = 'P' // a lease; rest is its token
	receiptResult  = 'R' // rest is an encoded Response
	receiptEvent   = 'E' // an event that was processed
)

// The parts of a response that its encoding has. Nil and empty are two things.
const (
	partHeader     = 1 << iota
	partBody       //
	partTooLarge   // there was more than could be kept
	partUnreadable // there was a result that could not be encoded
	partsEnd
)

func (r receipt) encode() string {
	b := make([]byte, 0, len(receiptMagic)+1+binary.MaxVarintLen64+len(r.fingerprint)+len(r.rest))
	b = append(b, receiptMagic...)
	b = append(b, r.kind)
	b = appendString(b, r.fingerprint)
	b = append(b, r.rest...)
	return string(b)
}

// parseReceipt reads what is stored under a key. ok is false for what no Idempotency wrote.
func parseReceipt(raw string) (r receipt, ok bool) {
	if len(raw) <= len(receiptMagic) || raw[:len(receiptMagic)] != receiptMagic {
		return receipt{}, false
	}
	r.raw, r.kind = raw, raw[len(receiptMagic)]
	switch r.kind {
	case receiptPending, receiptResult, receiptEvent:
	default:
		return receipt{}, false
	}
	d := decoder{rest: raw[len(receiptMagic)+1:]}
	r.fingerprint = d.string()
	r.rest = d.rest
	return r, !d.bad
}

// encodeResponse returns those parts of resp that parts names and resp has.
func encodeResponse(resp Response, parts uint64) string {
	if resp.Header == nil {
		parts &^= partHeader
	}
	if resp.Body == nil {
		parts &^= partBody
	}
	b := make([]byte, 0, 128+len(resp.Body))
	b = binary.AppendUvarint(b, parts)
	b = binary.AppendVarint(b, int64(resp.Status))
	if parts&partHeader != 0 {
		b = appendHeader(b, resp.Header)
	}
	if parts&partBody != 0 {
		b = append(b, resp.Body...)
	}
	return string(b)
}

// decodeResponse is the opposite. The response shares no memory that could be written.
func decodeResponse(s string) (resp Response, parts uint64, ok bool) {
	d := decoder{rest: s}
	parts = d.uvarint()
	status := d.varint()
	resp.Status = int(status)
	if parts&partHeader != 0 {
		resp.Header = d.header()
	}
	if parts&partBody != 0 {
		resp.Body = []byte(d.rest)
	} else if d.rest != "" {
		d.bad = true
	}
	if d.bad || parts >= partsEnd || int64(resp.Status) != status {
		return Response{}, 0, false
	}
	return resp, parts, true
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendHeader writes the names in order, so that equal headers are equal bytes.
func appendHeader(b []byte, h map[string][]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(h)))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		b = appendString(b, name)
		values := h[name]
		if values == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(values))+1)
		for _, v := range values {
			b = appendString(b, v)
		}
	}
	return b
}

// A decoder reads what append functions wrote, from a source that it does not
// trust: it allocates no more than a small multiple of the bytes there are. Once it is bad, it yields zeros.
type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) fail() {
	d.rest, d.bad = "", true
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64; i++ {
		c := d.rest[i]
		if c < 0x80 {
			if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
				break // over 64 bits, or longer than it need be
			}
			d.rest = d.rest[i+1:]
			return v | uint64(c)<<(7*i)
		}
		v |= uint64(c&0x7f) << (7 * i)
	}
	d.fail()
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

// count reads the number of items that have at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.rest)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) header() map[string][]string {
	h := make(map[string][]string)
	for n := d.count(2); n > 0 && !d.bad; n-- {
		name := d.string()
		if _, twice := h[name]; twice {
			d.fail()
		}
		h[name] = d.values()
	}
	return h
}

func (d *decoder) values() []string {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	n--
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	values := make([]string, n)
	for i := range values {
		values[i] = d.string()
	}
	return values
}
