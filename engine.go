package kv

import (
	"context"
	"iter"
	"time"
)

// Engine keeps the data of a [Store]. Programs hold a Store; an Engine is what
// one writes to put a Store on something else than memory, and package kvtest
// tests whether it keeps this contract.
//
// # What Store guarantees to an Engine
//
//   - ctx is never nil, except in Get.
//   - Keys are whole (the namespace is part of them) and within the limits, as
//     are values, metadata and the sizes of batches.
//   - ttl is [NoExpiry], [KeepTTL] or positive.
//   - No new call comes after Close, which is called once. Calls that are under
//     way may overlap with it.
//
// # What an Engine guarantees to Store
//
//   - It is safe for concurrent use, and every method that takes one key is one
//     atomic step: the history of a key is linearizable.
//   - No method treats a key as live at or after its deadline, by the engine's
//     own clock. [Engine.Now] tells that clock.
//   - Errors are the sentinels of this package, bare, or wrap them. What
//     network engines return for a write that may or may not have happened
//     matches [ErrUnknownOutcome] and its cause.
//   - The value that a method stores is the value it was given, byte for byte.
//   - A ctx that ends never leaves a half-done write behind. An engine in memory
//     may ignore it in methods on one key.
type Engine interface {
	// Now returns the engine's clock as wall-clock time.
	Now(ctx context.Context) (time.Time, error)

	// Get returns the value of key, or ErrNotFound. It is the hot path: ctx may be nil.
	Get(ctx context.Context, key string) (string, error)
	// Entry returns key with its metadata and deadline, or ErrNotFound.
	Entry(ctx context.Context, key string) (Entry, error)
	// TTL returns what remains of key's life, NoExpiry if it has no deadline, or ErrNotFound.
	TTL(ctx context.Context, key string) (time.Duration, error)

	// Set stores value without metadata.
	Set(ctx context.Context, key, value string, ttl time.Duration) error
	// Put stores e whole. A zero e.ExpiresAt is no deadline; one that has passed deletes the key.
	Put(ctx context.Context, e Entry) error
	// SetNX stores value without metadata if key is not live. KeepTTL gives no deadline.
	SetNX(ctx context.Context, key, value string, ttl time.Duration) (bool, error)
	// CompareAndSwap stores new if key is live with the value old. It keeps metadata.
	CompareAndSwap(ctx context.Context, key, old, new string, ttl time.Duration) (bool, error)
	// CompareAndDelete deletes key if it is live with the value old.
	CompareAndDelete(ctx context.Context, key, old string) (bool, error)
	// Incr adds delta to the base-10 int64 under key, 0 if key is not live. ttl
	// applies only when the call creates the key; metadata and deadline of a
	// live key are kept. Errors: ErrNotInteger, ErrOverflow; nothing is written then.
	Incr(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error)
	// Expire gives a live key the deadline that ttl says: NoExpiry removes it,
	// KeepTTL changes nothing and says whether the key is live.
	Expire(ctx context.Context, key string, ttl time.Duration) (bool, error)
	// Delete deletes key and says whether it was live.
	Delete(ctx context.Context, key string) (bool, error)
	// GetDelete returns the value of key and deletes it, or ErrNotFound.
	GetDelete(ctx context.Context, key string) (string, error)
	// GetExpire returns the value of key and gives it the deadline that ttl says, or ErrNotFound.
	GetExpire(ctx context.Context, key string, ttl time.Duration) (string, error)
	// Take applies [Quota.Take] to the state under key and stores what it
	// returns, in one atomic step on the engine's clock. With dry it stores
	// nothing. A value that is no such state is ErrWrongType.
	Take(ctx context.Context, key string, q Quota, n int64, dry bool) (Usage, error)

	// Batch applies ops independently of each other, in as few round trips as
	// the engine can. Result i belongs to ops[i]; operations on the same key
	// apply in order. The engine must not change ops, nor keep it.
	Batch(ctx context.Context, ops []Op) ([]Result, error)
	// Txn applies ops in order and isolated if every condition holds, as one
	// atomic step. ok is false and results nil if one does not. An operation
	// that fails fails the transaction: then nothing is applied, and the error
	// is an *Error that names that operation's key. ErrCrossSlot if the engine can't span the keys.
	Txn(ctx context.Context, conds []Cond, ops []Op) (ok bool, results []Result, err error)

	// Scan yields the live entries of r, each key at most once; every key that
	// is live throughout the scan is yielded. An ordered engine yields them in
	// byte order; one that is not returns ErrUnsupported for Range.Reverse, From and To. No lock is
	// held while the consumer's body runs. It ends with ctx's error.
	Scan(ctx context.Context, r Range) iter.Seq2[Entry, error]
	// Page returns entries of r from the position cursor on ("" is the
	// beginning), about limit of them, and the next position ("" is the end).
	// Positions are the engine's own, any bytes; Store binds them to the range and
	// makes them printable. ErrCursor for a position that the engine did not make.
	Page(ctx context.Context, r Range, cursor string, limit int) ([]Entry, string, error)

	// Watch subscribes to the changes of keys that begin with prefix. From its return on it
	// passes each to sink, per key in the order of the writes, until stop is
	// called or sink says that it has ended. It never blocks a write on sink.
	// What it can't deliver ends sink with ErrLagged.
	Watch(ctx context.Context, prefix string, sink *Sink) (stop func(), err error)

	// Stats returns counts of the whole engine; one that can't know a count returns 0 there.
	Stats() Stats
	// Close frees what the engine holds and waits for its goroutines.
	Close() error
}
