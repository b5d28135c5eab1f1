package kv

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Store is a key-value store. Make one with [New] (in memory) or with an engine
// package's constructor; the methods are the same everywhere, and safe for
// concurrent use.
//
// Every method on a single key is one atomic step, and the history of each key
// is linearizable. A key at or after its deadline does not exist for any
// method. A nil ctx counts as [context.Background].
//
// Close a Store when it is no longer needed. One in memory that is forgotten
// instead is collected like any other value, and so is what it holds.
type Store struct {
	engine Engine
	prefix string // of the namespace, with its ":"; "" for the whole store
	root   *root
}

// root is what a store and its namespaces share.
type root struct {
	closed atomic.Bool
	limits Options
	done   chan struct{} // closed by Close
	once   sync.Once
	err    error // of the engine's Close; read after once

	mu       sync.Mutex
	watchers map[*Watcher]struct{} // guarded by mu; nil after Close
}

// New returns an empty store in memory. opts may be nil.
func New(opts *Options) *Store {
	o := opts.withDefaults()
	return NewWithEngine(newMemory(o), &o)
}

// NewWithEngine returns a store on e, which belongs to the store from then on.
// It is for packages that provide an [Engine]. opts may be nil.
func NewWithEngine(e Engine, opts *Options) *Store {
	return &Store{engine: e, root: &root{
		limits:   opts.withDefaults(),
		done:     make(chan struct{}),
		watchers: make(map[*Watcher]struct{}),
	}}
}

// Namespace returns the same data under the prefix name + ":". Its keys have
// the same rules as those of the store, except that the limit of length counts
// the whole key. Closing a namespace does nothing, and it goes on working; it
// ends with the store that it comes from.
func (s *Store) Namespace(name string) *Store {
	return &Store{engine: s.engine, prefix: s.prefix + name + ":", root: s.root}
}

// Now returns the time on the engine's clock, which deadlines are measured on.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if s.root.closed.Load() {
		return time.Time{}, wrap("now", "", ErrClosed)
	}
	now, err := s.engine.Now(background(ctx))
	return now, wrap("now", "", err)
}

// Close ends every watch, scan and waiting recipe with [ErrClosed], and waits for
// the store's goroutines. It may be called often and from
// many goroutines; each call returns when the store is closed. On a namespace it does nothing.
func (s *Store) Close() error {
	if s.prefix != "" {
		return nil
	}
	r := s.root
	r.once.Do(func() {
		r.closed.Store(true)
		close(r.done)
		r.endWatchers()
		r.err = s.engine.Close()
	})
	return wrap("close", "", r.err)
}

// Stats returns counts of the whole store, all its namespaces together; zeros once it is closed.
func (s *Store) Stats() Stats {
	if s.root.closed.Load() {
		return Stats{}
	}
	return s.engine.Stats()
}

// Get returns the value of key, or [ErrNotFound] as it is. In memory it
// allocates nothing (in a namespace, the joined key), whatever the size of the
// value. The string it returns shares memory with others of about its age, up to 32 KiB, which stay while
// one of them is in use: whoever keeps small values for long saves memory with [strings.Clone].
func (s *Store) Get(ctx context.Context, key string) (string, error) {
	if err := s.check(key); err != nil {
		return "", wrap("get", key, err)
	}
	value, err := s.engine.Get(ctx, s.whole(key))
	if err != nil && err != ErrNotFound {
		err = wrap("get", key, err)
	}
	return value, err
}

// Entry returns key with its metadata and deadline, or [ErrNotFound].
func (s *Store) Entry(ctx context.Context, key string) (Entry, error) {
	if err := s.check(key); err != nil {
		return Entry{}, wrap("entry", key, err)
	}
	e, err := s.engine.Entry(background(ctx), s.whole(key))
	if err != nil {
		return Entry{}, wrap("entry", key, err)
	}
	e.Key = key
	return e, nil
}

// GetMany returns the values of keys; missing ones are absent from the map. It
// is atomic key by key, not together. Up to 10,000 keys, else [ErrTooLarge].
func (s *Store) GetMany(ctx context.Context, keys ...string) (map[string]string, error) {
	ops := make([]Op, len(keys))
	for i, key := range keys {
		ops[i] = OpGet(key)
	}
	results, err := s.many(ctx, "getmany", ops)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(keys))
	for i, r := range results {
		if r.OK {
			values[keys[i]] = r.Value
		}
	}
	return values, nil
}

// GetDelete returns the value of key and deletes it in one step, or
// [ErrNotFound]: of many callers one gets the value. It suits one-time tokens.
func (s *Store) GetDelete(ctx context.Context, key string) (string, error) {
	if err := s.check(key); err != nil {
		return "", wrap("getdelete", key, err)
	}
	value, err := s.engine.GetDelete(background(ctx), s.whole(key))
	return value, wrap("getdelete", key, err)
}

// GetExpire returns the value of key and gives it a new deadline in one step,
// or [ErrNotFound]. It suits sliding expiry. [NoExpiry] removes the deadline.
func (s *Store) GetExpire(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := s.checkWrite(key, "", ttl); err != nil {
		return "", wrap("getexpire", key, err)
	}
	value, err := s.engine.GetExpire(background(ctx), s.whole(key), ttl)
	return value, wrap("getexpire", key, err)
}

// Exists says whether key is live.
func (s *Store) Exists(ctx context.Context, key string) (bool, error) {
	if err := s.check(key); err != nil {
		return false, wrap("exists", key, err)
	}
	_, err := s.engine.TTL(background(ctx), s.whole(key))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, wrap("exists", key, err)
}

// TTL returns what remains of key's life, [NoExpiry] if it has no deadline, or [ErrNotFound].
func (s *Store) TTL(ctx context.Context, key string) (time.Duration, error) {
	if err := s.check(key); err != nil {
		return 0, wrap("ttl", key, err)
	}
	ttl, err := s.engine.TTL(background(ctx), s.whole(key))
	return ttl, wrap("ttl", key, err)
}

// Set stores value under key. Metadata that the key had is dropped. The store
// copies key and value: neither keeps a larger string alive that it is a part of.
func (s *Store) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	if err := s.checkWrite(key, value, ttl); err != nil {
		return wrap("set", key, err)
	}
	return wrap("set", key, s.engine.Set(background(ctx), s.whole(key), value, ttl))
}

// SetMany stores entries, each as [Store.Set] does. It is atomic key by key,
// not together, but checks every argument before it stores the first. Up to 10,000 entries, else [ErrTooLarge].
func (s *Store) SetMany(ctx context.Context, entries map[string]string, ttl time.Duration) error {
	ops := make([]Op, 0, len(entries))
	for key, value := range entries {
		ops = append(ops, OpSet(key, value, ttl))
	}
	_, err := s.many(ctx, "setmany", ops)
	return err
}

// Put stores an entry with its metadata, which must be JSON or "", and with an
// absolute deadline. A zero ExpiresAt means no deadline; with one that has passed the key is deleted.
// In memory one more than some 292 years away counts as that far away.
func (s *Store) Put(ctx context.Context, e Entry) error {
	if err := s.checkWrite(e.Key, e.Value, NoExpiry); err != nil {
		return wrap("put", e.Key, err)
	}
	if err := s.checkMetadata(e.Metadata); err != nil {
		return wrap("put", e.Key, err)
	}
	key := e.Key
	e.Key = s.whole(key)
	return wrap("put", key, s.engine.Put(background(ctx), e))
}

// SetNX stores value, without metadata, if key is not live, and says whether it
// did: of many callers one stores. The key and its deadline are made in one step.
func (s *Store) SetNX(ctx context.Context, key, value string, ttl time.Duration) (stored bool, err error) {
	if err := s.checkWrite(key, value, ttl); err != nil {
		return false, wrap("setnx", key, err)
	}
	stored, err = s.engine.SetNX(background(ctx), s.whole(key), value, ttl)
	return stored, wrap("setnx", key, err)
}

// CompareAndSwap stores new if key is live with exactly the value old, and says
// whether it did. A missing key is not an error but false. Metadata is kept.
//
// With [KeepTTL] the key keeps its deadline, so that the lock of a crashed owner
// still expires; with a positive ttl and old == new it renews a lease, never somebody else's.
func (s *Store) CompareAndSwap(ctx context.Context, key, old, new string, ttl time.Duration) (swapped bool, err error) {
	if err := s.checkWrite(key, new, ttl); err != nil {
		return false, wrap("compareandswap", key, err)
	}
	swapped, err = s.engine.CompareAndSwap(background(ctx), s.whole(key), old, new, ttl)
	return swapped, wrap("compareandswap", key, err)
}

// CompareAndDelete deletes key if it is live with exactly the value old, and says whether it did.
func (s *Store) CompareAndDelete(ctx context.Context, key, old string) (deleted bool, err error) {
	if err := s.check(key); err != nil {
		return false, wrap("compareanddelete", key, err)
	}
	deleted, err = s.engine.CompareAndDelete(background(ctx), s.whole(key), old)
	return deleted, wrap("compareanddelete", key, err)
}

// Update reads key, calls f with its value ("" and false if it is not live),
// stores what f returns, and returns that. If another write came between, it
// starts again: f may run more than once. It holds no lock of the store, so f
// may call the store. An error of f ends Update, is returned as it is, and
// nothing is written.
//
// Update keeps metadata. It retries until it wins or ctx ends, whose error it
// then returns. A counter is better served by [Store.Incr].
func (s *Store) Update(ctx context.Context, key string, ttl time.Duration, f func(old string, exists bool) (string, error)) (string, error) {
	if err := s.checkWrite(key, "", ttl); err != nil {
		return "", wrap("update", key, err)
	}
	ctx = background(ctx)
	for {
		if err := ctx.Err(); err != nil {
			return "", wrap("update", key, err)
		}
		value, done, err := s.tryUpdate(ctx, key, ttl, f)
		if done {
			return value, err
		}
		runtime.Gosched() // let the winner of the race get on
	}
}

// tryUpdate is one round of Update; done is false if another write came between.
func (s *Store) tryUpdate(ctx context.Context, key string, ttl time.Duration, f func(old string, exists bool) (string, error)) (value string, done bool, err error) {
	if s.root.closed.Load() {
		return "", true, wrap("update", key, ErrClosed)
	}
	whole := s.whole(key)
	old, err := s.engine.Get(ctx, whole)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", true, wrap("update", key, err)
	}
	value, err = f(old, exists)
	if err != nil {
		return "", true, err
	}
	if err := s.checkWrite(key, value, ttl); err != nil {
		return "", true, wrap("update", key, err)
	}
	if exists {
		done, err = s.engine.CompareAndSwap(ctx, whole, old, value, ttl)
	} else {
		done, err = s.engine.SetNX(ctx, whole, value, ttl)
	}
	if err != nil {
		return "", true, wrap("update", key, err)
	}
	return value, done, nil
}

// Incr adds delta, which may be negative, to the base-10 int64 under key and
// returns the sum. A missing key counts as 0.
//
// ttl applies only when this call creates the key, in the same atomic step: no
// counter is ever left without its deadline, and none has it pushed ahead.
// [ErrNotInteger] if the value is not an int64 as Go prints it, [ErrOverflow] if the sum is none;
// both leave value and deadline as they were. Metadata is kept.
func (s *Store) Incr(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	if err := s.checkWrite(key, "", ttl); err != nil {
		return 0, wrap("incr", key, err)
	}
	sum, err := s.engine.Incr(background(ctx), s.whole(key), delta, ttl)
	return sum, wrap("incr", key, err)
}

// Expire gives key a new deadline and says whether the key was live. With
// [NoExpiry] the key persists; with [KeepTTL] nothing changes. Value and metadata are kept.
func (s *Store) Expire(ctx context.Context, key string, ttl time.Duration) (found bool, err error) {
	if err := s.checkWrite(key, "", ttl); err != nil {
		return false, wrap("expire", key, err)
	}
	found, err = s.engine.Expire(background(ctx), s.whole(key), ttl)
	return found, wrap("expire", key, err)
}

// Delete deletes keys and returns how many of them were live. It is atomic key
// by key, not together, but checks every key before it deletes the first. Up to 10,000 keys, else [ErrTooLarge].
func (s *Store) Delete(ctx context.Context, keys ...string) (deleted int, err error) {
	if len(keys) == 1 {
		return s.deleteOne(ctx, keys[0])
	}
	ops := make([]Op, len(keys))
	for i, key := range keys {
		ops[i] = OpDelete(key)
	}
	results, err := s.many(ctx, "delete", ops)
	return countOK(results), err
}

func (s *Store) deleteOne(ctx context.Context, key string) (int, error) {
	if err := s.check(key); err != nil {
		return 0, wrap("delete", key, err)
	}
	found, err := s.engine.Delete(background(ctx), s.whole(key))
	if found {
		return 1, wrap("delete", key, err)
	}
	return 0, wrap("delete", key, err)
}

func countOK(results []Result) int {
	n := 0
	for _, r := range results {
		if r.OK {
			n++
		}
	}
	return n
}

// take applies [Quota.Take] to the state under key, in one atomic step.
func (s *Store) take(ctx context.Context, key string, q Quota, n int64, dry bool) (Usage, error) {
	if err := s.check(key); err != nil {
		return Usage{}, wrap("take", key, err)
	}
	u, err := s.engine.Take(background(ctx), s.whole(key), q, n, dry)
	return u, wrap("take", key, err)
}

// done is closed when the store closes.
func (s *Store) done() <-chan struct{} { return s.root.done }

// whole returns key with the namespace's prefix.
func (s *Store) whole(key string) string {
	if s.prefix == "" {
		return key
	}
	return s.prefix + key
}

// strip returns a whole key as the user of s sees it.
func (s *Store) strip(whole string) string {
	if s.prefix == "" {
		return whole
	}
	return strings.TrimPrefix(whole, s.prefix)
}

// check returns what is wrong with a call on key, nil if nothing.
func (s *Store) check(key string) error {
	if s.root.closed.Load() {
		return ErrClosed
	}
	return s.checkKey(key)
}

func (s *Store) checkKey(key string) error {
	if len(key) == 0 || len(s.prefix)+len(key) > s.root.limits.MaxKeyBytes || key == "." || key == ".." {
		return ErrInvalidKey
	}
	return nil
}

// checkWrite is check for a call that writes value with ttl.
func (s *Store) checkWrite(key, value string, ttl time.Duration) error {
	if err := s.check(key); err != nil {
		return err
	}
	if ttl < KeepTTL {
		return ErrInvalidTTL
	}
	if len(value) > s.root.limits.MaxValueBytes {
		return ErrTooLarge
	}
	return nil
}

func (s *Store) checkMetadata(metadata string) error {
	if len(metadata) > s.root.limits.MaxMetadataBytes {
		return ErrTooLarge
	}
	if metadata != "" && !json.Valid([]byte(metadata)) {
		return ErrInvalidMetadata
	}
	return nil
}

func background(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}
