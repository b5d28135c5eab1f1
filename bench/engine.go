package main

import (
	"fmt"
	"slices"
	"time"
)

// An engine is one store under test. An adapter translates and does nothing
// else: no check, no copy and no lock that the peer does not ask of its users.
type engine interface {
	get(key string) (value string, found bool)
	// set stores value; ttl is 0 for none. A store that may drop a write does it again until it is taken.
	set(key, value string, ttl time.Duration)
	delete(key string)
	// len counts entries, those that are due but not reclaimed yet among them.
	len() int
	// settle waits for writes that the store does behind the caller's back.
	settle()
	close()
}

// What some engines can do on top.
type (
	expirer interface {
		// expire gives an existing key a new deadline in one call.
		expire(key string, ttl time.Duration)
	}
	incrementer interface {
		incr(key string, delta int64) int64
	}
	scanner interface {
		// scan calls f with up to limit entries in the order of the keys, from the key from on.
		scan(from string, limit int, f func(key, value string))
	}
)

// config says what an engine will have to hold, for those that want to know.
type config struct {
	entries   int           // most that it will hold at once
	keyBytes  int           // of one key
	valueSize int           // of one value
	ttl       time.Duration // that (nearly) every entry will get; 0: none
	reap      time.Duration // how often expired entries shall be removed, where that can be chosen
}

// A peer is an entry of the table of engines.
type peer struct {
	name   string // on the command line and in tables
	module string // path of the module, whose version goes into the results; "" for the standard library
	note   string // what a reader of the tables must know about it
	ttl    bool   // has a deadline per entry
	reaps  bool   // removes what is due by itself
	lazy   bool   // does so only after several seconds, which a smoke run doesn't wait for
	redis  bool   // needs a server
	open   func(config) engine
}

var peers = []peer{
	{name: "kv", module: "github.com/kvrecipes/kv", ttl: true, reaps: true, open: openKV},
	{name: "buntdb", module: "github.com/tidwall/buntdb", ttl: true, reaps: true, open: openBuntDB,
		note: "`:memory:`; one `View` or `Update` transaction a call"},
	{name: "btree", module: "github.com/tidwall/btree", open: openBTree, note: "`Map` behind a `sync.RWMutex`"},
	{name: "map", open: openMap, note: "Go map behind a `sync.RWMutex`"},
	{name: "sync.Map", open: openSyncMap},
	{name: "xsync", module: "github.com/puzpuzpuz/xsync/v4", open: openXSync},
	{name: "otter", module: "github.com/maypok86/otter/v2", ttl: true, reaps: true, open: openOtter,
		note: "unbounded; `ExpiryWriting` where entries have a TTL"},
	{name: "ristretto", module: "github.com/dgraph-io/ristretto/v2", ttl: true, reaps: true, lazy: true, open: openRistretto,
		note: "ten counters an entry and room for twice the entries; keeps hashes instead of keys; a `Set` that it drops is repeated, and inserts include `Wait`"},
	{name: "go-cache", module: "github.com/patrickmn/go-cache", ttl: true, reaps: true, open: openGoCache},
	{name: "ttlcache", module: "github.com/jellydator/ttlcache/v3", ttl: true, reaps: true, open: openTTLCache,
		note: "`WithDisableTouchOnHit`, for a `Get` that changes no deadline"},
	{name: "freecache", module: "github.com/coocood/freecache", ttl: true, open: openFreecache,
		note: "`Get` copies the value; deadlines in whole seconds; removes nothing by itself"},
	{name: "bigcache", module: "github.com/allegro/bigcache/v3", ttl: true, open: openBigcache,
		note: "`Get` copies the value; one TTL for all; an overwritten value stays in its queue until its window is over"},
	{name: "theine", module: "github.com/Yiling-J/theine-go", ttl: true, reaps: true, open: openTheine,
		note: "room for twice the entries"},
}

func findPeer(list []peer, name string) (peer, error) {
	i := slices.IndexFunc(list, func(p peer) bool { return p.name == name })
	if i < 0 {
		return peer{}, fmt.Errorf("no engine called %q", name)
	}
	return list[i], nil
}
