package main

import "fmt"

// A target is what kv shall reach, as a bound on one figure or on the ratio of two of the same run.
type target struct {
	work    string
	metric  string // of kv
	kind    targetKind
	rival   string // ratio: the engine to compare with; "" is kv itself
	against string // ratio, speedup: the other metric; "" is the same
	limit   float64
}

type targetKind int

const (
	ratio    targetKind = iota // the figure over the other one is at most limit
	absolute                   // the figure is at most limit, whatever the other one is
	speedup                    // the other figure over this one is at least limit
	allocs                     // allocations per operation are at most limit
	extra                      // the figure is at most limit above the other one
)

var targets = []target{
	{work: "Get, uniform, p1", metric: "get-uniform/p1", rival: "xsync", limit: 1},
	{work: "Get, uniform, p2", metric: "get-uniform/p2", rival: "xsync", limit: 1},
	{work: "Get, zipf, p1", metric: "get-zipf/p1", rival: "xsync", limit: 1},
	{work: "Get, zipf, p2", metric: "get-zipf/p2", rival: "xsync", limit: 1},
	{work: "Get, uniform, p1", metric: "get-uniform/p1", rival: "buntdb", limit: 0.12},
	{work: "Get, uniform, p2", metric: "get-uniform/p2", rival: "buntdb", limit: 0.12},
	{work: "Get, zipf, p1", metric: "get-zipf/p1", rival: "buntdb", limit: 0.12},
	{work: "Get, zipf, p2", metric: "get-zipf/p2", rival: "buntdb", limit: 0.12},
	{work: "Get, allocations", metric: "get-uniform/p1", kind: allocs, limit: 0},
	{work: "Get of a 64 KiB value, allocations", metric: "get-values/65536", kind: allocs, limit: 0},
	{work: "Get of keys with a TTL, uniform, p1", metric: "get-ttl-uniform/p1", against: "get-uniform/p1", limit: 1.15},
	{work: "Get of keys with a TTL, uniform, p2", metric: "get-ttl-uniform/p2", against: "get-uniform/p2", limit: 1.15},
	{work: "Get of keys with a TTL, zipf, p1", metric: "get-ttl-zipf/p1", against: "get-zipf/p1", limit: 1.15},
	{work: "Get of keys with a TTL, zipf, p2", metric: "get-ttl-zipf/p2", against: "get-zipf/p2", limit: 1.15},
	{work: "overwrite, p2", metric: "overwrite/p2", rival: "otter", limit: 0.9},
	{work: "overwrite, p2", metric: "overwrite/p2", rival: "buntdb", limit: 0.1},
	{work: "overwrite, allocations", metric: "overwrite/p2", kind: allocs, limit: 1},
	{work: "90 % Get, 10 % Set, zipf, p2", metric: "mix-90-10-zipf/p2", rival: "xsync", limit: 1},
	{work: "insert", metric: "insert/p1", rival: "otter", limit: 1},
	{work: "insert", metric: "insert/p1", rival: "btree", limit: 0.4},
	{work: "insert with TTL", metric: "insert-ttl/p1", rival: "otter", limit: 1},
	{work: "insert with TTL, btree without", metric: "insert-ttl/p1", rival: "btree", against: "insert/p1", limit: 0.4},
	{work: "first entry of a scan after the inserts", metric: "scan-first", kind: absolute, limit: 5},
	{work: "ordered scan of 100 keys", metric: "scan-100/p1", rival: "btree", limit: 1.2},
	{work: "ordered scan of all keys", metric: "scan-all", rival: "btree", limit: 1.2},
	{work: "Incr of one hot key, p2", metric: "incr-hot/p2", rival: "go-cache", limit: 1},
	{work: "Incr of 100,000 keys, p2", metric: "incr-100k/p2", rival: "go-cache", limit: 1},
	{work: "set and delete of a short-lived key, over one insert with TTL", metric: "set-delete/p1", against: "insert-ttl/p1", limit: 1.2},
	{work: "Expire, over an overwrite with TTL, p1", metric: "expire/p1", against: "overwrite-ttl/p1", limit: 1},
	{work: "Expire, over an overwrite with TTL, p2", metric: "expire/p2", against: "overwrite-ttl/p2", limit: 1},
	{work: "memory of an entry", metric: "memory", kind: absolute, limit: 130},
	{work: "memory of an entry, after a scan", metric: "memory-scanned", kind: absolute, limit: 130},
	{work: "memory of an entry with TTL", metric: "memory-ttl", kind: absolute, limit: 140},
	{work: "memory of an entry with TTL, after a scan", metric: "memory-scanned-ttl", kind: absolute, limit: 140},
	{work: "`runtime.GC()`", metric: "gc-1x", kind: absolute, limit: 5},
	{work: "`runtime.GC()`, five times the entries", metric: "gc-5x", kind: absolute, limit: 20},
	{work: "all keys due within one second: empty after", metric: "expiry-empty", kind: absolute, limit: 0.25},
	{work: "all keys due within one second: longest stall of a reader (against: in the second before)", metric: "expiry-stall", against: "expiry-stall-before", kind: absolute, limit: 0.3},
	{work: "all keys due within one second: heap afterwards", metric: "expiry-heap", kind: absolute, limit: 5},
	{work: "Get on two cores against one", metric: "get-uniform/p2", against: "get-uniform/p1", kind: speedup, limit: 1.8},
	{work: "Set on two cores against one", metric: "overwrite/p2", against: "overwrite/p1", kind: speedup, limit: 1.8},
	{work: "`TryLock` and `Unlock`", metric: "recipe-lock", kind: absolute, limit: 2000},
	{work: "`RateLimiter.Allow`, fixed window", metric: "recipe-ratelimit-fixed-window", kind: absolute, limit: 400},
	{work: "`RateLimiter.Allow`, sliding window", metric: "recipe-ratelimit-sliding-window", kind: absolute, limit: 400},
	{work: "`RateLimiter.Allow`, token bucket", metric: "recipe-ratelimit-token-bucket", kind: absolute, limit: 400},
	{work: "`RateLimiter.Allow`, token bucket that is full again", metric: fullBucket, kind: absolute, limit: 400},
	{work: "`RateLimiter.Allow`, fixed window, allocations", metric: "recipe-ratelimit-fixed-window", kind: allocs, limit: 1},
	{work: "`RateLimiter.Allow`, sliding window, allocations", metric: "recipe-ratelimit-sliding-window", kind: allocs, limit: 1},
	{work: "`RateLimiter.Allow`, token bucket, allocations", metric: "recipe-ratelimit-token-bucket", kind: allocs, limit: 1},
	{work: "`RateLimiter.Allow`, token bucket that is full again, allocations", metric: fullBucket, kind: allocs, limit: 1},
	{work: "`Guarded.Get` hit, more than Get", metric: "recipe-guarded-hit", against: "recipe-plain-get", kind: extra, limit: 80},
	{work: "`Guarded.Get` hit, allocations", metric: "recipe-guarded-hit", kind: allocs, limit: 1},
	{work: "`Idempotency` replay", metric: "recipe-idempotency-replay", kind: absolute, limit: 2000},
	{work: "`Flags.Enabled`", metric: "recipe-flag-enabled", kind: absolute, limit: 50},
	{work: "`Flags.Enabled`, allocations", metric: "recipe-flag-enabled", kind: allocs, limit: 0},
}

// A verdict is what became of a target.
type verdict struct {
	Work    string `json:"work"`
	Have    string `json:"have"`    // kv's figure
	Against string `json:"against"` // what it is compared with; "" if it is a bound
	Result  string `json:"result"`  // what counts: ratio, figure or factor
	Limit   string `json:"limit"`
	Met     bool   `json:"met"`
}

// judge returns the verdicts of all targets whose figures were measured.
func judge(f *figures) []verdict {
	var list []verdict
	for _, t := range targets {
		if v, ok := t.judge(f); ok {
			list = append(list, v)
		}
	}
	return list
}

func (t target) judge(f *figures) (verdict, bool) {
	have := f.find("kv", t.metric)
	other := f.find(orElse(t.rival, "kv"), orElse(t.against, t.metric))
	if have == nil || other == nil {
		return verdict{}, false
	}
	v := verdict{Work: t.work, Have: quantity(have.Median, have.Unit)}
	if have != other {
		v.Against = quantity(other.Median, other.Unit)
		if t.rival != "" {
			v.Against = t.rival + " " + v.Against
		}
	}
	switch t.kind {
	case ratio:
		r := have.Median / other.Median
		v.Result, v.Limit, v.Met = fmt.Sprintf("%.2f x", r), fmt.Sprintf("at most %g x", t.limit), r <= t.limit
	case speedup:
		r := other.Median / have.Median
		v.Result, v.Limit, v.Met = fmt.Sprintf("%.2f x", r), fmt.Sprintf("at least %g x", t.limit), r >= t.limit
	case absolute:
		v.Result, v.Limit, v.Met = v.Have, "at most "+bound(t.limit, have.Unit), have.Median <= t.limit
	case extra:
		d := have.Median - other.Median
		v.Result, v.Limit, v.Met = fmt.Sprintf("%+.0f %s", d, have.Unit), "at most +"+bound(t.limit, have.Unit), d <= t.limit
	case allocs:
		// What the background allocates meanwhile is no allocation of the call.
		v.Have = fmt.Sprintf("%.2f", have.Allocs)
		v.Result, v.Limit, v.Met = v.Have, fmt.Sprintf("at most %g", t.limit), have.Allocs < t.limit+0.05
	}
	return v, true
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func quantity(v float64, unit string) string { return short(v) + " " + unit }

func bound(v float64, unit string) string { return fmt.Sprintf("%g %s", v, unit) }
