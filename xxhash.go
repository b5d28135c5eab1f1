package kv

import "math/bits"

// The primes of XXH64.
const (
	xxhPrime1 uint64 = 11400714785074694791
	xxhPrime2 uint64 = 14029467366897019727
	xxhPrime3 uint64 = 1609587929392839161
	xxhPrime4 uint64 = 9650029242287828579
	xxhPrime5 uint64 = 2870177450012600261
)

// xxh64 is the 64-bit xxHash of s, see
// https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. Stored
// percentages rest on it: its results must never change.
func xxh64(s string, seed uint64) uint64 {
	size := uint64(len(s))
	h := seed + xxhPrime5
	if len(s) >= 32 {
		h, s = xxhStripes(s, seed)
	}
	h += size
	for ; len(s) >= 8; s = s[8:] {
		h ^= xxhRound(0, le64(s))
		h = bits.RotateLeft64(h, 27)*xxhPrime1 + xxhPrime4
	}
	if len(s) >= 4 {
		h ^= uint64(le32(s)) * xxhPrime1
		h = bits.RotateLeft64(h, 23)*xxhPrime2 + xxhPrime3
		s = s[4:]
	}
	for i := range len(s) {
		h ^= uint64(s[i]) * xxhPrime5
		h = bits.RotateLeft64(h, 11) * xxhPrime1
	}
	h = (h ^ h>>33) * xxhPrime2
	h = (h ^ h>>29) * xxhPrime3
	return h ^ h>>32
}

// xxhStripes hashes the whole stripes of 32 bytes and returns what is left of s.
func xxhStripes(s string, seed uint64) (h uint64, rest string) {
	v1, v2, v3, v4 := seed+xxhPrime1, seed+xxhPrime2, seed, seed-xxhPrime1
	v1 += xxhPrime2
	for ; len(s) >= 32; s = s[32:] {
		v1 = xxhRound(v1, le64(s))
		v2 = xxhRound(v2, le64(s[8:]))
		v3 = xxhRound(v3, le64(s[16:]))
		v4 = xxhRound(v4, le64(s[24:]))
	}
	h = bits.RotateLeft64(v1, 1) + bits.RotateLeft64(v2, 7) + bits.RotateLeft64(v3, 12) + bits.RotateLeft64(v4, 18)
	h = xxhMerge(h, v1)
	h = xxhMerge(h, v2)
	h = xxhMerge(h, v3)
	return xxhMerge(h, v4), s
}

func xxhMerge(h, v uint64) uint64 { return (h^xxhRound(0, v))*xxhPrime1 + xxhPrime4 }

func xxhRound(acc, lane uint64) uint64 {
	return bits.RotateLeft64(acc+lane*xxhPrime2, 31) * xxhPrime1
}

func le64(s string) uint64 { return uint64(le32(s)) | uint64(le32(s[4:]))<<32 }

func le32(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}
