package kvtest

import (
	"math"
	"strconv"
	"time"

	"github.com/kvrecipes/kv"
)

var counterCases = []testCase{
	{
		name:     "Incr",
		contract: "Incr starts from 0.",
		run: func(e *env) {
			for _, step := range []struct{ delta, want int64 }{
				{5, 5}, {-7, -2}, {0, -2}, {2, 0}, {1 << 53, 1 << 53}, {1, 1<<53 + 1}, {-1 << 54, 1 - 1<<53},
			} {
				got, err := e.store.Incr(e.ctx, "counter", step.delta, kv.NoExpiry)
				e.NoError(err)
				e.Equalf(step.want, got, "after %+d", step.delta)
				e.value("counter", strconv.FormatInt(step.want, 10))
			}
			got, err := e.store.Incr(e.ctx, "zero", 0, kv.NoExpiry)
			e.NoError(err)
			e.Zero(got)
			e.value("zero", "0")
		},
	},
	{
		name:     "Incr/what is an int64",
		contract: "A value that is not a base-10 int64 as Go prints it: ErrNotInteger; value and deadline stay as they were.",
		run: func(e *env) {
			for _, value := range []string{
				"1.5", " 1", "1 ", "01", "+1", "9223372036854775808", "-9223372036854775809", "", "-", "-0", "00", "-01",
				"0x1", "1e3", "1_000", "x", "1x", "\x001", "1\x00", "1\n", "NaN", "Inf", "18446744073709551616", "\u0661", "\uff11",
			} {
				e.set("key", value, time.Hour)
				e.keeps("key", func() {
					_, err := e.store.Incr(e.ctx, "key", 1, 2*time.Hour)
					e.ErrorIsf(err, kv.ErrNotInteger, "Incr on %q", value)
				})
				e.value("key", value)
			}
		},
	},
	{
		name:     "Incr/int64 edges",
		contract: "past int64: ErrOverflow; value and deadline stay as they were.",
		run: func(e *env) {
			const lowest, highest = math.MinInt64, math.MaxInt64
			for _, c := range []struct{ value, delta, want int64 }{
				{highest - 1, 1, highest}, {lowest + 1, -1, lowest}, {highest, lowest, -1}, {lowest, highest, -1},
				{-1, lowest + 1, lowest}, {0, lowest, lowest}, {0, highest, highest}, {highest, 0, highest}, {lowest, 0, lowest},
			} {
				e.set("key", strconv.FormatInt(c.value, 10), kv.NoExpiry)
				got, err := e.store.Incr(e.ctx, "key", c.delta, kv.NoExpiry)
				e.NoErrorf(err, "%d%+d", c.value, c.delta)
				e.Equal(c.want, got)
				e.value("key", strconv.FormatInt(c.want, 10))
			}
			for _, c := range []struct{ value, delta int64 }{
				{highest, 1}, {lowest, -1}, {highest, highest}, {lowest, lowest}, {-1, lowest}, {1, highest}, {-2, lowest},
			} {
				value := strconv.FormatInt(c.value, 10)
				e.set("key", value, time.Hour)
				e.keeps("key", func() {
					_, err := e.store.Incr(e.ctx, "key", c.delta, 2*time.Hour)
					e.ErrorIsf(err, kv.ErrOverflow, "%d%+d", c.value, c.delta)
				})
				e.value("key", value)
			}
			e.absent("missing")
		},
	},
	{
		name:     "Incr/ttl",
		contract: "ttl applies only when this call creates the key, in the same atomic step, so no counter is ever left without its deadline.",
		run: func(e *env) {
			incr := func(key string, ttl time.Duration) func() {
				return func() {
					_, err := e.store.Incr(e.ctx, key, 1, ttl)
					e.NoError(err)
				}
			}
			e.gives("counter", time.Hour, incr("counter", time.Hour))
			e.keeps("counter", incr("counter", 2*time.Hour))
			e.keeps("counter", incr("counter", kv.NoExpiry))
			e.keeps("counter", incr("counter", kv.KeepTTL))
			incr("forever", kv.NoExpiry)()
			incr("forever", time.Hour)()
			e.persists("forever")
			incr("kept", kv.KeepTTL)()
			e.persists("kept")
			e.value("counter", "4")
		},
	},
	{
		name:     "Incr/new window",
		contract: "ttl applies only when this call creates the key: no read, condition or write ever treats a key as live at or after its deadline.",
		run: func(e *env) {
			e.set("counter", "41", e.unit())
			e.wait(e.unit() + e.slack())
			e.gives("counter", time.Hour, func() {
				n, err := e.store.Incr(e.ctx, "counter", 1, time.Hour)
				e.NoError(err)
				e.EqualValues(1, n)
			})
		},
	},
}
