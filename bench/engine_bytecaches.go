package main

import (
	"context"
	"math"
	"strconv"
	"time"
	"unsafe"

	"github.com/allegro/bigcache/v3"
	"github.com/coocood/freecache"
)

// The caches below store bytes that they copy, going in and coming out. The adapters
// convert between strings and bytes without a copy of their own.

func bytesOf(s string) []byte  { return unsafe.Slice(unsafe.StringData(s), len(s)) }
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// freecacheEngine allocates all its memory at the start.
type freecacheEngine struct{ c *freecache.Cache }

func openFreecache(c config) engine {
	const header, segments = 24, 256
	mean := float64(c.entries) / segments
	fullest := mean + 6*math.Sqrt(mean) + 4 // entries of the fullest segment; keys are spread by hash
	size := int(segments*fullest)*(header+c.keyBytes+c.valueSize)*11/10 + 1<<20
	size = max(size, 2*1024*(c.valueSize+c.keyBytes+header)) // the largest entry is 1/1024 of the whole
	return &freecacheEngine{freecache.NewCache(size)}
}

func (e *freecacheEngine) get(key string) (string, bool) {
	value, err := e.c.Get(bytesOf(key))
	return stringOf(value), err == nil
}

func (e *freecacheEngine) set(key, value string, ttl time.Duration) {
	must(e.c.Set(bytesOf(key), bytesOf(value), int(ttl/time.Second)))
}

func (e *freecacheEngine) delete(key string) { e.c.Del(bytesOf(key)) }

func (e *freecacheEngine) expire(key string, ttl time.Duration) {
	must(e.c.Touch(bytesOf(key), int(ttl/time.Second)))
}

func (e *freecacheEngine) incr(key string, delta int64) (n int64) {
	_, _, err := e.c.Update(bytesOf(key), func(old []byte, _ bool) ([]byte, bool, int) {
		n = parseInt(stringOf(old)) + delta
		return strconv.AppendInt(nil, n, 10), true, 0
	})
	must(err)
	return n
}

func (e *freecacheEngine) len() int {
	if n := e.c.EvacuateCount(); n > 0 {
		panic("freecache evicted " + strconv.FormatInt(n, 10) + " entries")
	}
	return int(e.c.EntryCount())
}

func (e *freecacheEngine) settle() {}
func (e *freecacheEngine) close()  {}

// bigcacheEngine has one deadline for all of its entries.
type bigcacheEngine struct{ c *bigcache.BigCache }

func openBigcache(c config) engine {
	window := c.ttl
	if window == 0 {
		window = 24 * time.Hour
	}
	options := bigcache.DefaultConfig(window)
	options.MaxEntriesInWindow = c.entries
	options.MaxEntrySize = c.keyBytes + c.valueSize
	options.Verbose = false
	built, err := bigcache.New(context.Background(), options)
	must(err)
	return &bigcacheEngine{built}
}

func (e *bigcacheEngine) get(key string) (string, bool) {
	value, err := e.c.Get(key)
	return stringOf(value), err == nil
}

func (e *bigcacheEngine) set(key, value string, _ time.Duration) {
	must(e.c.Set(key, bytesOf(value)))
}

func (e *bigcacheEngine) delete(key string) { _ = e.c.Delete(key) } // its error says that the key was not there
func (e *bigcacheEngine) len() int          { return e.c.Len() }
func (e *bigcacheEngine) settle()           {}
func (e *bigcacheEngine) close()            { must(e.c.Close()) }
