package kvtest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

// limits are limits of 10 with each algorithm.
func limits(window time.Duration) []kv.Limit {
	return []kv.Limit{
		{Requests: 10, Window: window},
		{Requests: 10, Window: window, Algorithm: kv.SlidingWindow},
		{Requests: 10, Window: window, Algorithm: kv.TokenBucket},
	}
}

func (e *env) limiter(s *kv.Store, l kv.Limit) *kv.RateLimiter {
	r, err := kv.NewRateLimiter(s, l, nil)
	e.NoError(err)
	return r
}

func (e *env) allow(r *kv.RateLimiter, key string, n int64) kv.RateLimitResult {
	result, err := r.AllowN(e.ctx, key, n)
	e.NoError(err)
	return result
}

var rateLimitCases = []testCase{
	{
		name:     "RateLimiter",
		contract: "Count: admitted and still counted; Limit: the capacity. A denied call consumes nothing. Peek writes nothing, Refund never exceeds the limit.",
		run: func(e *env) {
			for _, l := range limits(time.Hour) {
				r, key := e.limiter(e.store, l), l.Algorithm.String()
				for i := range int64(8) {
					result := e.allow(r, key, 1)
					e.True(result.Allowed, key)
					e.Equal([]int64{i + 1, 10, 9 - i}, []int64{result.Count, result.Limit, result.Remaining}, key)
					e.Zero(result.RetryAfter, key)
					e.Positive(result.ResetAfter, key)
				}
				denied := e.allow(r, key, 3)
				e.False(denied.Allowed, key)
				e.Positive(denied.RetryAfter, key)
				peek, err := r.Peek(e.ctx, key)
				e.NoError(err)
				e.True(peek.Allowed, key)
				e.True(e.allow(r, key, 2).Allowed, key)
				e.NoError(r.Refund(e.ctx, key, 4))
				e.True(e.allow(r, key, 4).Allowed, key)
				e.False(e.allow(r, key, 1).Allowed, key)
				e.NoError(r.Refund(e.ctx, key, 1000))
				e.True(e.allow(r, key, 10).Allowed, key)
				e.False(e.allow(r, key, 1).Allowed, key)
				e.NoError(r.Reset(e.ctx, key))
				e.True(e.allow(r, key, 10).Allowed, key)
			}
			peek, err := e.limiter(e.store, limits(time.Hour)[0]).Peek(e.ctx, "never used")
			e.NoError(err)
			e.True(peek.Allowed)
			n, err := e.store.Count(e.ctx, "")
			e.NoError(err)
			e.Equal(3, n)
		},
	},
	{
		name:     "RateLimiter/concurrent",
		contract: "Several goroutines on one key never admit more than the limit.",
		run: func(e *env) {
			peer := e.peer()
			for _, l := range limits(1000 * time.Hour) {
				r, other := e.limiter(e.store, l), e.limiter(peer, l)
				var admitted atomic.Int64
				e.parallel(16, func(g int) error {
					for i := range 25 {
						limiter := r
						if (g+i)%2 == 0 {
							limiter = other
						}
						result, err := limiter.Allow(e.ctx, l.Algorithm.String())
						if err != nil {
							return err
						}
						if result.Allowed {
							admitted.Add(1)
						}
					}
					return nil
				})
				e.EqualValues(10, admitted.Load(), l.Algorithm)
			}
		},
	},
	{
		name:     "RateLimiter/RetryAfter",
		contract: "RetryAfter: when denied: the exact wait (1 us) after which the same call would be allowed; else 0.",
		run: func(e *env) {
			for _, l := range limits(4 * e.unit()) {
				r, key := e.limiter(e.store, l), l.Algorithm.String()
				e.allow(r, key, 10)
				for _, n := range []int64{1, 3, 10} {
					e.retryAfter(r, key, n)
				}
			}
		},
	},
	{
		name:     "RateLimiter/cost",
		contract: "n < 1 or over the capacity: ErrCost. NewRateLimiter: ErrInvalidLimit.",
		run: func(e *env) {
			for _, l := range limits(time.Hour) {
				r := e.limiter(e.store, l)
				for _, n := range []int64{0, -1, 11, 1 << 60} {
					_, err := r.AllowN(e.ctx, "key", n)
					e.ErrorIsf(err, kv.ErrCost, "a cost of %d", n)
				}
				e.ErrorIs(r.Refund(e.ctx, "key", 0), kv.ErrCost)
			}
			for _, l := range []kv.Limit{{}, {Requests: 1}, {Window: time.Hour}, {Requests: -1, Window: time.Hour}, {Requests: 1, Window: -1}, {Requests: 1, Window: 1, Algorithm: 99}} {
				_, err := kv.NewRateLimiter(e.store, l, nil)
				e.ErrorIsf(err, kv.ErrInvalidLimit, "%+v", l)
			}
		},
	},
	{
		name:     "RateLimiter/abandoned keys",
		contract: "No counter is ever without a deadline, so an abandoned key leaves no memory. ResetAfter: until the key is as if never used.",
		run: func(e *env) {
			longest := time.Duration(0)
			for _, l := range limits(2 * e.unit()) {
				r := e.limiter(e.store, l)
				longest = max(longest, e.allow(r, l.Algorithm.String(), 5).ResetAfter)
			}
			e.LessOrEqual(longest, 4*e.unit())
			e.wait(longest + e.slack() + 2*time.Millisecond)
			e.Empty(e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "RateLimiter/Wait",
		contract: "Wait: at once context.DeadlineExceeded when ctx's deadline comes first.",
		run: func(e *env) {
			r := e.limiter(e.store, kv.Limit{Requests: 1, Window: e.unit()})
			e.NoError(r.Wait(e.ctx, "key"))
			begin := e.now()
			e.within("waiting for the next window", func() error { return r.Wait(e.ctx, "key") })
			e.GreaterOrEqual(e.now().Sub(begin), e.unit()/2)
			slow := e.limiter(e.store, kv.Limit{Requests: 1, Window: 24 * time.Hour})
			e.NoError(slow.Wait(e.ctx, "slow"))
			ctx, cancel := context.WithTimeout(e.ctx, 12*time.Hour)
			defer cancel()
			begin = e.now()
			e.ErrorIs(slow.Wait(ctx, "slow"), context.DeadlineExceeded)
			e.Less(e.now().Sub(begin), time.Hour)
		},
	},
}

// retryAfter checks that a call that is denied is allowed after RetryAfter, and not before.
func (e *env) retryAfter(r *kv.RateLimiter, key string, n int64) {
	what := fmt.Sprintf("%d of a %s", n, key)
	denied := e.allow(r, key, n)
	for denied.Allowed { // until nothing is left; some may come back meanwhile where time is real
		denied = e.allow(r, key, n)
	}
	e.Positivef(denied.RetryAfter, "%s", what)
	if e.h.Virtual {
		e.wait(denied.RetryAfter - time.Microsecond)
		e.Falsef(e.allow(r, key, n).Allowed, "%s, 1 us before RetryAfter", what)
		e.wait(time.Microsecond)
	} else {
		e.wait(denied.RetryAfter + e.slack())
	}
	e.Truef(e.allow(r, key, n).Allowed, "%s, after RetryAfter", what)
}
