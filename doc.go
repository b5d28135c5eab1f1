// Package kv is an embeddable key-value store for Go services, with the recipes
// that such stores are used for: locks, rate limits, idempotent requests,
// caches without stampedes, sessions and feature flags.
//
// A [Store] keeps strings under string keys, in memory or on a server, and
// forgets them when their time is up:
//
//	store := kv.New(nil)
//	defer store.Close()
//	err := store.Set(ctx, "greeting", "hello", time.Minute)
//	value, err := store.Get(ctx, "greeting")      // "hello", for a minute
//	_, err = store.Get(ctx, "nothing")            // kv.ErrNotFound
//
// # Primitives
//
// Most programs want [Store.Get], [Store.Set], [Store.Incr], [Store.SetNX] and
// [Store.Delete]. [Store.CompareAndSwap], [Store.CompareAndDelete] and
// [Store.Update] change a value only as it was known; [Store.Put] and
// [Store.Entry] carry metadata and an absolute deadline. [Store.Scan] and
// [Store.Page] list keys under a prefix, [Store.Batch] sends independent
// operations together, [Store.Txn] applies operations under conditions, all or
// nothing, and [Store.Watch] reports changes. [Bucket] keeps Go values instead of strings.
//
// [Store.Namespace] gives the same data under a prefix, so that parts of a program
// share a store without knowing each other's keys. [Key] builds keys from
// parts that come from outside.
//
// # Recipes
//
// They are plain types over a *Store, the same on every engine:
//
//   - [Locker]: one holder at a time, with a lease, renewal, and a fencing token.
//   - [RateLimiter]: fixed window, sliding window or token bucket.
//   - [Idempotency]: a request or an event that comes twice takes effect once.
//   - [Guarded]: a value that is computed once however many ask for it, and kept.
//   - [Sessions]: random ids, sliding expiry, rotation.
//   - [Flags]: features on, off or on for a percentage, without a read per question.
//
// # Time to live
//
// A ttl means the same in every method: [NoExpiry] (0) is no deadline; a
// positive ttl sets the deadline to now + ttl on the engine's clock, never the
// caller's; [KeepTTL] (-1) keeps the deadline that the key has. Any other negative
// ttl is [ErrInvalidTTL], and nothing is written. [Store.Incr] applies its ttl
// only when it creates the key.
//
// A key at its deadline is gone: no read, scan, count, condition or watch sees it
// then, however late its memory is reclaimed. In memory deadlines are
// monotonic, to the nanosecond: setting the machine's clock moves none.
//
// # Guarantees
//
// Every method on one key is one atomic step, and the history of each key is
// linearizable (of [Store.Update] it is the write that is the step). [Store.SetMany], [Store.GetMany], [Store.Delete] and
// [Store.DeletePrefix] are atomic key by key, not together; [Store.Txn] is atomic across its keys. All
// types are safe for concurrent use by many goroutines.
//
// Errors are sentinels such as [ErrNotFound], for [errors.Is], in an [*Error]
// that names the operation and the key and never a value.
//
// # Memory
//
// The default engine keeps everything in memory and nothing on disk: what is in it
// goes with the process. Set copies what it is given. Get copies nothing: small
// values lie together in chunks of 32 KiB, and a string from Get keeps its
// chunk from being collected. Who keeps small values for long clones them ([strings.Clone]).
//
// A store that is forgotten without [Store.Close] leaks nothing. It has no
// goroutine that waits, and no timer while no key has a deadline, so it may live in a bubble
// of [testing/synctest], where a day of expiry passes in an instant.
//
// # Several processes
//
// Package github.com/kvrecipes/kv/valkeykv gives the same *Store on Valkey or
// Redis; primitives and recipes go on working across processes. Who writes an
// [Engine] of their own tests it with package kvtest.
package kv
