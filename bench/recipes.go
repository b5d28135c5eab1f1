package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/viccon/sturdyc"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/kvrecipes/kv"
)

// recipePeers are what programs use today for what the recipes do.
var recipePeers = []peer{
	{name: "kv", module: "github.com/kvrecipes/kv", ttl: true},
	{name: "x/time/rate", module: "golang.org/x/time", note: "a `Limiter` for each key in a `sync.Map`; one process"},
	{name: "singleflight", module: "golang.org/x/sync", note: "before a map behind a `sync.RWMutex`; one process"},
	{name: "sturdyc", module: "github.com/viccon/sturdyc", note: "one process"},
	{name: "redislock", module: "github.com/bsm/redislock", note: "a Redis on the same machine", redis: true},
	{name: "redis_rate", module: "github.com/go-redis/redis_rate/v10", note: "a Redis on the same machine", redis: true},
}

const recipeNames = 1 << 10 // locks, clients, values and so on that take turns

// runRecipes measures what one library does of the recipes' work.
func runRecipes(b *bench) {
	switch b.peer.name {
	case "kv":
		b.timeKVRecipes()
	case "x/time/rate":
		b.timeRate()
	case "singleflight":
		b.timeSingleflight()
	case "sturdyc":
		b.timeSturdyc()
	case "redislock":
		b.timeRedisLock()
	case "redis_rate":
		b.timeRedisRate()
	}
}

// timeNames calls f with one name after the other.
func (b *bench) timeNames(metric string, f func(name string) error) {
	names := make([]string, recipeNames)
	for i := range names {
		names[i] = "customer-" + strconv.Itoa(i)
		must(f(names[i])) // what the first use of a name costs doesn't count
	}
	b.time(metric, 1, b.Ops, func(_, first, last int) int {
		for i := first; i < last; i++ {
			must(f(names[i%recipeNames]))
		}
		return last
	})
}

// timeKVRecipes runs the recipes in a store that is full of other things.
func (b *bench) timeKVRecipes() {
	store := kv.New(nil)
	defer store.Close()
	fill(&kvEngine{store}, newKeys(b.Entries/10), newValues(b.ValueSize), time.Hour)

	b.timeKVLock(store)
	b.timeKVLimit(store, limitMetric(kv.FixedWindow), kv.Limit{Requests: 1 << 40, Window: time.Hour})
	b.timeKVLimit(store, limitMetric(kv.SlidingWindow), kv.Limit{Requests: 1 << 40, Window: time.Hour, Algorithm: kv.SlidingWindow})
	b.timeKVLimit(store, limitMetric(kv.TokenBucket), kv.Limit{Requests: slowRefill, Window: time.Second, Burst: bucketSize, Algorithm: kv.TokenBucket})
	b.timeKVLimit(store, fullBucket, kv.Limit{Requests: fastRefill, Window: time.Second, Burst: bucketSize, Algorithm: kv.TokenBucket})
	b.timeKVGuarded(store)
	b.timeKVIdempotency(store)
	b.timeKVFlags(store)
}

func (b *bench) timeKVLock(store *kv.Store) {
	locker := kv.NewLocker(store, nil)
	ctx := context.Background()
	b.timeNames("recipe-lock", func(name string) error {
		lock, err := locker.TryLock(ctx, name)
		if err != nil {
			return err
		}
		return lock.Unlock(ctx)
	})
}

// A token bucket of which each name takes more than comes back, and one that is always full again when a name comes
// back: then a store with deadlines has forgotten it. Neither is ever empty.
const (
	slowRefill = 1000 // a second
	fastRefill = 1_000_000_000
	bucketSize = 1 << 40
	fullBucket = "recipe-ratelimit-token-bucket-full"
)

func (b *bench) timeKVLimit(store *kv.Store, metric string, limit kv.Limit) {
	limiter, err := kv.NewRateLimiter(store, limit, &kv.RateLimiterOptions{Prefix: metric})
	must(err)
	ctx := context.Background()
	b.timeNames(metric, func(name string) error {
		result, err := limiter.Allow(ctx, name)
		if err == nil && !result.Allowed {
			err = fmt.Errorf("%s is denied", name)
		}
		return err
	})
}

// plain stores strings as they are.
type plain struct{}

func (plain) Encode(s string) (string, error) { return s, nil }
func (plain) Decode(s string) (string, error) { return s, nil }

func (b *bench) timeKVGuarded(store *kv.Store) {
	guarded := kv.NewGuarded(store, &kv.GuardedOptions[string]{TTL: time.Hour, Codec: plain{}})
	ctx := context.Background()
	value := newValues(b.ValueSize).next()
	compute := func(context.Context) (string, error) { return value, nil }
	b.timeNames("recipe-guarded-hit", func(name string) error {
		_, err := guarded.Get(ctx, name, compute)
		return err
	})
	b.timeNames("recipe-plain-get", func(name string) error {
		value, err := store.Get(ctx, "guarded:"+name)
		sink.Store(int64(len(value)))
		return err
	})
}

func (b *bench) timeKVIdempotency(store *kv.Store) {
	idempotency := kv.NewIdempotency(store, nil)
	ctx := context.Background()
	body := []byte(newValues(b.ValueSize).next())
	work := func(context.Context) (kv.Response, error) { return kv.Response{Status: 201, Body: body}, nil }
	b.timeNames("recipe-idempotency-replay", func(name string) error {
		_, _, err := idempotency.Execute(ctx, name, "fingerprint", work)
		return err
	})
}

func (b *bench) timeKVFlags(store *kv.Store) {
	flags, err := kv.NewFlags(store, nil)
	must(err)
	defer flags.Close()
	must(flags.Set(context.Background(), "checkout", "30"))
	b.timeNames("recipe-flag-enabled", func(name string) error {
		if flags.Enabled("checkout", name) {
			sink.Store(1)
		}
		return nil
	})
}

func (b *bench) timeRate() {
	b.timeLimiters(limitMetric(kv.TokenBucket), slowRefill)
	b.timeLimiters(fullBucket, fastRefill)
}

func (b *bench) timeLimiters(metric string, refill rate.Limit) {
	var limiters sync.Map
	b.timeNames(metric, func(name string) error {
		limiter, found := limiters.Load(name)
		if !found {
			limiter, _ = limiters.LoadOrStore(name, rate.NewLimiter(refill, bucketSize))
		}
		if !limiter.(*rate.Limiter).Allow() {
			return fmt.Errorf("%s is denied", name)
		}
		return nil
	})
}

func (b *bench) timeSingleflight() {
	var (
		mu     sync.RWMutex
		values = make(map[string]string)
		flight singleflight.Group
	)
	value := newValues(b.ValueSize).next()
	b.timeNames("recipe-guarded-hit", func(name string) error {
		mu.RLock()
		_, found := values[name]
		mu.RUnlock()
		if found {
			return nil
		}
		_, err, _ := flight.Do(name, func() (any, error) {
			mu.Lock()
			defer mu.Unlock()
			values[name] = value
			return value, nil
		})
		return err
	})
}

func (b *bench) timeSturdyc() {
	cache := sturdyc.New[string](10*recipeNames, 64, time.Hour, 10)
	ctx := context.Background()
	value := newValues(b.ValueSize).next()
	fetch := func(context.Context) (string, error) { return value, nil }
	b.timeNames("recipe-guarded-hit", func(name string) error {
		_, err := cache.GetOrFetch(ctx, name, fetch)
		return err
	})
}

func (b *bench) timeRedisLock() {
	client := redis.NewClient(&redis.Options{Addr: b.redis})
	defer client.Close()
	locker := redislock.New(client)
	ctx := context.Background()
	b.timeNames("recipe-lock", func(name string) error {
		lock, err := locker.Obtain(ctx, name, lockTTL, nil)
		if err != nil {
			return err
		}
		return lock.Release(ctx)
	})
}

func (b *bench) timeRedisRate() {
	client := redis.NewClient(&redis.Options{Addr: b.redis})
	defer client.Close()
	limiter := redis_rate.NewLimiter(client)
	ctx := context.Background()
	b.timeNames(limitMetric(kv.TokenBucket), func(name string) error {
		_, err := limiter.Allow(ctx, name, redis_rate.Limit{Rate: slowRefill, Period: time.Second, Burst: bucketSize})
		return err
	})
}

func limitMetric(a kv.Algorithm) string {
	return "recipe-ratelimit-" + strings.ReplaceAll(a.String(), " ", "-")
}
