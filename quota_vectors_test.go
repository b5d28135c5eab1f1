package kv_test

import (
	"bufio"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// ---- The arithmetic of a Lua script -----------------------------------------

// takeInDoubles is Take with nothing but float64, as [kv.Quota.Take] describes it for scripts. It expects no errors.
func takeInDoubles(c taking) taking {
	d := doubles{
		capacity: float64(c.quota.Capacity), amount: float64(c.quota.Amount), period: float64(c.quota.Period / time.Microsecond),
		now: float64(c.now), n: float64(max(c.n, -c.quota.Capacity)), old: c.old,
	}
	var numbers []float64
	if c.old != "" {
		for _, field := range strings.Fields(c.old[1:]) {
			number, _ := strconv.ParseFloat(field, 64)
			numbers = append(numbers, number)
		}
	}
	switch c.quota.Refill {
	case kv.RefillWindow:
		d.window(numbers)
	case kv.RefillSliding:
		d.sliding(numbers)
	default:
		d.steady(numbers)
	}
	switch { // the last paragraph of the description
	case d.reset == 0:
		c.next, c.ttl = "", 0
	case (d.denied || d.n == 0) && !d.moved:
		c.next, c.ttl = c.old, 0
	default:
		c.next, c.ttl = d.next, time.Duration(d.reset)*time.Microsecond
	}
	c.usage = kv.Usage{
		OK: !d.denied, Used: int64(d.used),
		RetryAfter: time.Duration(d.retry) * time.Microsecond, ResetAfter: time.Duration(d.reset) * time.Microsecond,
	}
	return c
}

type doubles struct {
	capacity, amount, period, now, n float64
	old, next                        string
	denied, moved                    bool
	used, retry, reset               float64
}

func (d *doubles) window(state []float64) {
	start, used := d.now, 0.0
	if state != nil && d.now-state[0] < d.period {
		start, used = state[0], state[1]
	}
	if start-d.now > d.period {
		start, d.moved = d.now, true
	}
	if d.n > 0 && used+d.n > d.capacity {
		d.denied, d.retry = true, start-d.now+d.period
	} else {
		used = max(used+d.n, 0)
	}
	if used > 0 {
		d.reset = start - d.now + d.period
	}
	d.used, d.next = used, fmt.Sprintf("w%.0f %.0f", start, used)
}

func (d *doubles) sliding(state []float64) {
	start, used, before, p := d.now, 0.0, 0.0, d.period
	if state != nil && d.now-state[0] < 2*p {
		start, used, before = state[0], state[1], state[2]
	}
	if d.now-start >= p {
		start, used, before = start+p, 0, used
	}
	if start-d.now > p {
		start, d.moved = d.now, true
	}
	count := func() float64 {
		q, _ := mulDivInDoubles(before, p-max(d.now-start, 0), p)
		return used + q
	}
	overlap := func(x, taken float64) float64 {
		q, r := mulDivInDoubles(x+1, p, taken)
		if r == 0 {
			q--
		}
		return q
	}
	if count() == 0 {
		start, before = d.now, 0
	}
	if d.n > 0 && count()+d.n > d.capacity {
		d.denied = true
		if room := d.capacity - d.n - used; room >= 0 {
			d.retry = start - d.now + p - overlap(room, before)
		} else {
			d.retry = start - d.now + 2*p - overlap(d.capacity-d.n, used)
		}
	} else if used += d.n; used < 0 {
		used, before = 0, max(before+used, 0)
	}
	if used > 0 {
		d.reset = start - d.now + 2*p - overlap(0, used)
	} else if before > 0 {
		d.reset = max(start-d.now+p-overlap(0, before), 0)
	}
	d.used, d.next = count(), fmt.Sprintf("s%.0f %.0f %.0f", start, used, before)
}

func (d *doubles) steady(state []float64) {
	ahead, part := 0.0, 0.0
	if state != nil {
		if ahead, part = state[0]-d.now, state[1]; part >= d.amount {
			ahead, part = ahead+1, 0
		}
		if ahead < 0 {
			ahead, part = 0, 0
		}
	}
	ceil := func(us, part float64) float64 {
		if part > 0 {
			us++
		}
		return us
	}
	carry := func(us, part float64) (float64, float64) {
		switch {
		case part >= d.amount:
			return us + 1, part - d.amount
		case part < 0:
			return us - 1, part + d.amount
		}
		return us, part
	}
	full, fullPart := mulDivInDoubles(d.capacity, d.period, d.amount)
	if ahead > 2*ceil(full, fullPart) {
		ahead, part, d.moved = full, fullPart, true
	}
	cost, costPart := mulDivInDoubles(math.Abs(d.n), d.period, d.amount)
	if d.n < 0 {
		if ahead, part = carry(ahead-cost, part-costPart); ahead < 0 {
			ahead, part = 0, 0
		}
	} else {
		after, afterPart := carry(ahead+cost, part+costPart)
		if wait := ceil(carry(after-full, afterPart-fullPart)); d.n > 0 && wait > 0 {
			d.denied, d.retry = true, wait
		} else {
			ahead, part = after, afterPart
		}
	}
	q, r := mulDivInDoubles(ahead, d.amount, d.period)
	rest := math.Mod(r+part, d.period)
	d.used = q + (r+part-rest)/d.period
	if rest > 0 {
		d.used++
	}
	d.reset = ceil(ahead, part)
	d.next = fmt.Sprintf("g%.0f %.0f", d.now+ahead, part)
}

// mulDivInDoubles is muldiv of the description.
func mulDivInDoubles(a, b, m float64) (quotient, remainder float64) {
	base := 2.0
	for 2*(2*base)*m <= 1<<53 {
		base *= 2
	}
	whole := math.Mod(b, m)
	times := (b - whole) / m
	b = whole
	var digits []float64
	for rest := a; rest > 0; {
		digit := math.Mod(rest, base)
		digits = append(digits, digit)
		rest = (rest - digit) / base
	}
	for i := len(digits) - 1; i >= 0; i-- {
		r := remainder*base + digits[i]*b
		remainder = math.Mod(r, m)
		quotient = quotient*base + (r-remainder)/m
	}
	return quotient + a*times, remainder
}

// A script that follows the description gets the same states and answers, to the last digit.
func TestQuotaInDoubles(t *testing.T) {
	eachWalk(t, 500, true, func(t *testing.T, _ *rand.Rand, c taking) {
		if same := takeInDoubles(c); same != c {
			t.Fatal(cmp.Diff(c, same, cmp.AllowUnexported(taking{})))
		}
	})
}

// ---- Vectors ------------------------------------------------------------------

var writeVectors = flag.Bool("quota.vectors", false, "write testdata/quota_vectors.txt anew")

const (
	vectorsFile   = "testdata/quota_vectors.txt"
	vectorsHeader = `# Vectors for engines that compute Quota.Take themselves. One call a line, fields
# between tabs; times in microseconds. Written by: go test -run TestQuotaVectors -quota.vectors .
#
# kind	capacity	amount	period	old	now	n	->	next	ttl	ok	used	retry after	reset after
`
)

func (c taking) String() string {
	letters := map[kv.Refill]string{kv.RefillWindow: "w", kv.RefillSliding: "s", kv.RefillSteady: "g"}
	ok := 0
	if c.usage.OK {
		ok = 1
	}
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%s\t%d\t%d\t->\t%s\t%d\t%d\t%d\t%d\t%d", letters[c.quota.Refill],
		c.quota.Capacity, c.quota.Amount, c.quota.Period.Microseconds(), c.old, c.now, max(c.n, -c.quota.Capacity),
		c.next, c.ttl.Microseconds(), ok, c.usage.Used, c.usage.RetryAfter.Microseconds(), c.usage.ResetAfter.Microseconds())
}

// The vectors are what Take says, now and after every change: states that are
// stored outlive a release, and engines that compute them elsewhere must agree.
func TestQuotaVectors(t *testing.T) {
	if *writeVectors {
		require.NoError(t, os.WriteFile(vectorsFile, []byte(vectorsHeader+randomVectors(t)), 0o644))
	}
	file, err := os.Open(vectorsFile)
	require.NoError(t, err)
	defer file.Close()
	count := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		c := parseVector(t, line)
		require.Equal(t, line, take(t, c.quota, c.old, c.now, c.n).String())
		require.Equal(t, line, takeInDoubles(c).String())
		count++
	}
	require.Equal(t, 600, count)
}

// parseVector reads the call of a line, not what it is to return.
func parseVector(t *testing.T, line string) (c taking) {
	fields := strings.Split(line, "\t")
	require.Len(t, fields, 14, line)
	number := func(i int) int64 {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		require.NoError(t, err, line)
		return n
	}
	refill := kv.Refill(strings.Index("wsg", fields[0]))
	c.quota = kv.Quota{Refill: refill, Capacity: number(1), Amount: number(2), Period: time.Duration(number(3)) * time.Microsecond}
	c.old, c.now, c.n = fields[4], number(5), number(6)
	return c
}

func randomVectors(t *testing.T) string {
	var b strings.Builder
	for _, refill := range refills {
		r := rand.New(rand.NewPCG(1, uint64(refill)))
		for i := range 10 { // walks of 20 calls
			most := []int64{12, 5000, 1e9, maxQuota, 30}[i%5]
			walk(t, r, randomQuota(r, refill, most), true, func(_ *testing.T, _ *rand.Rand, c taking) {
				fmt.Fprintln(&b, c)
			})
		}
	}
	return b.String()
}
