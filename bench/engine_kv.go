package main

import (
	"context"
	"time"

	"github.com/kvrecipes/kv"
)

type kvEngine struct{ store *kv.Store }

func openKV(c config) engine {
	return &kvEngine{kv.New(&kv.Options{ReapInterval: c.reap})}
}

func (e *kvEngine) get(key string) (string, bool) {
	value, err := e.store.Get(context.Background(), key)
	return value, err == nil
}

func (e *kvEngine) set(key, value string, ttl time.Duration) {
	must(e.store.Set(context.Background(), key, value, ttl))
}

func (e *kvEngine) delete(key string) {
	_, err := e.store.Delete(context.Background(), key)
	must(err)
}

func (e *kvEngine) expire(key string, ttl time.Duration) {
	_, err := e.store.Expire(context.Background(), key, ttl)
	must(err)
}

func (e *kvEngine) incr(key string, delta int64) int64 {
	n, err := e.store.Incr(context.Background(), key, delta, kv.NoExpiry)
	must(err)
	return n
}

func (e *kvEngine) scan(from string, limit int, f func(key, value string)) {
	n := 0
	for entry, err := range e.store.Scan(context.Background(), kv.Range{From: from}) {
		must(err)
		f(entry.Key, entry.Value)
		if n++; n == limit {
			return
		}
	}
}

func (e *kvEngine) len() int { return int(e.store.Stats().Keys) }
func (e *kvEngine) settle()  {}
func (e *kvEngine) close()   { must(e.store.Close()) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
