package main

import (
	"strconv"
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"github.com/tidwall/btree"
)

// mapEngine is the store that everybody writes first.
type mapEngine struct {
	mu sync.RWMutex
	m  map[string]string
}

func openMap(config) engine { return &mapEngine{m: make(map[string]string)} }

func (e *mapEngine) get(key string) (string, bool) {
	e.mu.RLock()
	value, found := e.m[key]
	e.mu.RUnlock()
	return value, found
}

func (e *mapEngine) set(key, value string, _ time.Duration) {
	e.mu.Lock()
	e.m[key] = value
	e.mu.Unlock()
}

func (e *mapEngine) delete(key string) {
	e.mu.Lock()
	delete(e.m, key)
	e.mu.Unlock()
}

func (e *mapEngine) incr(key string, delta int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := parseInt(e.m[key]) + delta
	e.m[key] = strconv.FormatInt(n, 10)
	return n
}

func (e *mapEngine) len() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return len(e.m)
}

func (e *mapEngine) settle() {}
func (e *mapEngine) close()  {}

// btreeEngine is an ordered map behind a lock.
type btreeEngine struct {
	mu sync.RWMutex
	m  btree.Map[string, string]
}

func openBTree(config) engine { return new(btreeEngine) }

func (e *btreeEngine) get(key string) (string, bool) {
	e.mu.RLock()
	value, found := e.m.Get(key)
	e.mu.RUnlock()
	return value, found
}

func (e *btreeEngine) set(key, value string, _ time.Duration) {
	e.mu.Lock()
	e.m.Set(key, value)
	e.mu.Unlock()
}

func (e *btreeEngine) delete(key string) {
	e.mu.Lock()
	e.m.Delete(key)
	e.mu.Unlock()
}

func (e *btreeEngine) incr(key string, delta int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	old, _ := e.m.Get(key)
	n := parseInt(old) + delta
	e.m.Set(key, strconv.FormatInt(n, 10))
	return n
}

func (e *btreeEngine) scan(from string, limit int, f func(key, value string)) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	n := 0
	e.m.Ascend(from, func(key, value string) bool {
		f(key, value)
		n++
		return n != limit
	})
}

func (e *btreeEngine) len() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.m.Len()
}

func (e *btreeEngine) settle() {}
func (e *btreeEngine) close()  {}

// syncMapEngine is the map of the standard library.
type syncMapEngine struct{ m sync.Map }

func openSyncMap(config) engine { return new(syncMapEngine) }

func (e *syncMapEngine) get(key string) (string, bool) {
	value, found := e.m.Load(key)
	if !found {
		return "", false
	}
	return value.(string), true
}

func (e *syncMapEngine) set(key, value string, _ time.Duration) { e.m.Store(key, value) }
func (e *syncMapEngine) delete(key string)                      { e.m.Delete(key) }

func (e *syncMapEngine) incr(key string, delta int64) int64 {
	for {
		old, found := e.m.Load(key)
		if !found {
			old, _ = e.m.LoadOrStore(key, "0")
		}
		n := parseInt(old.(string)) + delta
		if e.m.CompareAndSwap(key, old, strconv.FormatInt(n, 10)) {
			return n
		}
	}
}

func (e *syncMapEngine) len() int {
	n := 0
	for range e.m.Range {
		n++
	}
	return n
}

func (e *syncMapEngine) settle() {}
func (e *syncMapEngine) close()  {}

// xsyncEngine is a concurrent hash map.
type xsyncEngine struct{ m *xsync.Map[string, string] }

func openXSync(config) engine { return &xsyncEngine{xsync.NewMap[string, string]()} }

func (e *xsyncEngine) get(key string) (string, bool)          { return e.m.Load(key) }
func (e *xsyncEngine) set(key, value string, _ time.Duration) { e.m.Store(key, value) }
func (e *xsyncEngine) delete(key string)                      { e.m.Delete(key) }
func (e *xsyncEngine) incr(key string, delta int64) (n int64) {
	e.m.Compute(key, func(old string, _ bool) (string, xsync.ComputeOp) {
		n = parseInt(old) + delta
		return strconv.FormatInt(n, 10), xsync.UpdateOp
	})
	return n
}
func (e *xsyncEngine) len() int { return e.m.Size() }
func (e *xsyncEngine) settle()  {}
func (e *xsyncEngine) close()   {}
