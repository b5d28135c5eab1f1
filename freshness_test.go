package kv

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The probability of an early refresh is that of the paper: exp(-left / (cost * beta)).
func TestXFetchProbability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(nil)
		defer func() { _ = s.Close() }()
		const n = 20_000
		for _, c := range []struct{ beta, left float64 }{{1, 0.1}, {1, 1}, {1, 3}, {2, 2}, {0.5, 1}, {1, 40}} {
			g := guard{store: s, beta: c.beta, clock: newEngineTime()}
			now, err := g.clock.now(s)
			require.NoError(t, err)
			v := cached{kind: cachedValue, cost: time.Second, freshUntil: now + int64(c.left*float64(time.Second))}
			due := 0
			for range n {
				if g.due(&v) {
					due++
				}
			}
			want := math.Exp(-c.left / c.beta)
			deviation := 5 * math.Sqrt(want*(1-want)/n) // exceeded once in two million
			require.InDelta(t, want, float64(due)/n, deviation, "beta %v, %v s left", c.beta, c.left)
		}
	})
}

func TestDueAtTheInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(nil)
		defer func() { _ = s.Close() }()
		for _, g := range []guard{{store: s, staleFor: 1}, {store: s, beta: 1}} {
			g.clock = newEngineTime()
			now, err := g.clock.now(s)
			require.NoError(t, err)
			v := cached{kind: cachedValue, freshUntil: now + int64(time.Hour)} // free to compute: never early
			time.Sleep(time.Hour - 1)
			require.False(t, g.due(&v))
			time.Sleep(time.Nanosecond)
			require.True(t, g.due(&v))
			require.False(t, g.due(&cached{kind: cachedValue}), "without an end of freshness")
		}
	})
}

func TestLifetime(t *testing.T) {
	g := guard{ttl: time.Hour, staleFor: time.Minute, jitter: 0.5}
	low, high := time.Duration(math.MaxInt64), time.Duration(0)
	for range 10_000 {
		fresh, ttl := g.lifetime()
		require.Equal(t, fresh+time.Minute, ttl)
		low, high = min(low, fresh), max(high, fresh)
	}
	require.GreaterOrEqual(t, low, 30*time.Minute)
	require.LessOrEqual(t, high, time.Hour)
	require.InDelta(t, 30*time.Minute, low, float64(time.Minute))
	require.InDelta(t, time.Hour, high, float64(time.Minute))

	g = guard{ttl: 1, jitter: 1}
	for range 100 {
		fresh, ttl := g.lifetime()
		require.Equal(t, time.Duration(1), fresh, "never 0, which would be for ever")
		require.Equal(t, time.Duration(1), ttl)
	}
	g = guard{ttl: NoExpiry, staleFor: time.Hour, jitter: 1}
	fresh, ttl := g.lifetime()
	require.Zero(t, fresh)
	require.Zero(t, ttl)
	g = guard{ttl: math.MaxInt64, staleFor: math.MaxInt64}
	_, ttl = g.lifetime()
	require.Equal(t, time.Duration(math.MaxInt64), ttl)
}

// clockEngine is an engine whose clock is its own and far away.
type clockEngine struct {
	Engine
	ahead time.Duration
	delay time.Duration
	asked int
}

func (e *clockEngine) Now(ctx context.Context) (time.Time, error) {
	e.asked++
	time.Sleep(e.delay / 2)
	now, err := e.Engine.Now(ctx)
	time.Sleep(e.delay / 2)
	return now.Add(e.ahead), err
}

func TestEngineTimeIsTheEngines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &clockEngine{Engine: newMemory((*Options)(nil).withDefaults()), ahead: -1000 * time.Hour, delay: 20 * time.Millisecond}
		s := NewWithEngine(e, nil)
		defer func() { _ = s.Close() }()
		c := newEngineTime()
		start := time.Now()
		_, err := c.now(s)
		require.NoError(t, err)
		check := func(ahead time.Duration) {
			t.Helper()
			now, err := c.now(s)
			require.NoError(t, err)
			require.Equal(t, time.Now().Add(ahead).UnixNano(), now)
		}
		for time.Since(start) < time.Minute {
			check(e.ahead)
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, e.asked, "asked once")

		e.ahead += time.Hour // the server's clock is set
		time.Sleep(time.Minute)
		check(e.ahead - time.Hour) // and renews the measurement behind us
		synctest.Wait()
		time.Sleep(2 * e.delay)
		check(e.ahead)
		require.Equal(t, 2, e.asked)
	})
}
