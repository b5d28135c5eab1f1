package kv

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"time"
	"unsafe"
)

// Refill says how what was taken from a [Quota] comes back.
type Refill int

// The ways in which a quota refills. In any interval of length T no more is
// taken, less what is given back in it, than the bound that each of them states.
const (
	// RefillWindow gives everything back when the window that began with the
	// first use ends: at most Capacity in each window, and as windows may touch,
	// Capacity x (1 + T / Period), the fraction rounded up.
	RefillWindow Refill = iota
	// RefillSliding counts two windows of length Period, the one before by the part of
	// it that still lies within the last Period: the sliding window counter.
	// At most Capacity + Capacity x T / Period, rounded down.
	RefillSliding
	// RefillSteady gives back evenly: Amount in each Period, up to Capacity
	// (GCRA). At most Capacity + Amount x T / Period, rounded down.
	RefillSteady
)

// Quota describes an amount that is taken from and comes back with time.
// Capacity and Amount are at most 2^51, and so are, in microseconds, Period and
// the time of a full refill, Capacity x Period / Amount: about 71 years.
type Quota struct {
	Refill   Refill
	Capacity int64         // the most that can be taken at once; positive
	Amount   int64         // RefillSteady: what comes back in each Period, positive; otherwise without meaning
	Period   time.Duration // whole microseconds; positive
}

// maxQuota bounds every number of a Quota, so that all sums fit the 2^53 up to
// which the doubles of a Lua script are exact, and every ttl a time.Duration.
const maxQuota = 1 << 51

// Usage is what [Quota.Take] says of a quota after the call.
type Usage struct {
	OK         bool          // n was taken (dry: would be)
	Used       int64         // what counts as taken: Capacity - Used is what can be taken now
	RetryAfter time.Duration // not OK: after this, and not 1 us before, the same call succeeds if nobody else takes
	ResetAfter time.Duration // until the quota is as if never used
}

// Take returns what taking n from the quota changes. It is the definition that
// every engine's [Engine.Take] follows; engines that run in the process call
// it, others compute the same from the same text, as described below; testdata/quota_vectors.txt has what must come out.
//
// old is the stored state, "" for none; now is the engine's clock in
// microseconds since 1970, below 2^52. n > 0 takes n if so much is left, and
// nothing if not; n < 0 gives back, never more than was taken; 0 asks.
//
// next is the state to store for ttl, which is positive then. With ttl 0
// nothing is to be stored: next == old is "leave it", else next is "", "delete the key".
// An engine whose deadlines are coarser than 1 us must round now + ttl up.
//
// Errors, with which all else is zero: [ErrInvalidLimit] for a quota out of its bounds, [ErrCost] for n over
// Capacity, [ErrWrongType] if old is no state of this kind of quota.
//
// # State and arithmetic
//
// All numbers are integers, times are in microseconds; C, A and P are Capacity,
// Amount and Period. A state is a letter and decimal numbers, with one space between two numbers:
//
//	w<start> <used>          RefillWindow
//	s<start> <used> <before> RefillSliding
//	g<at> <part>             RefillSteady
//
// Times are at most 2^53, used and before at most 2^51 and part is below 2^51; anything else is ErrWrongType.
// With [x] for "1 if x, else 0", and muldiv(a, b, m) for the quotient and the remainder of a x b / m
// (only n > 0 is ever denied):
//
// RefillWindow. No state, or now - start >= P: start = now, used = 0. If start - now > P, the
// clock was set back: start = now, moved. Denied if used + n > C: RetryAfter =
// start - now + P. Else used = max(used + n, 0). ResetAfter = start - now + P, 0 if used is 0.
//
// RefillSliding. No state, or now - start >= 2P: start = now, used = before = 0. If now - start >= P:
// start += P, before = used, used = 0. If start - now > P: start = now, moved. Let
// count = used + muldiv(before, P - max(now - start, 0), P).quotient; if it is 0, start = now and
// before = 0. Denied if count + n > C; then let room = C - n - used, and
//
//	room >= 0: RetryAfter = start - now +  P - overlap(room,  before)
//	room <  0: RetryAfter = start - now + 2P - overlap(C - n, used)
//
// where overlap(x, taken) is by how much a window that took so much may still overlap the last Period to
// count no more than x: q, r = muldiv(x + 1, P, taken), q - [r = 0]. Not denied: n is added
// to used; if used falls below 0, before = max(before + used, 0), used = 0. Used is count of the new state.
// ResetAfter = start - now + 2P - overlap(0, used) if used > 0; max(start - now + P - overlap(0, before), 0) if
// only before > 0; 0 if neither.
//
// RefillSteady. The state is GCRA's theoretical arrival time, at + part / A microseconds. Let the
// pair full = muldiv(C, P, A) and cost = muldiv(|n|, P, A): quotient microseconds and
// remainder / A of one; pairs are added with a carry at part >= A, and ceil(us, part) = us + [part > 0].
// Let ahead, part = at - now, part; part >= A (A was larger once): ahead += 1, part = 0. No
// state, or ahead < 0: ahead = part = 0. If ahead > 2 x ceil(full), the clock was set back: ahead, part =
// full, moved. n < 0: |n| is first cut to C; ahead, part -= cost, but not below 0, 0. n > 0: let wait =
// ceil(ahead, part + cost - full): if wait > 0, denied, and RetryAfter = wait. Else ahead, part += cost.
// q, r = muldiv(ahead, A, P); Used = q + ceil((r + part) / P); ResetAfter = ceil(ahead, part). In the new state at = now + ahead.
//
// Then, for each: if ResetAfter is 0, next is "". If n was denied or 0 and the state was not
// moved, next is old. Else next is the new state and ttl = ResetAfter. (A state that was moved is
// stored though n was denied; else it would be moved, and deny, again and again.)
//
// In doubles, muldiv(a, b, m) with b, m <= 2^51 and a and quotient below 2^53 is exact if done by long
// multiplication: b1 = (b - fmod(b, m)) / m; b = fmod(b, m); K a power of two, at
// least 2, with 2 x K x m <= 2^53; q = r = 0; for each digit d of a to the base K, highest
// first: r = r x K + d x b; s = fmod(r, m); q = q x K + (r - s) / m; r = s. The
// quotient is q + a x b1, the remainder r. Mind that Lua 5.1's % is not fmod, and that its tostring cuts at 14 digits.
func (q Quota) Take(old string, now, n int64) (next string, ttl time.Duration, u Usage, err error) {
	// So short that it is inlined: next is then no allocation for a caller that does not keep it.
	state, ttl, u, err := q.take(new(stateBuffer), old, now, n)
	return string(state), ttl, u, err
}

// stateBuffer has room for the longest state: a letter, three numbers of up to 20 digits and two spaces.
type stateBuffer [64]byte

// take is Take with next in buf.
func (q Quota) take(buf *stateBuffer, old string, now, n int64) (next []byte, ttl time.Duration, u Usage, err error) {
	s := parseState(old)
	before := s
	u, err = q.advance(&s, now, n)
	switch {
	case err != nil || s.kind == 0:
		return nil, 0, u, err
	case s == before:
		return append(buf[:0], old...), 0, u, nil
	}
	return s.append(buf[:0]), u.ResetAfter, u, nil
}

// advance is Take for numbers instead of a text: it makes s the state to store, the zero one for none.
func (q Quota) advance(s *quotaState, now, n int64) (u Usage, err error) {
	if err := q.check(); err != nil {
		return u, err
	}
	if n > q.Capacity {
		return u, ErrCost
	}
	n = max(n, -q.Capacity) // give back no more than there is, and let no sum overflow
	next := quotaState{kind: stateKinds[q.Refill], numbers: s.numbers}
	if s.kind == 0 {
		next.numbers[0] = now
	} else if s.kind != next.kind {
		return u, ErrWrongType
	}
	var moved bool
	switch q.Refill {
	case RefillWindow:
		moved, u = q.takeWindow(&next, now, n)
	case RefillSliding:
		moved, u = q.takeSliding(&next, now, n)
	case RefillSteady:
		moved, u = q.takeSteady(&next, now, n)
	}
	switch {
	case u.ResetAfter == 0:
		*s = quotaState{}
	case moved || n != 0 && u.OK:
		*s = next
	}
	return u, nil
}

// check returns ErrInvalidLimit if q is out of its bounds.
func (q Quota) check() error {
	period := q.period()
	ok := 0 < q.Capacity && q.Capacity <= maxQuota && 0 < period && period <= maxQuota &&
		time.Duration(period)*time.Microsecond == q.Period
	if ok && q.Refill == RefillSteady {
		ok = 0 < q.Amount && q.Amount <= maxQuota && q.refillFits()
	} else if ok {
		ok = q.Refill == RefillWindow || q.Refill == RefillSliding
	}
	if !ok {
		return ErrInvalidLimit
	}
	return nil
}

// refillFits says whether Capacity x Period / Amount is at most maxQuota.
func (q Quota) refillFits() bool {
	hi, lo := bits.Mul64(uint64(q.Capacity), uint64(q.period()))
	boundHi, boundLo := bits.Mul64(uint64(q.Amount), maxQuota)
	return hi < boundHi || hi == boundHi && lo <= boundLo
}

// period returns Period in microseconds.
func (q Quota) period() int64 { return int64(q.Period / time.Microsecond) }

// takeWindow makes s, which may be one that was never used and begins now, the new state. moved says
// that the clock was set back by so much that the window had to be moved to it.
func (q Quota) takeWindow(s *quotaState, now, n int64) (moved bool, u Usage) {
	start, used, period := s.numbers[0], s.numbers[1], q.period()
	switch {
	case now-start >= period:
		start, used = now, 0
	case start-now > period:
		start, moved = now, true
	}
	if u.OK = n <= q.Capacity-used || n <= 0; u.OK {
		used = max(used+n, 0)
	} else {
		u.RetryAfter = micros(start - now + period)
	}
	if u.Used = used; used > 0 {
		u.ResetAfter = micros(start - now + period)
	}
	s.numbers = [3]int64{start, used}
	return moved, u
}

// takeSliding is takeWindow for RefillSliding.
func (q Quota) takeSliding(s *quotaState, now, n int64) (moved bool, u Usage) {
	w := slidingState{period: q.period(), start: s.numbers[0], used: s.numbers[1], before: s.numbers[2]}
	moved = w.advance(now)
	u.Used = w.count(now)
	if u.OK = n <= q.Capacity-u.Used || n <= 0; u.OK {
		w.add(n)
		u.Used = w.count(now)
	} else {
		u.RetryAfter = micros(w.fallsTo(q.Capacity-n) - now)
	}
	if w.used > 0 || w.before > 0 {
		u.ResetAfter = micros(max(w.fallsTo(0)-now, 0))
	}
	s.numbers = [3]int64{w.start, w.used, w.before}
	return moved, u
}

// slidingState is what was taken in the window that begins at start, and in the one before it.
type slidingState struct{ period, start, used, before int64 }

// advance makes the window that now lies in the current one. moved says that
// the clock was set back by so much that the window had to be moved to it.
func (w *slidingState) advance(now int64) (moved bool) {
	switch age := now - w.start; {
	case age >= 2*w.period:
		w.used, w.before = 0, 0
	case age >= w.period:
		w.start, w.used, w.before = w.start+w.period, 0, w.used
	case -age > w.period:
		w.start, moved = now, true
	}
	if w.count(now) == 0 { // a window begins with its first use
		w.start, w.before = now, 0
	}
	return moved
}

// count is what counts as taken: the window before by its overlap with the last
// period, rounded down. (Rounded up, a limit of 1 would admit one in two periods.)
func (w *slidingState) count(now int64) int64 {
	if w.before == 0 {
		return w.used
	}
	overlap := w.period - max(now-w.start, 0)
	before, _ := mulDiv(w.before, overlap, w.period)
	return w.used + before
}

// add takes n, which may be negative.
func (w *slidingState) add(n int64) {
	if w.used += n; w.used < 0 {
		w.used, w.before = 0, max(w.before+w.used, 0)
	}
}

// fallsTo returns the time from which on count is at most room, if nothing is
// taken until then. Its state is not empty; the time may have passed.
func (w *slidingState) fallsTo(room int64) int64 {
	if w.used > room { // this window has to become the one before
		return w.start + 2*w.period - w.overlap(room, w.used)
	}
	return w.start + w.period - w.overlap(room-w.used, w.before)
}

// overlap returns by how much a window in which so much was taken may still
// overlap the last period to count no more than room.
func (w *slidingState) overlap(room, taken int64) int64 {
	overlap, rest := mulDiv(room+1, w.period, taken) // room + 1 is where it would be too much
	if rest == 0 {
		overlap--
	}
	return overlap
}

// takeSteady is takeWindow for RefillSteady.
func (q Quota) takeSteady(s *quotaState, now, n int64) (moved bool, u Usage) {
	ahead := span{us: s.numbers[0] - now, part: s.numbers[1]} // of the theoretical arrival time
	full := q.cost(q.Capacity)
	ahead, moved = q.settle(ahead, full)
	u.OK = true
	switch {
	case n > 0:
		after := ahead.plus(q.cost(n), q.Amount)
		if wait := after.minus(full, q.Amount).ceil(); wait > 0 {
			u.OK, u.RetryAfter = false, micros(wait)
		} else {
			ahead = after
		}
	case n < 0:
		if ahead = ahead.minus(q.cost(-n), q.Amount); ahead.us < 0 {
			ahead = span{}
		}
	}
	u.Used = q.worth(ahead)
	u.ResetAfter = micros(ahead.ceil())
	s.numbers = [3]int64{now + ahead.us, ahead.part}
	return moved, u
}

// settle returns the part of ahead that counts. moved says that the clock was
// set back by so much that the arrival time had to be moved to it.
func (q Quota) settle(ahead, full span) (_ span, moved bool) {
	if ahead.part >= q.Amount { // written when Amount was larger
		ahead = span{us: ahead.us + 1}
	}
	switch {
	case ahead.us < 0:
		return span{}, false
	case ahead.us > 2*full.ceil():
		return full, true
	}
	return ahead, false
}

// cost returns how long n, at most Capacity, takes to come back.
func (q Quota) cost(n int64) span {
	us, part := mulDiv(n, q.period(), q.Amount)
	return span{us, part}
}

// worth returns what comes back in so long, rounded up.
func (q Quota) worth(ahead span) int64 {
	hi, lo := bits.Mul64(uint64(ahead.us), uint64(q.Amount))
	lo, carry := bits.Add64(lo, uint64(ahead.part), 0)
	n, rest := bits.Div64(hi+carry, lo, uint64(q.period()))
	if rest > 0 {
		n++
	}
	return int64(n)
}

// span is us + part/den microseconds, with 0 <= part < den. The denominator is
// the quota's Amount: thus no rounding adds up over many calls.
type span struct{ us, part int64 }

func (s span) plus(t span, den int64) span {
	s.us, s.part = s.us+t.us, s.part+t.part
	if s.part >= den {
		s.us, s.part = s.us+1, s.part-den
	}
	return s
}

func (s span) minus(t span, den int64) span {
	s.us, s.part = s.us-t.us, s.part-t.part
	if s.part < 0 {
		s.us, s.part = s.us-1, s.part+den
	}
	return s
}

func (s span) ceil() int64 {
	if s.part > 0 {
		return s.us + 1
	}
	return s.us
}

// mulDiv returns quotient and remainder of a x b / m for numbers that are not
// negative; the quotient must fit.
func mulDiv(a, b, m int64) (quotient, remainder int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, r := bits.Div64(hi, lo, uint64(m))
	return int64(q), int64(r)
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// quotaState is what is stored of a quota: the letter of its kind and two or three numbers. The
// zero value is that of one that was never used.
type quotaState struct {
	kind    byte
	numbers [3]int64
}

// stateKinds are the letters of the kinds of Refill.
var stateKinds = [...]byte{RefillWindow: 'w', RefillSliding: 's', RefillSteady: 'g'}

// noState is the kind of what is no state.
const noState = '?'

// count returns how many numbers a state of this kind has.
func (s *quotaState) count() int {
	if s.kind == 's' {
		return 3
	}
	return 2
}

// parseState returns the state that text is. If it is none, kind is noState.
func parseState(text string) quotaState {
	var s quotaState
	if text != "" && !s.parse(text) {
		return quotaState{kind: noState}
	}
	return s
}

// parse reads a text into s, and says whether it is a state.
func (s *quotaState) parse(text string) bool {
	s.kind = text[0]
	rest := text[1:]
	for field := range s.count() {
		if field > 0 {
			if rest == "" || rest[0] != ' ' {
				return false
			}
			rest = rest[1:]
		}
		n, digits := parseDigits(rest)
		if digits == 0 {
			return false
		}
		s.numbers[field], rest = n, rest[digits:]
	}
	return rest == "" && s.valid()
}

// valid says whether the kind is one, and its numbers are within the bounds that [Quota.Take] states.
func (s *quotaState) valid() bool {
	const maxTime = 1 << 53
	ok := s.numbers[0] <= maxTime && s.numbers[1] <= maxQuota && s.numbers[2] <= maxQuota
	switch s.kind {
	case 'w', 's':
		return ok
	case 'g':
		return ok && s.numbers[1] < maxQuota
	}
	return false
}

// parseDigits returns the number that text begins with, and its length. Beyond 2^53 it stops early.
func parseDigits(text string) (n int64, digits int) {
	for digits < len(text) && text[digits]-'0' <= 9 && n <= 1<<53 {
		n = n*10 + int64(text[digits]-'0')
		digits++
	}
	return n, digits
}

// append appends the text of s to dst.
func (s *quotaState) append(dst []byte) []byte {
	dst = append(dst, s.kind)
	for i, n := range s.numbers[:s.count()] {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = strconv.AppendInt(dst, n, 10)
	}
	return dst
}

// textLen returns the length of the text of s.
func (s *quotaState) textLen() int {
	n := s.count() // the letter, and a space between two numbers
	for _, number := range s.numbers[:s.count()] {
		n += decimalLen(number)
	}
	return n
}

// stateRest is all of a state but the first number: how a record has it, see record.go.
type stateRest [17]byte

func (s *quotaState) rest() (rest stateRest) {
	rest[0] = s.kind
	binary.LittleEndian.PutUint64(rest[1:], uint64(s.numbers[1]))
	binary.LittleEndian.PutUint64(rest[9:], uint64(s.numbers[2]))
	return rest
}

// makeState is the opposite of rest.
func makeState(first int64, rest string) quotaState {
	b := (*stateRest)(unsafe.Pointer(unsafe.StringData(rest)))
	return quotaState{kind: b[0], numbers: [3]int64{
		first,
		int64(binary.LittleEndian.Uint64(b[1:])),
		int64(binary.LittleEndian.Uint64(b[9:])),
	}}
}
