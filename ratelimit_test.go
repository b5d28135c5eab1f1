package kv_test

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

var limitAlgorithms = []kv.Algorithm{kv.FixedWindow, kv.SlidingWindow, kv.TokenBucket}

func newLimiter(t testing.TB, s *kv.Store, limit kv.Limit) *kv.RateLimiter {
	t.Helper()
	limiter, err := kv.NewRateLimiter(s, limit, nil)
	require.NoError(t, err)
	return limiter
}

// forEachAlgorithm runs f on virtual time, once for each algorithm, with a store of its own.
func forEachAlgorithm(t *testing.T, f func(t *testing.T, s *kv.Store, algorithm kv.Algorithm)) {
	for _, algorithm := range limitAlgorithms {
		t.Run(algorithm.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := kv.New(nil)
				defer s.Close()
				f(t, s, algorithm)
			})
		})
	}
}

func allow(t testing.TB, limiter *kv.RateLimiter, key string) kv.RateLimitResult {
	t.Helper()
	result, err := limiter.Allow(context.Background(), key)
	require.NoError(t, err)
	return result
}

func allowN(t testing.TB, limiter *kv.RateLimiter, key string, n int64) kv.RateLimitResult {
	t.Helper()
	result, err := limiter.AllowN(context.Background(), key, n)
	require.NoError(t, err)
	return result
}

func peek(t testing.TB, limiter *kv.RateLimiter, key string) kv.RateLimitResult {
	t.Helper()
	result, err := limiter.Peek(context.Background(), key)
	require.NoError(t, err)
	return result
}

func TestNewRateLimiterRefuses(t *testing.T) {
	const most = 1 << 51
	s := kv.New(nil)
	defer s.Close()
	for name, limit := range map[string]kv.Limit{
		"the zero Limit":              {},
		"no requests":                 {Window: time.Second},
		"negative requests":           {Requests: -1, Window: time.Second},
		"no window":                   {Requests: 1},
		"negative window":             {Requests: 1, Window: -time.Second},
		"too many requests":           {Requests: most + 1, Window: time.Second},
		"most requests":               {Requests: math.MaxInt64, Window: time.Second},
		"too long a window":           {Requests: 1, Window: most*time.Microsecond + 1},
		"longest window":              {Requests: 1, Window: math.MaxInt64},
		"negative burst":              {Requests: 1, Window: time.Second, Algorithm: kv.TokenBucket, Burst: -1},
		"too large a burst":           {Requests: 1000, Window: time.Microsecond, Algorithm: kv.TokenBucket, Burst: most + 1},
		"fills too slowly":            {Requests: 1, Window: time.Second, Algorithm: kv.TokenBucket, Burst: most/1_000_000 + 1},
		"burst of a fixed window":     {Requests: 10, Window: time.Second, Algorithm: kv.FixedWindow, Burst: 20},
		"burst of a sliding window":   {Requests: 10, Window: time.Second, Algorithm: kv.SlidingWindow, Burst: 20},
		"unknown algorithm":           {Requests: 1, Window: time.Second, Algorithm: 3},
		"another unknown algorithm":   {Requests: 1, Window: time.Second, Algorithm: -1},
		"nothing right":               {Requests: math.MinInt64, Window: math.MinInt64, Algorithm: math.MinInt, Burst: math.MinInt64},
		"burst, but neither requests": {Burst: 10, Window: time.Second, Algorithm: kv.TokenBucket},
	} {
		t.Run(name, func(t *testing.T) {
			limiter, err := kv.NewRateLimiter(s, limit, nil)
			require.ErrorIs(t, err, kv.ErrInvalidLimit)
			require.Nil(t, limiter)
			var e *kv.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "newratelimiter", e.Op)
		})
	}
}

func TestNewRateLimiterTakesTheBounds(t *testing.T) {
	const most = 1 << 51
	s := kv.New(nil)
	defer s.Close()
	for _, algorithm := range limitAlgorithms {
		for _, limit := range []kv.Limit{
			{Requests: 1, Window: 1}, {Requests: most, Window: 1}, {Requests: 1, Window: most * time.Microsecond},
			{Requests: most, Window: most * time.Microsecond, Burst: most},
		} {
			limit.Algorithm = algorithm
			limiter := newLimiter(t, s, limit)
			result := allowN(t, limiter, algorithm.String(), limit.Requests)
			require.True(t, result.Allowed)
			require.Equal(t, limit.Requests, result.Limit)
			require.NoError(t, limiter.Reset(context.Background(), algorithm.String()))
		}
	}
}

// A window of a third of a second is no error, and never shorter than asked for.
func TestRateLimiterRoundsItsWindowUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		result := allow(t, newLimiter(t, s, kv.Limit{Requests: 1, Window: time.Second / 3}), "a")
		require.Equal(t, 333_334*time.Microsecond, result.ResetAfter)
		result = allow(t, newLimiter(t, s, kv.Limit{Requests: 1, Window: 1}), "b")
		require.Equal(t, time.Microsecond, result.ResetAfter)
	})
}

func TestRateLimiterFixedWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		limiter := newLimiter(t, s, kv.Limit{Requests: 2, Window: time.Minute})

		time.Sleep(17 * time.Second) // the window begins with the first use, not on the minute
		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 1, Limit: 2, Remaining: 1, ResetAfter: time.Minute}, allow(t, limiter, "ada"))
		time.Sleep(20 * time.Second)
		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 2, Limit: 2, ResetAfter: 40 * time.Second}, allow(t, limiter, "ada"))
		require.Equal(t, kv.RateLimitResult{Count: 2, Limit: 2, RetryAfter: 40 * time.Second, ResetAfter: 40 * time.Second}, allow(t, limiter, "ada"))
		require.True(t, allow(t, limiter, "bob").Allowed, "another key")
		time.Sleep(40 * time.Second)
		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 1, Limit: 2, Remaining: 1, ResetAfter: time.Minute}, allow(t, limiter, "ada"))
	})
}

func TestRateLimiterSlidingWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		limiter := newLimiter(t, s, kv.Limit{Requests: 4, Window: time.Minute, Algorithm: kv.SlidingWindow})

		require.Equal(t, int64(0), allowN(t, limiter, "ada", 4).Remaining)
		// The first of the four is gone when less than all of the window overlaps the last minute.
		require.Equal(t, time.Minute+time.Microsecond, allow(t, limiter, "ada").RetryAfter)
		time.Sleep(90 * time.Second) // half of it overlaps
		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 3, Limit: 4, Remaining: 1, ResetAfter: 30*time.Second + time.Minute + time.Microsecond - 60*time.Second}, peekAfterAllow(t, limiter, "ada"))
	})
}

// peekAfterAllow allows one and returns what it said.
func peekAfterAllow(t *testing.T, limiter *kv.RateLimiter, key string) kv.RateLimitResult {
	before := peek(t, limiter, key)
	require.Equal(t, before, allow(t, limiter, key), "Peek says what Allow would say")
	return before
}

func TestRateLimiterTokenBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		limiter := newLimiter(t, s, kv.Limit{Requests: 60, Window: time.Minute, Algorithm: kv.TokenBucket, Burst: 3})

		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 1, Limit: 3, Remaining: 2, ResetAfter: time.Second}, allow(t, limiter, "ada"))
		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 3, Limit: 3, ResetAfter: 3 * time.Second}, allowN(t, limiter, "ada", 2))
		time.Sleep(250 * time.Millisecond)
		require.Equal(t, kv.RateLimitResult{Count: 3, Limit: 3, RetryAfter: 750 * time.Millisecond, ResetAfter: 2750 * time.Millisecond}, allow(t, limiter, "ada"))
		time.Sleep(750 * time.Millisecond)
		require.True(t, allow(t, limiter, "ada").Allowed)
		require.False(t, allow(t, limiter, "ada").Allowed)
		time.Sleep(time.Hour) // never more than the burst
		require.True(t, allowN(t, limiter, "ada", 3).Allowed)
		require.False(t, allow(t, limiter, "ada").Allowed)
	})
}

// randomLimit returns a limit with small numbers, so that a few calls meet its edges.
func randomLimit(r *rand.Rand, algorithm kv.Algorithm) kv.Limit {
	limit := kv.Limit{Requests: 1 + r.Int64N(20), Window: time.Duration(1 + r.Int64N(1e9)), Algorithm: algorithm}
	if algorithm == kv.TokenBucket {
		limit.Burst = r.Int64N(20)
	}
	return limit
}

// The same call succeeds after RetryAfter and fails 1 us before, by the store's own clock.
func TestRateLimiterRetryAfterIsExact(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		r := rand.New(rand.NewPCG(seed, uint64(algorithm)))
		denied := 0
		for range 300 {
			limit := randomLimit(r, algorithm)
			limiter := newLimiter(t, s, limit)
			for range 20 {
				n := 1 + r.Int64N(peek(t, limiter, "key").Limit)
				if result := allowN(t, limiter, "key", n); !result.Allowed {
					denied++
					time.Sleep(result.RetryAfter - time.Microsecond)
					require.False(t, allowN(t, limiter, "key", n).Allowed, "%+v, %d", limit, n)
					time.Sleep(time.Microsecond)
					require.True(t, allowN(t, limiter, "key", n).Allowed, "%+v, %d", limit, n)
				}
				time.Sleep(time.Duration(r.Int64N(int64(limit.Window))))
			}
			require.NoError(t, limiter.Reset(t.Context(), "key"))
		}
		require.Greater(t, denied, 100)
	})
}

// No schedule admits more in any interval than the algorithm's documentation says. That the bounds are
// reached, too, is in TestQuotaWorstCase.
func TestRateLimiterWorstCase(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		r := rand.New(rand.NewPCG(seed, uint64(algorithm)))
		for range 200 {
			limit := randomLimit(r, algorithm)
			limit.Window = limit.Window.Truncate(time.Microsecond) + time.Microsecond
			limiter := newLimiter(t, s, limit)
			var all []admission
			for range 60 {
				now := time.Now().UnixMicro()
				result := peek(t, limiter, "key")
				if n := result.Remaining + 1; result.Allowed { // Remaining is what Allow would leave
					require.True(t, allowN(t, limiter, "key", n).Allowed)
					all = append(all, admission{now, n})
				}
				switch r.IntN(4) {
				case 0:
					time.Sleep(result.RetryAfter)
				case 1:
					time.Sleep(time.Duration(r.Int64N(int64(2 * limit.Window))).Truncate(time.Microsecond))
				case 2:
					time.Sleep(limit.Window - time.Microsecond)
				default:
					time.Sleep(time.Microsecond)
				}
			}
			burst := limit.Burst
			if burst == 0 {
				burst = limit.Requests
			}
			q := kv.Quota{Refill: refills[algorithm], Capacity: burst, Amount: limit.Requests, Period: limit.Window}
			requireBounded(t, q, all)
			require.NoError(t, limiter.Reset(t.Context(), "key"))
		}
	})
}

// Thousands of calls at once admit the limit, not one more and not one less.
func TestRateLimiterConcurrently(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		const requests, callers, calls = 777, 40, 200
		limiters := []*kv.RateLimiter{ // as in two processes
			newLimiter(t, s, kv.Limit{Requests: requests, Window: time.Hour, Algorithm: algorithm}),
			newLimiter(t, s, kv.Limit{Requests: requests, Window: time.Hour, Algorithm: algorithm}),
		}
		var admitted, refunded atomic.Int64
		var group sync.WaitGroup
		for i := range callers {
			group.Go(func() {
				for j := range calls {
					n := int64(1 + j%3)
					result, err := limiters[i%2].AllowN(t.Context(), "key", n)
					if err != nil {
						t.Error(err)
					}
					if result.Allowed {
						admitted.Add(n)
					}
					if result.Allowed && j%10 == 0 {
						if err := limiters[i%2].Refund(t.Context(), "key", n); err != nil {
							t.Error(err)
						}
						refunded.Add(n)
					}
				}
			})
		}
		group.Wait()
		require.Equal(t, int64(requests), admitted.Load()-refunded.Load())
		require.Equal(t, int64(requests), allow(t, limiters[0], "key").Count)
	})
}

func TestRateLimiterAllowNIsAllOrNothing(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 10, Window: time.Minute, Algorithm: algorithm})
		require.Equal(t, int64(7), allowN(t, limiter, "key", 7).Count)
		for range 3 {
			result := allowN(t, limiter, "key", 4)
			require.False(t, result.Allowed)
			require.Equal(t, int64(7), result.Count)
			require.Equal(t, int64(3), result.Remaining)
		}
		require.True(t, allowN(t, limiter, "key", 3).Allowed)
	})
}

func TestRateLimiterRefusesCosts(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 10, Window: time.Minute, Algorithm: algorithm})
		for _, n := range []int64{math.MinInt64, -1, 0, 11, math.MaxInt64} {
			result, err := limiter.AllowN(t.Context(), "key", n)
			require.ErrorIs(t, err, kv.ErrCost)
			require.Zero(t, result)
			require.EqualError(t, err, `kv: allown "key": cost is below 1 or over the limit's capacity`)
		}
		for _, n := range []int64{math.MinInt64, -1, 0} {
			require.ErrorIs(t, limiter.Refund(t.Context(), "key", n), kv.ErrCost)
		}
		require.Equal(t, int64(1), allow(t, limiter, "key").Count)
	})
}

// Peek says what Allow would say, and writes nothing: neither a new key nor a change of one.
func TestRateLimiterPeekWritesNothing(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 2, Window: time.Minute, Algorithm: algorithm})
		for i := range 6 {
			before := entries(t, s)
			said := peek(t, limiter, "key")
			require.Equal(t, said, peek(t, limiter, "key"))
			require.Equal(t, before, entries(t, s))
			require.Equal(t, said, allow(t, limiter, "key"))
			time.Sleep(time.Duration(i) * 10 * time.Second)
		}
		require.Equal(t, kv.RateLimitResult{Allowed: true, Count: 1, Limit: 2, Remaining: 1, ResetAfter: peek(t, limiter, "new").ResetAfter}, peek(t, limiter, "new"))
		_, err := s.Get(t.Context(), "ratelimit:new")
		require.ErrorIs(t, err, kv.ErrNotFound)
	})
}

// entries returns all of s.
func entries(t *testing.T, s *kv.Store) (all []kv.Entry) {
	for e, err := range s.Scan(context.Background(), kv.Range{}) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

// A denied call consumes nothing: it does not even write.
func TestRateLimiterDeniedWritesNothing(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 2, Window: time.Minute, Algorithm: algorithm})
		require.True(t, allowN(t, limiter, "key", 2).Allowed)
		before := entries(t, s)
		first := allow(t, limiter, "key")
		for range 10 {
			require.False(t, allow(t, limiter, "key").Allowed)
			time.Sleep(time.Second)
		}
		require.Equal(t, before, entries(t, s))
		require.Equal(t, first.RetryAfter-10*time.Second, allow(t, limiter, "key").RetryAfter, "knocking puts nothing off")
	})
}

// Refund gives back what was admitted and no more, and makes no key.
func TestRateLimiterRefund(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 5, Window: time.Minute, Algorithm: algorithm})
		require.NoError(t, limiter.Refund(t.Context(), "key", 3))
		require.Empty(t, entries(t, s))

		require.True(t, allowN(t, limiter, "key", 5).Allowed)
		require.NoError(t, limiter.Refund(t.Context(), "key", 2))
		require.True(t, allowN(t, limiter, "key", 2).Allowed)
		require.False(t, allow(t, limiter, "key").Allowed)

		for _, n := range []int64{5, 6, 1000, math.MaxInt64} {
			require.NoError(t, limiter.Refund(t.Context(), "key", n))
			require.Empty(t, entries(t, s), "all is given back")
			require.True(t, allowN(t, limiter, "key", 5).Allowed)
			require.False(t, allow(t, limiter, "key").Allowed, "and not more")
		}
	})
}

func TestRateLimiterReset(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		limiter := newLimiter(t, s, kv.Limit{Requests: 5, Window: time.Minute, Algorithm: algorithm})
		require.NoError(t, limiter.Reset(t.Context(), "key"), "a key that was never used")
		require.True(t, allowN(t, limiter, "key", 5).Allowed)
		require.True(t, allowN(t, limiter, "other", 5).Allowed)
		require.NoError(t, limiter.Reset(t.Context(), "key"))
		require.True(t, allowN(t, limiter, "key", 5).Allowed)
		require.False(t, allow(t, limiter, "other").Allowed)
	})
}

// No counter is ever without a deadline, whatever was done to it, and it is gone when ResetAfter says so.
func TestRateLimiterLeavesNoMemory(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		r := rand.New(rand.NewPCG(seed, uint64(algorithm)))
		limiter := newLimiter(t, s, kv.Limit{Requests: 5, Window: time.Minute, Algorithm: algorithm})
		for range 500 {
			n := 1 + r.Int64N(5)
			if r.IntN(4) == 0 {
				require.NoError(t, limiter.Refund(t.Context(), "key", n))
			} else {
				allowN(t, limiter, "key", n)
			}
			time.Sleep(time.Duration(r.Int64N(30e6)) * time.Microsecond)
			for _, e := range entries(t, s) {
				require.WithinRange(t, e.ExpiresAt, time.Now(), time.Now().Add(2*time.Minute))
			}
		}
		reset := allow(t, limiter, "key").ResetAfter
		time.Sleep(reset - time.Microsecond)
		require.Len(t, entries(t, s), 1)
		time.Sleep(time.Microsecond)
		require.Empty(t, entries(t, s))
		time.Sleep(kv.DefaultReapInterval)
		require.Zero(t, s.Stats().Keys)
	})
}

// ---- Keys and errors ----------------------------------------------------------

func TestRateLimiterKeys(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	limit := kv.Limit{Requests: 1, Window: time.Hour}
	for _, prefix := range []string{"", "login", "a:b{c}%", ".", ".."} {
		limiter, err := kv.NewRateLimiter(s.Namespace("ns"), limit, &kv.RateLimiterOptions{Prefix: prefix})
		require.NoError(t, err)
		if prefix == "" {
			prefix = "ratelimit"
		}
		for _, key := range []string{"ada", "", ".", "a:b", "%", "{tag}", "a b\x00\xff", "::1"} {
			require.True(t, allow(t, limiter, key).Allowed, key)
			require.False(t, allow(t, limiter, key).Allowed, key)
			whole := "ns:" + kv.Key(prefix, key)
			ttl, err := s.TTL(context.Background(), whole)
			require.NoError(t, err, whole)
			require.Greater(t, ttl, 59*time.Minute)
		}
	}
	require.Len(t, entries(t, s), 5*8, "different keys and prefixes never meet")
}

func TestRateLimiterErrors(t *testing.T) {
	engine := kvtest.NewFaulty(kv.New(nil))
	s := kv.NewWithEngine(engine, nil)
	limiter := newLimiter(t, s.Namespace("ns"), kv.Limit{Requests: 5, Window: time.Hour})
	calls := map[string]func() (kv.RateLimitResult, error){
		"allow":  func() (kv.RateLimitResult, error) { return limiter.Allow(t.Context(), "a:b") },
		"allown": func() (kv.RateLimitResult, error) { return limiter.AllowN(t.Context(), "a:b", 2) },
		"peek":   func() (kv.RateLimitResult, error) { return limiter.Peek(t.Context(), "a:b") },
		"refund": func() (r kv.RateLimitResult, err error) { return r, limiter.Refund(t.Context(), "a:b", 1) },
		"reset":  func() (r kv.RateLimitResult, err error) { return r, limiter.Reset(t.Context(), "a:b") },
		"wait":   func() (r kv.RateLimitResult, err error) { return r, limiter.Wait(t.Context(), "a:b") },
	}
	fails := func(want error) {
		t.Helper()
		for op, call := range calls {
			result, err := call()
			require.ErrorIs(t, err, want, op)
			require.Zero(t, result, "a result that denies")
			var e *kv.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, [2]string{op, "a:b"}, [2]string{e.Op, e.Key}, "the method and the key as the caller knows them")
			require.NotErrorAs(t, e.Err, &e, "one wrapping is enough")
		}
	}
	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
	fails(kvtest.ErrDown)
	engine.Heal()
	require.Equal(t, int64(1), allow(t, limiter, "a:b").Count, "nothing was counted meanwhile")
	require.NoError(t, s.Close())
	fails(kv.ErrClosed)
}

func TestRateLimiterRefusesLongKeys(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	limiter := newLimiter(t, s, kv.Limit{Requests: 5, Window: time.Hour})
	_, err := limiter.Allow(t.Context(), string(make([]byte, 512)))
	require.ErrorIs(t, err, kv.ErrInvalidKey)
}

// Where keys may be longer than the engine's records of numbers hold, limits are the same.
func TestRateLimiterLongKeys(t *testing.T) {
	s := kv.New(&kv.Options{MaxKeyBytes: 1 << 20})
	defer s.Close()
	for _, n := range []int{1000, 1010, 1011, 1012, 1013, 1014, 1024, 5000, 100_000} {
		for _, algorithm := range limitAlgorithms {
			limiter, err := kv.NewRateLimiter(s, kv.Limit{Requests: 3, Window: time.Hour, Algorithm: algorithm},
				&kv.RateLimiterOptions{Prefix: algorithm.String()})
			require.NoError(t, err)
			key := strings.Repeat("k", n)
			for i := range int64(5) {
				result := allow(t, limiter, key)
				require.Equal(t, i < 3, result.Allowed, "%s, %d bytes", algorithm, n)
				require.Equal(t, min(i+1, 3), result.Count)
			}
			require.NoError(t, limiter.Refund(t.Context(), key, 3))
			_, err = s.Get(t.Context(), kv.Key(algorithm.String(), key))
			require.ErrorIs(t, err, kv.ErrNotFound, "all was given back")
		}
	}
	require.Zero(t, s.Stats().Bytes)
}

// What another algorithm, or somebody else, has stored is an error and stays as it is.
func TestRateLimiterFindsSomethingElse(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		other := limitAlgorithms[(int(algorithm)+1)%3]
		require.True(t, allow(t, newLimiter(t, s, kv.Limit{Requests: 5, Window: time.Hour, Algorithm: other}), "key").Allowed)
		require.NoError(t, s.Set(t.Context(), "ratelimit:foreign", "hello", kv.NoExpiry))
		before := entries(t, s)
		limiter := newLimiter(t, s, kv.Limit{Requests: 5, Window: time.Hour, Algorithm: algorithm})
		for _, key := range []string{"key", "foreign"} {
			result, err := limiter.Allow(t.Context(), key)
			require.ErrorIs(t, err, kv.ErrWrongType)
			require.Zero(t, result)
			require.ErrorIs(t, limiter.Refund(t.Context(), key, 1), kv.ErrWrongType)
			require.ErrorIs(t, limiter.Wait(t.Context(), key), kv.ErrWrongType)
		}
		require.Equal(t, before, entries(t, s))
		require.NoError(t, limiter.Reset(t.Context(), "key"), "Reset helps")
		require.True(t, allow(t, limiter, "key").Allowed)
	})
}

// Another limit applies from the next request on, to what was counted before.
func TestRateLimiterChangesItsLimit(t *testing.T) {
	forEachAlgorithm(t, func(t *testing.T, s *kv.Store, algorithm kv.Algorithm) {
		require.True(t, allowN(t, newLimiter(t, s, kv.Limit{Requests: 10, Window: time.Hour, Algorithm: algorithm}), "key", 6).Allowed)
		lower := newLimiter(t, s, kv.Limit{Requests: 4, Window: 24 * time.Minute, Algorithm: algorithm}) // as fast, but less
		result := allow(t, lower, "key")
		require.False(t, result.Allowed)
		require.Equal(t, kv.RateLimitResult{Count: 6, Limit: 4, RetryAfter: result.RetryAfter, ResetAfter: result.ResetAfter}, result)
		time.Sleep(result.RetryAfter - time.Microsecond)
		require.False(t, allow(t, lower, "key").Allowed)
		time.Sleep(time.Microsecond)
		require.True(t, allow(t, lower, "key").Allowed)
		higher := newLimiter(t, s, kv.Limit{Requests: 20, Window: 2 * time.Hour, Algorithm: algorithm})
		require.True(t, allow(t, higher, "key").Allowed)
	})
}

func TestRateLimiterNamesItsAlgorithms(t *testing.T) {
	require.Equal(t, "fixed window", kv.FixedWindow.String())
	require.Equal(t, "sliding window", kv.SlidingWindow.String())
	require.Equal(t, "token bucket", kv.TokenBucket.String())
	require.Equal(t, "unknown algorithm", kv.Algorithm(9).String())
	require.Zero(t, kv.FixedWindow, "the default")
}

// A decision costs one allocation, the store's key.
func TestRateLimiterAllocations(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	for _, store := range []*kv.Store{s, s.Namespace("ns")} {
		for _, algorithm := range limitAlgorithms {
			limiter := newLimiter(t, store, kv.Limit{Requests: 1e6, Window: time.Hour, Algorithm: algorithm})
			key := algorithm.String()
			allocations := testing.AllocsPerRun(1000, func() { _, _ = limiter.Allow(context.Background(), key) })
			require.LessOrEqual(t, allocations, 1.0, key)
			_ = allowN(t, limiter, key, 1e6-1001-1) // now it denies
			allocations = testing.AllocsPerRun(1000, func() { _, _ = limiter.AllowN(context.Background(), key, 1000) })
			require.LessOrEqual(t, allocations, 1.0, key)
		}
	}
}
