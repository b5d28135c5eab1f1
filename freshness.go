package kv

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// engineTime tells the engine's time without asking it each time: it measures how
// far the engine's clock is ahead of the local monotonic one and adds that. So
// processes whose own clocks disagree agree on the age of a value, as well
// as a round trip to the engine is short.
type engineTime struct {
	base      time.Time    // local
	offset    atomic.Int64 // the engine's clock at base, in ns since 1970
	measured  atomic.Int64 // ns after base of the last measurement; 0: none yet
	measuring atomic.Bool
}

// remeasureAfter bounds what a drift of the clocks can add up to: 20 ppm, which is usual, make 1.2 ms in a minute.
const remeasureAfter = time.Minute

func newEngineTime() *engineTime { return &engineTime{base: time.Now()} }

// measure asks the engine for its time.
func (c *engineTime) measure(ctx context.Context, s *Store) (now int64, err error) {
	before := time.Since(c.base)
	at, err := s.Now(ctx)
	if err != nil {
		return 0, err
	}
	after := time.Since(c.base)
	now = at.UnixNano() // as it was half a round trip ago
	c.offset.Store(now - int64(before+(after-before)/2))
	c.measured.Store(max(1, int64(after)))
	return now, nil
}

// now returns the engine's time. Only the first call asks the engine for it; an old measurement is
// renewed behind the caller.
func (c *engineTime) now(s *Store) (int64, error) {
	measured := c.measured.Load()
	if measured == 0 {
		return c.measure(context.Background(), s)
	}
	local := int64(time.Since(c.base))
	if local-measured > int64(remeasureAfter) && c.measuring.CompareAndSwap(false, true) {
		go func() {
			defer c.measuring.Store(false)
			_, _ = c.measure(context.Background(), s) // failing that, the old one serves on
		}()
	}
	return c.offset.Load() + local, nil
}

// due says that c should be refreshed: its time is up, or XFetch says so. A
// store that can't tell its time leaves c fresh for as long as its key lives.
//
// XFetch refreshes when now - cost*Beta*ln(rand()) has reached the end of
// freshness: the longer a value takes to compute and the nearer the end, the likelier; the many who
// ask each decide alone, and with Beta 1 most probably one of them does so in time. See
// A. Vattani, F. Chierichetti, K. Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015.
func (g *guard) due(c *cached) bool {
	if !g.ages() || c.freshUntil == 0 {
		return false
	}
	now, err := g.clock.now(g.store)
	if err != nil {
		return false
	}
	left, scale := float64(c.freshUntil-now), float64(c.cost)*g.beta
	if left > maxXFetch*scale { // by far the most calls: spare them the logarithm
		return left <= 0
	}
	return left+scale*math.Log(1-rand.Float64()) <= 0 // not of 0
}

// maxXFetch is over -ln(2^-53), the largest -ln(rand()) there is.
const maxXFetch = 37

// ages says that values can want a refresh while they live.
func (g *guard) ages() bool { return g.staleFor > 0 || g.beta > 0 }

// lifetime returns for how long a new value is fresh, and for how long its key lives.
func (g *guard) lifetime() (fresh, ttl time.Duration) {
	if g.ttl <= 0 {
		return NoExpiry, NoExpiry
	}
	fresh = g.ttl
	if g.jitter > 0 {
		fresh -= time.Duration(g.jitter * rand.Float64() * float64(g.ttl))
		fresh = max(fresh, 1) // 0 would be for ever
	}
	return fresh, time.Duration(addTTL(int64(fresh), g.staleFor))
}

// age gives c, which is about to be stored, the end of its freshness, and
// returns the ttl of its key.
func (g *guard) age(ctx context.Context, c *cached) (ttl time.Duration) {
	if c.kind == cachedAbsent {
		return g.negativeTTL
	}
	fresh, ttl := g.lifetime()
	if fresh == NoExpiry || !g.ages() {
		return ttl
	}
	now, err := g.clock.measure(ctx, g.store)
	if err != nil {
		return fresh // without StaleFor, which nobody could apply
	}
	c.freshUntil = addTTL(now, fresh)
	return ttl
}
