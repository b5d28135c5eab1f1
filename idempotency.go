package kv

import (
	"context"
	"errors"
	"time"
)

// IdempotencyOptions of [NewIdempotency]. The zero value of each field is its
// default. With a negative TTL or ClaimTTL every method fails with [ErrInvalidTTL].
type IdempotencyOptions struct {
	Prefix   string        // of the store's keys; "": "idempotency"
	TTL      time.Duration // how long after its completion a result is replayed, or an event known; 0: 24 h
	ClaimTTL time.Duration // lease of running work, renewed meanwhile: so long after a worker's death its work can be done again; 0: 30 s
	Wait     time.Duration // how long a duplicate of running work waits for it; 0: not at all
}

// Idempotency makes work that is asked for twice take effect once. Make one with
// [NewIdempotency]; any number of processes may share the keys of one store. It is safe for concurrent use.
//
//   - [Idempotency.Execute] is for requests with a key that the client chose
//     (the Idempotency-Key header, draft-ietf-httpapi-idempotency-key-header): the first call does
//     the work, and every later one gets the same response.
//   - [Once] is the same for results of any type.
//   - [Idempotency.Process] is for events that are delivered at least once, webhooks say, and are
//     delivered again when their handler fails: one is processed until that succeeds, and then no more.
//   - [Idempotency.AlreadyProcessed] only marks an event and says whether it was
//     marked before; for handlers that may lose an event rather than see it twice.
//
// # What a call does
//
// It claims the key, in one atomic step, with a lease that it renews while it
// works. Then the work succeeds, and its result is kept for TTL; or it returns an error, panics or calls
// [runtime.Goexit], and the claim is released: nothing is kept, the error is
// returned or the panic goes on, and the next call works anew. If the process dies, the claim ends ClaimTTL after its last renewal.
//
// A duplicate that comes while the work is running fails with [ErrInProgress],
// with Wait after that time. If it waits and the work fails, it does the
// work itself; of many that wait, one at a time does.
//
// The fingerprint says what the work is: a hash of the request, say. A call with the
// key of other work fails with [ErrMismatch], whether that is running or done. It is kept as
// it is, so hash what is long or secret.
//
// # The context of the work
//
// It ends with the caller's: work that heeds it fails then, and is released. A server whose
// work should go on when its client goes away passes [context.WithoutCancel]
// of the request's context. In either case the claim is completed or released, for which the caller's context does not matter.
//
// If the claim is lost, because the store could not be reached for ClaimTTL or the process was
// suspended, the context ends with [ErrLockLost] as its [context.Cause]. Then the call
// returns an error that matches ErrLockLost, keeps nothing and leaves the successor's
// claim and result alone.
//
// # What it does not do
//
// It can't undo. Work that took effect and then failed, or whose process died before the
// result was recorded, is done again: pass the key on to what the work calls, or write the effect
// in the same transaction. When the store fails at completion, it is tried again until the claim
// has ended; if that fails, the call returns what the work returned, with the error.
type Idempotency struct {
	store    *Store
	prefix   string
	ttl      time.Duration
	claimTTL time.Duration
	wait     time.Duration
	wakes    *wakes
}

// The key spaces under the prefix.
const (
	keySpace   = "key"
	eventSpace = "event"
)

// NewIdempotency returns an Idempotency on s. opts may be nil.
func NewIdempotency(s *Store, opts *IdempotencyOptions) *Idempotency {
	var o IdempotencyOptions
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = "idempotency"
	}
	if o.TTL == 0 {
		o.TTL = 24 * time.Hour
	}
	if o.ClaimTTL == 0 {
		o.ClaimTTL = 30 * time.Second
	}
	if o.TTL < 0 || o.ClaimTTL < 0 {
		o.TTL, o.ClaimTTL = invalidTTL, invalidTTL
	}
	return &Idempotency{
		store:    s,
		prefix:   o.Prefix,
		ttl:      o.TTL,
		claimTTL: o.ClaimTTL,
		wait:     o.Wait,
		wakes:    newWakes(s, Key(o.Prefix, "")),
	}
}

func (i *Idempotency) claim(op, space, name, fingerprint string) *claim {
	return &claim{of: i, op: op, name: name, key: Key(i.prefix, space, name), fingerprint: fingerprint}
}

// Execute calls f, unless the work of key has been done, and returns its
// response; replay says that it comes from an earlier call. It equals what f returned
// byte for byte, nil and empty included, and shares no memory with anyone.
//
// A response over the store's limit of a value has happened all the same: this call returns it,
// and it is recorded without its body (and without its header if that alone is too large).
// Every duplicate gets that, with replay true and [ErrTooLarge].
//
// Other errors are f's, as it is; [ErrInProgress], [ErrMismatch] and [ErrLockLost], see [Idempotency];
// [ErrWrongType] if something else keeps values under the key; ctx's while waiting; and the store's.
func (i *Idempotency) Execute(ctx context.Context, key, fingerprint string, f func(context.Context) (Response, error)) (resp Response, replay bool, err error) {
	return i.execute(ctx, key, fingerprint, func(ctx context.Context) (Response, uint64, error) {
		resp, err := f(ctx)
		return resp, partHeader | partBody, err
	})
}

// errUnreadable is what duplicates get of work whose result could not be encoded.
var errUnreadable = errors.New("the work is done, but its result could not be encoded")

// execute is Execute for an f that says which parts of its response to keep.
func (i *Idempotency) execute(ctx context.Context, key, fingerprint string, f func(context.Context) (Response, uint64, error)) (resp Response, replay bool, err error) {
	c := i.claim("execute", keySpace, key, fingerprint)
	ctx = background(ctx)
	done, err := c.take(ctx)
	if err != nil {
		return Response{}, false, err
	}
	if c.lease == nil {
		resp, err = c.replay(done)
		return resp, true, err
	}
	err = c.run(ctx, func(ctx context.Context) (keeper, error) {
		r, parts, err := f(ctx)
		if err != nil {
			return nil, err
		}
		resp = r
		return c.keeper(r, parts), nil
	})
	return resp, false, err
}

// keeper keeps all of resp that parts names, or less: no body, nor header.
func (c *claim) keeper(resp Response, parts uint64) keeper {
	return func(less int) receipt {
		keep := [leastKept + 1]uint64{parts, parts&^partBody | partTooLarge, partTooLarge}[less]
		return receipt{kind: receiptResult, fingerprint: c.fingerprint, rest: encodeResponse(resp, keep)}
	}
}

// replay returns the response that r keeps.
func (c *claim) replay(r receipt) (Response, error) {
	resp, parts, ok := decodeResponse(r.rest)
	switch {
	case r.kind != receiptResult || !ok:
		return Response{}, wrap(c.op, c.name, ErrWrongType)
	case parts&partTooLarge != 0:
		return resp, wrap(c.op, c.name, ErrTooLarge)
	case parts&partUnreadable != 0:
		return resp, wrap(c.op, c.name, errUnreadable)
	}
	return resp, nil
}

// Once is [Idempotency.Execute] for a result of any type, which it keeps as
// JSON; see [JSON] for what that can't carry. It has the same keys as Execute. This call
// returns f's result as it is, a duplicate gets a copy.
//
// A result that can't be encoded has happened all the same. This call returns
// it with the error of encoding it; nobody runs f again, and every duplicate gets an error, with replay true.
func Once[T any](ctx context.Context, i *Idempotency, key, fingerprint string, f func(context.Context) (T, error)) (v T, replay bool, err error) {
	var unreadable error
	resp, replay, err := i.execute(ctx, key, fingerprint, func(ctx context.Context) (Response, uint64, error) {
		result, err := f(ctx)
		if err != nil {
			return Response{}, 0, err
		}
		v = result
		var encoded string
		if encoded, unreadable = JSON[T]().Encode(v); unreadable != nil {
			return Response{}, partUnreadable, nil
		}
		return Response{Body: []byte(encoded)}, partBody, nil
	})
	switch {
	case err != nil:
	case unreadable != nil:
		err = wrap("once", key, unreadable)
	case replay:
		if v, err = JSON[T]().Decode(string(resp.Body)); err != nil {
			err = wrap("once", key, err)
		}
	}
	return v, replay, err
}
