package main

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"sort"
	"strings"
	"unsafe"
)

const keyBytes = len("user:00000000:session")

// appendKey appends the i-th key to b: "user:%08d:session", much faster.
func appendKey(b []byte, i int) []byte {
	b = append(b, "user:00000000:session"...)
	for at := len(b) - len(":session") - 1; i > 0; at-- {
		b[at] = byte('0' + i%10)
		i /= 10
	}
	return b
}

func key(i int) string { return string(appendKey(nil, i)) }

// shuffled returns 0 to n-1 in an order that is the same every time.
func shuffled(n int, seed uint64) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	r.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// newKeys returns the keys 0 to n-1, shuffled, each a string of its own as if it had just come in.
func newKeys(n int) []string {
	keys := make([]string, n)
	var buf []byte
	for i, k := range shuffled(n, 42) {
		buf = appendKey(buf[:0], int(k))
		keys[i] = string(buf)
	}
	return keys
}

// A sequence is keys to ask for, one behind the other in memory: like a key that has just been
// read from a request, the next one is in the cache, and it is never the very string that the store
// keeps. It holds no pointers that the collector would have to follow meanwhile.
type sequence struct {
	text string
	mask int // its length, a power of two, less 1
}

// at returns the i-th key, beginning anew at the end.
func (s sequence) at(i int) string {
	at := (i & s.mask) * keyBytes
	return s.text[at : at+keyBytes]
}

// makeSequence returns at least n keys.
func makeSequence(n int, pick func() int) sequence {
	n = 1 << bits.Len(uint(n-1))
	text := make([]byte, 0, n*keyBytes)
	for range n {
		text = appendKey(text, pick())
	}
	return sequence{unsafe.String(&text[0], len(text)), n - 1}
}

// uniform returns count keys out of n, each as likely as any other.
func uniform(n, count int, seed uint64) sequence {
	r := rand.New(rand.NewPCG(seed, 2))
	return makeSequence(count, func() int { return r.IntN(n) })
}

// zipf returns count keys out of n, where the k-th most popular has a share of 1/k^1.01.
func zipf(n, count int, seed uint64) sequence {
	const exponent = 1.01
	sums := make([]float64, n)
	sum := 0.0
	for k := range sums {
		sum += math.Pow(float64(k+1), -exponent)
		sums[k] = sum
	}
	popular := shuffled(n, 7) // popularity has nothing to do with the order of keys or of their insertion
	r := rand.New(rand.NewPCG(seed, 3))
	return makeSequence(count, func() int {
		k := sort.SearchFloat64s(sums, r.Float64()*sum)
		return int(popular[min(k, n-1)])
	})
}

// A valueMaker makes values, each a new string, as a service does that encodes something.
type valueMaker struct {
	buf   []byte
	count uint64
}

func newValues(size int) *valueMaker {
	return &valueMaker{buf: []byte(strings.Repeat("v", max(size, 8)))[:max(size, 8)]}
}

func (v *valueMaker) next() string {
	v.count++
	binary.LittleEndian.PutUint64(v.buf, v.count)
	return string(v.buf)
}
