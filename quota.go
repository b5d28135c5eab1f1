package kv

import "time"

// Refill says how what was taken from a [Quota] comes back.
type Refill int

// The ways in which a quota refills.
const (
	// RefillWindow gives everything back when the window that began with the first use ends.
	RefillWindow Refill = iota
	// RefillSliding weighs the window before by the part of it that still lies
	// within Period: the sliding window counter.
	RefillSliding
	// RefillSteady gives back evenly: Amount in each Period, up to Capacity (GCRA).
	RefillSteady
)

// Quota describes an amount that is taken from and comes back with time.
type Quota struct {
	Refill   Refill
	Capacity int64         // the most that can be taken at once; positive
	Amount   int64         // RefillSteady: what comes back in each Period; otherwise Capacity
	Period   time.Duration // whole microseconds; positive
}

// Usage is what [Quota.Take] says of a quota after the call.
type Usage struct {
	OK         bool          // n was taken (dry: would be)
	Used       int64         // what has been taken and is not back yet, rounded up
	RetryAfter time.Duration // not OK: after this, and not 1 us before, the same call succeeds if nobody else takes
	ResetAfter time.Duration // until the quota is as if never used
}

// Take returns what taking n from the quota changes. It is the definition that
// every engine's [Engine.Take] follows; engines that run in the process call it.
//
// old is the stored state, "" for none; now is the engine's clock in
// microseconds since 1970. n > 0 takes n if so much is left, and nothing if not; n < 0 gives back, never
// more than was taken. next is the state to store for ttl; ttl 0 means that nothing
// changed or nothing is left to keep: next == "" is "delete the key", next == old "leave it".
func (q Quota) Take(old string, now int64, n int64) (next string, ttl time.Duration, u Usage, err error) {
	panic("TODO")
}
