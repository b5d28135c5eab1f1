package kv_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

var (
	refills     = []kv.Refill{kv.RefillWindow, kv.RefillSliding, kv.RefillSteady}
	refillNames = map[kv.Refill]string{kv.RefillWindow: "window", kv.RefillSliding: "sliding", kv.RefillSteady: "steady"}
)

const maxQuota = 1 << 51 // the bound of every number of a Quota

// someTime is a time in microseconds since 1970: 2026-01-01 12:00 UTC.
const someTime = int64(1_767_268_800_000_000)

// taking is a call of Take and what it is to return.
type taking struct {
	quota  kv.Quota
	old    string
	now, n int64

	next  string
	ttl   time.Duration
	usage kv.Usage
}

func take(t testing.TB, q kv.Quota, old string, now, n int64) taking {
	t.Helper()
	next, ttl, usage, err := q.Take(old, now, n)
	require.NoError(t, err, "%+v.Take(%q, %d, %d)", q, old, now, n)
	return taking{q, old, now, n, next, ttl, usage}
}

// kept is the state that an engine has after the call.
func (c taking) kept() string {
	if c.ttl == 0 && c.next != "" {
		return c.old
	}
	return c.next
}

func TestQuotaTake(t *testing.T) {
	const us = time.Microsecond
	window := kv.Quota{Refill: kv.RefillWindow, Capacity: 10, Period: 1000 * us}
	sliding := kv.Quota{Refill: kv.RefillSliding, Capacity: 10, Period: 1000 * us}
	steady := kv.Quota{Refill: kv.RefillSteady, Capacity: 10, Amount: 3, Period: 1000 * us} // one in 333 1/3 us
	ok := func(used int64, reset time.Duration) kv.Usage {
		return kv.Usage{OK: true, Used: used, ResetAfter: reset * us}
	}
	denied := func(used int64, retry, reset time.Duration) kv.Usage {
		return kv.Usage{Used: used, RetryAfter: retry * us, ResetAfter: reset * us}
	}
	for _, test := range []struct {
		name string
		taking
	}{
		{"window begins with the first use", taking{window, "", 5000, 3, "w5000 3", 1000 * us, ok(3, 1000)}},
		{"window goes on", taking{window, "w5000 3", 5400, 7, "w5000 10", 600 * us, ok(10, 600)}},
		{"window full", taking{window, "w5000 10", 5999, 1, "w5000 10", 0, denied(10, 1, 1)}},
		{"all or nothing", taking{window, "w5000 8", 5999, 3, "w5000 8", 0, denied(8, 1, 1)}},
		{"window over", taking{window, "w5000 10", 6000, 1, "w6000 1", 1000 * us, ok(1, 1000)}},
		{"window over long ago", taking{window, "w5000 10", 9e12, 1, "w9000000000000 1", 1000 * us, ok(1, 1000)}},
		{"window over, asked", taking{window, "w5000 10", 6000, 0, "", 0, ok(0, 0)}},
		{"window asked", taking{window, "w5000 10", 5500, 0, "w5000 10", 0, ok(10, 500)}},
		{"window given back", taking{window, "w5000 10", 5500, -4, "w5000 6", 500 * us, ok(6, 500)}},
		{"window given back whole", taking{window, "w5000 10", 5500, -10, "", 0, ok(0, 0)}},
		{"window given back too much", taking{window, "w5000 3", 5500, math.MinInt64, "", 0, ok(0, 0)}},
		{"window given back too late", taking{window, "w5000 3", 6000, -1, "", 0, ok(0, 0)}},
		{"nothing given back", taking{window, "", 6000, -1, "", 0, ok(0, 0)}},
		{"window, limit lowered meanwhile", taking{window, "w5000 15", 5500, 1, "w5000 15", 0, denied(15, 500, 500)}},
		{"window, clock back", taking{window, "w5000 3", 4000, 1, "w5000 4", 2000 * us, ok(4, 2000)}},
		{"window full, clock back", taking{window, "w5000 10", 4000, 1, "w5000 10", 0, denied(10, 2000, 2000)}},
		{"window, clock far back", taking{window, "w5000 3", 3999, 1, "w3999 4", 1000 * us, ok(4, 1000)}},
		{"window full, clock far back", taking{window, "w5000 10", 3999, 1, "w3999 10", 1000 * us, denied(10, 1000, 1000)}},

		{"sliding begins with the first use", taking{sliding, "", 5000, 10, "s5000 10 0", 1901 * us, ok(10, 1901)}},
		{"sliding, one is gone a period later", taking{sliding, "", 5000, 1, "s5000 1 0", 1001 * us, ok(1, 1001)}},
		{"sliding full", taking{sliding, "s5000 10 0", 5999, 1, "s5000 10 0", 0, denied(10, 2, 902)}},
		{"sliding full, all wanted", taking{sliding, "s5000 10 0", 5999, 10, "s5000 10 0", 0, denied(10, 902, 902)}},
		{"sliding, next window", taking{sliding, "s5000 10 0", 6000, 1, "s5000 10 0", 0, denied(10, 1, 901)}},
		{"sliding, a little of it", taking{sliding, "s5000 10 0", 6001, 1, "s6000 1 10", 1000 * us, ok(10, 1000)}},
		{"sliding, half of it", taking{sliding, "s5000 10 0", 6500, 5, "s6000 5 10", 1301 * us, ok(10, 1301)}},
		{"sliding, over half of it", taking{sliding, "s5000 10 0", 6500, 6, "s5000 10 0", 0, denied(5, 1, 401)}},
		{"sliding, room in this window", taking{sliding, "s6000 5 10", 6500, 3, "s6000 5 10", 0, denied(10, 201, 1301)}},
		{"sliding, room in the next", taking{sliding, "s6000 5 10", 6500, 6, "s6000 5 10", 0, denied(10, 501, 1301)}},
		{"sliding, no weight left", taking{sliding, "s5000 10 0", 6901, 1, "s6901 1 0", 1001 * us, ok(1, 1001)}},
		{"sliding, a weight left", taking{sliding, "s5000 10 0", 6900, 1, "s6000 1 10", 101 * us, ok(2, 101)}},
		{"sliding over", taking{sliding, "s5000 10 0", 7000, 10, "s7000 10 0", 1901 * us, ok(10, 1901)}},
		{"sliding, no weight left, asked", taking{sliding, "s5000 10 0", 6901, 0, "", 0, ok(0, 0)}},
		{"sliding given back", taking{sliding, "s6000 5 10", 6500, -4, "s6000 1 10", 501 * us, ok(6, 501)}},
		{"sliding given back from both", taking{sliding, "s6000 5 10", 6500, -7, "s6000 0 8", 376 * us, ok(4, 376)}},
		{"sliding given back too much", taking{sliding, "s6000 5 4", 6500, -10, "", 0, ok(0, 0)}},
		{"sliding, clock back", taking{sliding, "s6000 5 5", 5000, 1, "s6000 5 5", 0, denied(10, 1001, 2801)}},
		{"sliding, clock far back", taking{sliding, "s6000 5 5", 4999, 1, "s4999 5 5", 1801 * us, denied(10, 1, 1801)}},

		{"steady, first use", taking{steady, "", 5000, 1, "g5333 1", 334 * us, ok(1, 334)}},
		{"steady, second", taking{steady, "g5333 1", 5100, 1, "g5666 2", 567 * us, ok(2, 567)}},
		{"steady, third is whole", taking{steady, "g5666 2", 5100, 1, "g6000 0", 900 * us, ok(3, 900)}},
		{"steady, all", taking{steady, "", 5000, 10, "g8333 1", 3334 * us, ok(10, 3334)}},
		{"steady empty", taking{steady, "g8333 1", 5333, 1, "g8333 1", 0, denied(10, 1, 3001)}},
		{"steady, one is back", taking{steady, "g8333 1", 5334, 1, "g8666 2", 3333 * us, ok(10, 3333)}},
		{"steady, all wanted", taking{steady, "g8333 1", 5334, 10, "g8333 1", 0, denied(9, 3000, 3000)}},
		{"steady, full again", taking{steady, "g8333 1", 8334, 0, "", 0, ok(0, 0)}},
		{"steady, 1/3 us before full", taking{steady, "g8333 1", 8333, 0, "g8333 1", 0, ok(1, 1)}},
		{"steady given back", taking{steady, "g8333 1", 5000, -1, "g8000 0", 3000 * us, ok(9, 3000)}},
		{"steady given back too much", taking{steady, "g8333 1", 5334, -10, "", 0, ok(0, 0)}},
		{"steady, amount lowered meanwhile", taking{steady, "g5500 9", 5000, 1, "g5834 1", 835 * us, ok(3, 835)}},
		{"steady, clock back", taking{steady, "g8333 1", 1665, 1, "g8333 1", 0, denied(21, 3669, 6669)}},
		{"steady, clock far back", taking{steady, "g8333 1", 1664, 1, "g4997 1", 3334 * us, denied(10, 334, 3334)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := test.taking
			got := take(t, want.quota, want.old, want.now, want.n)
			require.Empty(t, cmp.Diff(want, got, cmp.AllowUnexported(taking{})))
		})
	}
}

func TestQuotaTakeRefuses(t *testing.T) {
	good := kv.Quota{Refill: kv.RefillSteady, Capacity: 10, Amount: 5, Period: time.Second}
	for name, spoil := range map[string]func(*kv.Quota){
		"no capacity":          func(q *kv.Quota) { q.Capacity = 0 },
		"negative capacity":    func(q *kv.Quota) { q.Capacity = -1 },
		"capacity too large":   func(q *kv.Quota) { q.Capacity, q.Amount = maxQuota+1, maxQuota },
		"no amount":            func(q *kv.Quota) { q.Amount = 0 },
		"negative amount":      func(q *kv.Quota) { q.Amount = -1 },
		"amount too large":     func(q *kv.Quota) { q.Amount = maxQuota + 1 },
		"no period":            func(q *kv.Quota) { q.Period = 0 },
		"negative period":      func(q *kv.Quota) { q.Period = -time.Second },
		"period not whole":     func(q *kv.Quota) { q.Period++ },
		"period too long":      func(q *kv.Quota) { q.Capacity, q.Amount, q.Period = 1, 10, (maxQuota+1)*time.Microsecond },
		"longest period":       func(q *kv.Quota) { q.Period = math.MaxInt64 },
		"fills too slowly":     func(q *kv.Quota) { q.Capacity, q.Amount, q.Period = maxQuota, 1, 2*time.Microsecond },
		"fills far too slowly": func(q *kv.Quota) { q.Capacity, q.Amount, q.Period = maxQuota, 1, maxQuota*time.Microsecond },
		"fills a little too slowly": func(q *kv.Quota) {
			q.Capacity, q.Amount, q.Period = maxQuota, maxQuota-1, maxQuota*time.Microsecond
		},
		"unknown refill": func(q *kv.Quota) { q.Refill = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			q := good
			spoil(&q)
			_, _, _, err := q.Take("", someTime, 1)
			require.ErrorIs(t, err, kv.ErrInvalidLimit)
		})
	}
	for _, refill := range refills {
		good.Refill = refill
		_, _, _, err := good.Take("", someTime, 11)
		require.ErrorIs(t, err, kv.ErrCost)
		next, ttl, _, err := good.Take("hello", someTime, 1)
		require.ErrorIs(t, err, kv.ErrWrongType)
		require.Empty(t, next)
		require.Zero(t, ttl)
	}
}

func TestQuotaTakeRefusesForeignStates(t *testing.T) {
	states := map[kv.Refill]string{kv.RefillWindow: "w1 2", kv.RefillSliding: "s1 2 3", kv.RefillSteady: "g1 2"}
	foreign := []string{
		"x", "w", "s", "g", "w1", "w1 ", "w 1 2", "w1  2", "w1 2 ", "w1 2 3", "w-1 2", "w1 -2", "w+1 2", "w1.0 2", "w1 2\n", "W1 2",
		"s1 2", "s1 2 3 4", "g1", "g1 2 3", "w1 2251799813685249", "w9007199254740993 1", "s1 2251799813685249 0",
		"s1 0 2251799813685249", "g1 2251799813685248", "w99999999999999999999999 1", "w18446744073709551617 1",
	}
	for refill, own := range states {
		q := kv.Quota{Refill: refill, Capacity: 10, Amount: 10, Period: time.Second}
		take(t, q, own, someTime, 1)
		for other, state := range states {
			if other != refill {
				foreign = append(foreign, state)
			}
		}
		for _, old := range foreign {
			if old == own {
				continue
			}
			_, _, _, err := q.Take(old, someTime, 1)
			require.ErrorIs(t, err, kv.ErrWrongType, "%s, state %q", refillNames[refill], old)
		}
		foreign = foreign[:len(foreign)-2]
	}
}

// upTo returns a number between 1 and most, each order of magnitude as likely as the other, and often a bound.
func upTo(r *rand.Rand, most int64) int64 {
	switch r.IntN(8) {
	case 0:
		return 1
	case 1:
		return most
	}
	n := int64(math.Exp(r.Float64() * math.Log(float64(most))))
	return min(max(n, 1), most)
}

func randomQuota(r *rand.Rand, refill kv.Refill, most int64) kv.Quota {
	for {
		q := kv.Quota{
			Refill:   refill,
			Capacity: upTo(r, most),
			Amount:   upTo(r, most),
			Period:   time.Duration(upTo(r, most)) * time.Microsecond,
		}
		if _, _, _, err := q.Take("", 0, 0); err == nil {
			return q
		}
	}
}

// reach is how long the quota takes from all taken to none, in microseconds.
func reach(q kv.Quota) int64 {
	_, _, u, _ := q.Take("", 0, q.Capacity)
	return u.ResetAfter.Microseconds()
}

// eachWalk calls f for many random walks of one quota: calls with random n at
// random times, or at the very times that the calls before named.
func eachWalk(t *testing.T, rounds int, backwards bool, f func(t *testing.T, r *rand.Rand, c taking)) {
	seed := uint64(time.Now().UnixNano())
	for _, refill := range refills {
		t.Run(refillNames[refill], func(t *testing.T) {
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, uint64(refill)))
			for range rounds {
				most := int64(maxQuota)
				if r.IntN(2) == 0 {
					most = 50 // small numbers meet more often
				}
				walk(t, r, randomQuota(r, refill, most), backwards, f)
			}
		})
	}
}

func walk(t *testing.T, r *rand.Rand, q kv.Quota, backwards bool, f func(t *testing.T, r *rand.Rand, c taking)) {
	state, now, reach := "", someTime+r.Int64N(1e6), reach(q)
	last := kv.Usage{}
	for range 20 {
		n := upTo(r, q.Capacity)
		switch r.IntN(8) {
		case 0:
			n = -n
		case 1, 2:
			n = min(max(q.Capacity-last.Used, 1), q.Capacity)
		}
		c := take(t, q, state, now, n)
		f(t, r, c)
		state, last = c.kept(), c.usage
		switch r.IntN(6) {
		case 0: // again at once
		case 1:
			now += max(last.RetryAfter.Microseconds(), 1)
		case 2:
			now += max(last.ResetAfter.Microseconds()-r.Int64N(2), 0)
		case 3:
			if backwards {
				now = max(now-upTo(r, 3*reach), 0)
			}
		default:
			now += upTo(r, reach)
		}
		now = min(now, 1<<52)
	}
}

// The same call succeeds after RetryAfter, and not 1 us before. Nor at any time
// between, and it goes on to succeed afterwards.
func TestQuotaRetryAfterIsExact(t *testing.T) {
	var denials int
	eachWalk(t, 1000, true, func(t *testing.T, r *rand.Rand, c taking) {
		if c.usage.OK {
			require.Zero(t, c.usage.RetryAfter)
			return
		}
		denials++
		retry := c.usage.RetryAfter.Microseconds()
		require.Positive(t, retry)
		require.LessOrEqual(t, c.usage.RetryAfter, c.usage.ResetAfter)
		for _, wait := range []int64{r.Int64N(retry), retry - 1, retry, retry + r.Int64N(retry)} {
			again := take(t, c.quota, c.kept(), c.now+wait, c.n)
			require.Equal(t, wait >= retry, again.usage.OK, "%+v\nafter %d us: %+v", c, wait, again)
		}
	})
	require.Greater(t, denials, 1000, "too few denials to mean anything")
}

// What is left can be taken, and no more. What is denied changes nothing.
func TestQuotaUsedIsExact(t *testing.T) {
	eachWalk(t, 1000, true, func(t *testing.T, _ *rand.Rand, c taking) {
		left := c.quota.Capacity - c.usage.Used
		if left > 0 {
			require.True(t, take(t, c.quota, c.kept(), c.now, left).usage.OK, "%+v", c)
		}
		if left >= 0 && left < c.quota.Capacity {
			require.False(t, take(t, c.quota, c.kept(), c.now, left+1).usage.OK, "%+v", c)
		}
		if c.n > 0 && !c.usage.OK {
			asked := take(t, c.quota, c.old, c.now, 0).usage
			require.Equal(t, asked.Used, c.usage.Used, "%+v", c)
			require.Equal(t, asked.ResetAfter, c.usage.ResetAfter, "%+v", c)
		}
	})
}

// After ResetAfter the quota is as if never used, and not 1 us before. That is also the deadline of
// the state: an engine may forget it then, or keep it longer.
func TestQuotaResetAfterIsExact(t *testing.T) {
	eachWalk(t, 1000, true, func(t *testing.T, _ *rand.Rand, c taking) {
		reset := c.usage.ResetAfter.Microseconds()
		if c.next != c.old && c.next != "" {
			require.Equal(t, c.usage.ResetAfter, c.ttl, "no state is without a deadline: %+v", c)
		} else {
			require.Zero(t, c.ttl)
		}
		if reset == 0 {
			require.Zero(t, c.usage.Used)
			require.Empty(t, c.next)
			return
		}
		require.Positive(t, take(t, c.quota, c.kept(), c.now+reset-1, 0).usage.Used, "%+v", c)
		for _, n := range []int64{1, c.quota.Capacity} {
			kept := take(t, c.quota, c.kept(), c.now+reset, n)
			fresh := take(t, c.quota, "", c.now+reset, n)
			kept.old = fresh.old
			if kept != fresh {
				t.Fatalf("%+v\nlater, with the state: %+v\nwithout it: %+v", c, kept, fresh)
			}
		}
	})
}

// Nobody can give back more than was taken: at the end all is back and nothing more.
func TestQuotaGivesBackNoMoreThanWasTaken(t *testing.T) {
	eachWalk(t, 1000, true, func(t *testing.T, r *rand.Rand, c taking) {
		before := c.usage.Used
		back := upTo(r, c.quota.Capacity)
		after := take(t, c.quota, c.kept(), c.now, -back)
		require.True(t, after.usage.OK)
		require.GreaterOrEqual(t, after.usage.Used, int64(0))
		require.GreaterOrEqual(t, after.usage.Used, before-back, "%+v", c)
		require.LessOrEqual(t, after.usage.Used, before, "%+v", c)
		if c.old == "" && c.n > 0 { // what was taken last is given back whole
			require.Empty(t, take(t, c.quota, c.kept(), c.now, -c.n).next, "%+v", c)
		}
	})
}

// bound is the most that may be taken in a closed interval of t microseconds. Its products must fit an int64.
func bound(q kv.Quota, t int64) int64 {
	period := q.Period.Microseconds()
	switch q.Refill {
	case kv.RefillWindow:
		return q.Capacity * (1 + (t+period-1)/period)
	case kv.RefillSliding:
		return q.Capacity + q.Capacity*t/period
	default:
		return q.Capacity + q.Amount*t/period
	}
}

// admission is n taken at a time.
type admission struct{ at, n int64 }

// requireBounded checks every interval from one admission to another.
func requireBounded(t *testing.T, q kv.Quota, all []admission) (tight bool) {
	for i := range all {
		sum := int64(0)
		for _, a := range all[i:] {
			sum += a.n
			most := bound(q, a.at-all[i].at)
			if sum > most {
				t.Fatalf("%+v: from %d to %d %d were taken, over %d: %v", q, all[i].at, a.at, sum, most, all)
			}
			tight = tight || a.at > all[i].at && sum == most
		}
	}
	return tight
}

// No schedule of calls takes more in any interval than the Refill states, and some take just that.
func TestQuotaWorstCase(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for _, refill := range refills {
		t.Run(refillNames[refill], func(t *testing.T) {
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, uint64(refill)))
			tight := 0
			for range 2000 {
				q := kv.Quota{Refill: refill, Capacity: upTo(r, 40), Amount: upTo(r, 40), Period: time.Duration(upTo(r, 60)) * time.Microsecond}
				if requireBounded(t, q, schedule(t, r, q)) {
					tight++
				}
			}
			require.Positive(t, tight, "the stated bound is never reached")
		})
	}
}

// schedule takes from q at times that try to exploit it: greedily, just before and after windows end.
func schedule(t *testing.T, r *rand.Rand, q kv.Quota) (all []admission) {
	period, reach := q.Period.Microseconds(), reach(q)
	state, now := "", someTime
	for range 60 {
		n := upTo(r, q.Capacity)
		left := q.Capacity - take(t, q, state, now, 0).usage.Used
		if r.IntN(3) > 0 && left > 0 {
			n = left
		}
		c := take(t, q, state, now, n)
		state = c.kept()
		if c.usage.OK {
			all = append(all, admission{now, n})
		}
		switch r.IntN(6) {
		case 0:
			now += c.usage.RetryAfter.Microseconds()
		case 1:
			now += max(c.usage.ResetAfter.Microseconds()-r.Int64N(2), 0)
		case 2:
			now += r.Int64N(2 * period)
		case 3:
			now += max(period-1, 1)
		case 4:
			now += r.Int64N(reach + 1)
		default:
			now++
		}
	}
	return all
}

// A bucket that is emptied whenever it can be loses nothing to rounding: after
// T it has given exactly its bound.
func TestQuotaSteadyDoesNotDrift(t *testing.T) {
	for _, q := range []kv.Quota{
		{Refill: kv.RefillSteady, Capacity: 1, Amount: 3, Period: time.Second},
		{Refill: kv.RefillSteady, Capacity: 7, Amount: 999_983, Period: 3600 * time.Second},
		{Refill: kv.RefillSteady, Capacity: 1000, Amount: 1_000_003, Period: 7919 * time.Microsecond},
	} {
		state, now, taken := "", someTime, int64(0)
		for range 5_000 {
			u := take(t, q, state, now, 0).usage
			if left := q.Capacity - u.Used; left > 0 {
				state = take(t, q, state, now, left).next
				taken += left
				require.Equal(t, bound(q, now-someTime), taken)
			}
			now += take(t, q, state, now, 1).usage.RetryAfter.Microseconds()
		}
	}
}

// A clock that is set back lets nobody take more, as long as it is set back by less than the quota
// remembers, and denies nobody for ever: at the worst for twice as long as usual.
func TestQuotaClockSetBack(t *testing.T) {
	eachWalk(t, 1000, false, func(t *testing.T, r *rand.Rand, c taking) {
		if c.usage.Used == 0 {
			return
		}
		full := c.kept()
		if left := c.quota.Capacity - c.usage.Used; left > 0 {
			full = take(t, c.quota, full, c.now, left).kept()
		}
		usual := take(t, c.quota, full, c.now, 1).usage.RetryAfter.Microseconds()

		back := upTo(r, c.now)
		early := take(t, c.quota, full, c.now-back, 1)
		require.False(t, early.usage.OK, "a clock set back by %d us gave something: %+v", back, c)
		worst := 2*reach(c.quota) + 1 // fractions of a microsecond
		require.LessOrEqual(t, early.usage.RetryAfter.Microseconds(), worst, "set back by %d us: %+v", back, c)
		asked := min(early.usage.RetryAfter.Microseconds(), r.Int64N(worst)+1) // a denied call in between puts nothing off
		again := take(t, c.quota, early.kept(), c.now-back+asked, 1)
		if !again.usage.OK {
			require.Equal(t, early.usage.RetryAfter.Microseconds()-asked, again.usage.RetryAfter.Microseconds(), "set back by %d us: %+v", back, c)
		}
		if back < usual { // and a clock that is set right again finds all as it was
			require.Equal(t, take(t, c.quota, full, c.now, 1).usage, take(t, c.quota, early.kept(), c.now, 1).usage, "%+v", c)
		}
	})
}

// The largest numbers a Quota may have overflow nothing.
func TestQuotaAtItsBounds(t *testing.T) {
	const long = maxQuota * time.Microsecond
	for _, q := range []kv.Quota{
		{Refill: kv.RefillWindow, Capacity: maxQuota, Period: long},
		{Refill: kv.RefillSliding, Capacity: maxQuota, Period: long},
		{Refill: kv.RefillSteady, Capacity: maxQuota, Amount: maxQuota, Period: long},
		{Refill: kv.RefillSteady, Capacity: maxQuota, Amount: 1, Period: time.Microsecond},
		{Refill: kv.RefillSteady, Capacity: 1, Amount: 1, Period: long},
		{Refill: kv.RefillSteady, Capacity: 1, Amount: maxQuota, Period: time.Microsecond},
	} {
		for _, now := range []int64{0, someTime, 1 << 52} {
			state := take(t, q, "", now, q.Capacity).next
			for _, at := range []int64{0, now, now + 1, now + maxQuota, now + 2*maxQuota} {
				for _, n := range []int64{math.MinInt64, -q.Capacity, -1, 0, 1, q.Capacity} {
					c := take(t, q, state, at, n)
					require.GreaterOrEqual(t, c.usage.Used, int64(0), "%+v", c)
					require.GreaterOrEqual(t, c.usage.RetryAfter, time.Duration(0), "%+v", c)
					require.GreaterOrEqual(t, c.usage.ResetAfter, time.Duration(0), "%+v", c)
					require.Equal(t, c.usage.OK, c.usage.RetryAfter == 0, "%+v", c)
				}
			}
		}
	}
}

// Who does not keep the new state, but copies it, pays for no allocation.
func TestQuotaTakeAllocatesNothing(t *testing.T) {
	for _, refill := range refills {
		q := kv.Quota{Refill: refill, Capacity: 1e6, Amount: 1e6, Period: time.Hour}
		for _, n := range []int64{1, 1e6} { // allowed, denied
			old, now, length := take(t, q, "", someTime, 1).next, someTime, 0
			require.Zero(t, testing.AllocsPerRun(100, func() {
				now++
				next, _, _, _ := q.Take(old, now, n)
				length += len(next)
			}), refillNames[refill])
			require.Positive(t, length)
		}
	}
}

func FuzzQuotaTake(f *testing.F) {
	f.Add(0, int64(10), int64(1), int64(1000), "w5000 3", int64(5400), int64(7))
	f.Add(1, int64(10), int64(1), int64(1000), "s5000 3 4", int64(5400), int64(-7))
	f.Add(2, int64(10), int64(3), int64(1000), "g8333 1", int64(5400), int64(1))
	f.Fuzz(func(t *testing.T, refill int, capacity, amount, period int64, old string, now, n int64) {
		q := kv.Quota{Refill: kv.Refill(refill), Capacity: capacity, Amount: amount, Period: time.Duration(period) * time.Microsecond}
		now &= 1<<52 - 1
		next, ttl, u, err := q.Take(old, now, n)
		if err != nil {
			require.Empty(t, next)
			require.Zero(t, u)
			return
		}
		c := taking{q, old, now, n, next, ttl, u}
		require.GreaterOrEqual(t, u.Used, int64(0), "%+v", c)
		require.Equal(t, u.OK, u.RetryAfter == 0, "%+v", c)
		require.GreaterOrEqual(t, u.RetryAfter, time.Duration(0), "%+v", c)
		require.Equal(t, ttl > 0, next != old && next != "", "%+v", c)
		if ttl > 0 { // what Take writes it can read
			take(t, q, next, now, 0)
		}
		require.Equal(t, c, takeInDoubles(c))
	})
}
