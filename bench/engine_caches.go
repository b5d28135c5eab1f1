package main

import (
	"runtime"
	"strconv"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/jellydator/ttlcache/v3"
	"github.com/maypok86/otter/v2"
	"github.com/patrickmn/go-cache"
)

// otterEngine has no bound: nothing shall be evicted.
type otterEngine struct {
	c   *otter.Cache[string, string]
	ttl time.Duration // that the calculator gives; another needs a second call
}

func openOtter(c config) engine {
	options := &otter.Options[string, string]{}
	if c.ttl > 0 {
		options.ExpiryCalculator = otter.ExpiryWriting[string, string](c.ttl)
	}
	return &otterEngine{otter.Must(options), c.ttl}
}

func (e *otterEngine) get(key string) (string, bool) { return e.c.GetIfPresent(key) }

func (e *otterEngine) set(key, value string, ttl time.Duration) {
	e.c.Set(key, value)
	if ttl != e.ttl {
		e.c.SetExpiresAfter(key, ttl)
	}
}

func (e *otterEngine) delete(key string)                    { e.c.Invalidate(key) }
func (e *otterEngine) expire(key string, ttl time.Duration) { e.c.SetExpiresAfter(key, ttl) }

func (e *otterEngine) incr(key string, delta int64) (n int64) {
	e.c.Compute(key, func(old string, _ bool) (string, otter.ComputeOp) {
		n = parseInt(old) + delta
		return strconv.FormatInt(n, 10), otter.WriteOp
	})
	return n
}

func (e *otterEngine) len() int { return e.c.EstimatedSize() }
func (e *otterEngine) settle()  {}
func (e *otterEngine) close()   { e.c.StopAllGoroutines() }

// ristrettoEngine buffers writes and drops them when the buffer is full.
type ristrettoEngine struct {
	c *ristretto.Cache[string, string]
}

func openRistretto(c config) engine {
	e := &ristrettoEngine{}
	var err error
	e.c, err = ristretto.NewCache(&ristretto.Config[string, string]{
		NumCounters:        int64(10 * c.entries),
		MaxCost:            int64(2 * c.entries),
		BufferItems:        64,
		IgnoreInternalCost: true,
		OnReject:           func(*ristretto.Item[string]) { panic("ristretto rejected a write") },
	})
	must(err)
	return e
}

func (e *ristrettoEngine) get(key string) (string, bool) { return e.c.Get(key) }

func (e *ristrettoEngine) set(key, value string, ttl time.Duration) {
	for !e.c.SetWithTTL(key, value, 1, ttl) {
		runtime.Gosched()
	}
}

func (e *ristrettoEngine) delete(key string) { e.c.Del(key) }
func (e *ristrettoEngine) settle()           { e.c.Wait() }
func (e *ristrettoEngine) close()            { e.c.Close() }

// len is what of its room, which is two for each entry, is taken.
func (e *ristrettoEngine) len() int { return int(e.c.MaxCost() - e.c.RemainingCost()) }

// goCacheEngine is a map behind a lock that a janitor sweeps.
type goCacheEngine struct{ c *cache.Cache }

func openGoCache(c config) engine {
	sweep := 10 * time.Minute // as its README has it
	if c.reap > 0 {
		sweep = c.reap
	}
	return &goCacheEngine{cache.New(cache.NoExpiration, sweep)}
}

func (e *goCacheEngine) get(key string) (string, bool) {
	value, found := e.c.Get(key)
	if !found {
		return "", false
	}
	return value.(string), true
}

func (e *goCacheEngine) set(key, value string, ttl time.Duration) { e.c.Set(key, value, ttl) }
func (e *goCacheEngine) delete(key string)                        { e.c.Delete(key) }

// incr uses the typed counters that go-cache has for it.
func (e *goCacheEngine) incr(key string, delta int64) int64 {
	for {
		n, err := e.c.IncrementInt64(key, delta)
		if err == nil {
			return n
		}
		_ = e.c.Add(key, int64(0), cache.NoExpiration) // fails if somebody else was faster
	}
}

func (e *goCacheEngine) len() int { return e.c.ItemCount() }
func (e *goCacheEngine) settle()  {}
func (e *goCacheEngine) close()   {}

// ttlcacheEngine keeps a heap of deadlines behind one lock.
type ttlcacheEngine struct {
	c *ttlcache.Cache[string, string]
}

func openTTLCache(config) engine {
	e := &ttlcacheEngine{ttlcache.New(ttlcache.WithDisableTouchOnHit[string, string]())}
	go e.c.Start()
	return e
}

func (e *ttlcacheEngine) get(key string) (string, bool) {
	item := e.c.Get(key)
	if item == nil {
		return "", false
	}
	return item.Value(), true
}

func (e *ttlcacheEngine) set(key, value string, ttl time.Duration) {
	if ttl == 0 {
		ttl = ttlcache.NoTTL
	}
	e.c.Set(key, value, ttl)
}

func (e *ttlcacheEngine) delete(key string) { e.c.Delete(key) }
func (e *ttlcacheEngine) len() int          { return e.c.Len() }
func (e *ttlcacheEngine) settle()           {}
func (e *ttlcacheEngine) close()            { e.c.Stop() }

// theineEngine is bounded; its bound is twice what it will hold.
type theineEngine struct {
	c *theine.Cache[string, string]
}

func openTheine(c config) engine {
	built, err := theine.NewBuilder[string, string](int64(2 * max(c.entries, 1000))).Build()
	must(err)
	return &theineEngine{built}
}

func (e *theineEngine) get(key string) (string, bool) { return e.c.Get(key) }

func (e *theineEngine) set(key, value string, ttl time.Duration) {
	if !e.c.SetWithTTL(key, value, 1, ttl) {
		panic("theine refused a write")
	}
}

func (e *theineEngine) delete(key string) { e.c.Delete(key) }
func (e *theineEngine) len() int          { return e.c.Len() }
func (e *theineEngine) settle()           { e.c.Wait() }
func (e *theineEngine) close()            { e.c.Close() }
