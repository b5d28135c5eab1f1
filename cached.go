package kv

import (
	"encoding/binary"
	"strings"
	"time"
)

// cached is what [Guarded] keeps under a key: a value, the fact that there is
// none, or the lease of whoever computes. It is stored as
//
//	"kvg1" "L" takers
//	"kvg1" "V" version freshUntil cost count takers payload
//	"kvg1" "N" version freshUntil cost count takers
//
// with takers of takerLen characters each, a version of versionLen, freshUntil and cost as 8 bytes,
// big end first, and count, of the takers, as one byte.
type cached struct {
	raw        string        // as it is stored; "" if the key is missing
	kind       byte          // 0 if the key is missing
	takers     string        // who computes, in the order in which they took the lease
	version    string        // tells two stores of the same payload apart
	freshUntil int64         // the engine's clock in ns since 1970; 0: as long as the key lives
	cost       time.Duration // how long the value took to compute
	payload    string        // the encoded value
}

const (
	cachedMagic  = "kvg1"
	cachedLease  = 'L'
	cachedValue  = 'V'
	cachedAbsent = 'N' // compute said ErrNotFound

	takerLen   = 26 // 130 random bits
	maxTakers  = 16 // more don't matter: the first of them have failed or are hopelessly late
	versionLen = 12 // 60 random bits, among the values of one key within one refresh
	headerLen  = len(cachedMagic) + 1 + versionLen + 8 + 8 + 1
)

// newTaker returns the name of one computation.
func newTaker() string { return newToken()[:takerLen] }

// parse makes c, which is zero, what is stored under a key. It is false for what no Guarded wrote.
func (c *cached) parse(raw string) bool {
	if len(raw) <= len(cachedMagic) || raw[:len(cachedMagic)] != cachedMagic {
		return false
	}
	c.raw, c.kind = raw, raw[len(cachedMagic)]
	switch c.kind {
	case cachedLease:
		c.takers = raw[len(cachedMagic)+1:]
		return c.takers != "" && len(c.takers)%takerLen == 0
	case cachedValue, cachedAbsent:
		return c.parseValue(raw)
	}
	return false
}

func (c *cached) parseValue(raw string) bool {
	if len(raw) < headerLen {
		return false
	}
	at := len(cachedMagic) + 1
	c.version = raw[at : at+versionLen]
	c.freshUntil = int64(uint64At(raw, at+versionLen))
	c.cost = time.Duration(uint64At(raw, at+versionLen+8))
	takers := int(raw[headerLen-1]) * takerLen
	if c.freshUntil < 0 || c.cost < 0 || len(raw) < headerLen+takers {
		return false
	}
	c.takers, c.payload = raw[headerLen:headerLen+takers], raw[headerLen+takers:]
	return c.kind == cachedValue || c.payload == ""
}

func uint64At(s string, at int) uint64 { return binary.BigEndian.Uint64([]byte(s[at : at+8])) }

// encode returns c as it is stored. c.raw doesn't count.
func (c *cached) encode() string {
	b := make([]byte, 0, headerLen+len(c.takers)+len(c.payload))
	b = append(b, cachedMagic...)
	b = append(b, c.kind)
	if c.kind != cachedLease {
		b = append(b, c.version...)
		b = binary.BigEndian.AppendUint64(b, uint64(c.freshUntil))
		b = binary.BigEndian.AppendUint64(b, uint64(c.cost))
		b = append(b, byte(len(c.takers)/takerLen))
	}
	b = append(b, c.takers...)
	b = append(b, c.payload...)
	return string(b)
}

// servable says that c is an answer, be it stale.
func (c *cached) servable() bool { return c.kind == cachedValue || c.kind == cachedAbsent }

// lists says that taker computes, or did, and that the key has not been invalidated since it began.
func (c *cached) lists(taker string) bool { return c.takerIndex(taker) >= 0 }

func (c *cached) takerIndex(taker string) int {
	for at := 0; at < len(c.takers); at += takerLen {
		if c.takers[at:at+takerLen] == taker {
			return at
		}
	}
	return -1
}

// takersAfter returns those who took the lease after taker, who must be listed.
func (c *cached) takersAfter(taker string) string {
	return c.takers[c.takerIndex(taker)+takerLen:]
}

// leaseWith returns the lease that taker takes over from those in c, to be stored.
func (c *cached) leaseWith(taker string) string {
	takers := c.takers
	if excess := len(takers) - (maxTakers-1)*takerLen; excess > 0 {
		takers = takers[excess:]
	}
	return strings.Join([]string{cachedMagic, string(rune(cachedLease)), takers, taker}, "")
}
