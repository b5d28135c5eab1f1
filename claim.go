package kv

import (
	"context"
	"errors"
	"time"
)

// A claim is one call's right to do the work of a key. The key goes through these states:
//
//	             take: SetNX                 complete: swap pending for done
//	missing ───────────────────► pending(token, fingerprint) ───────────────────► done(fingerprint, result)
//	   ▲  ▲                        │  renewed while f runs                           │
//	   │  └────────────────────────┘                                                 │
//	   │   release: f failed, panicked or exited; or ClaimTTL after its process died │
//	   └─────────────────────────────────────────────────────────────────────────────┘
//	                                                  TTL after completion
//
// Every write but the first is a compare-and-swap or compare-and-delete of the
// exact pending receipt, whose token no other claim has: a worker that has lost its claim changes nothing.
type claim struct {
	of          *Idempotency
	op, name    string // for errors: the method, and the key as its user knows it
	key         string // in the store
	fingerprint string
	lease       *lease // nil until taken
}

// take takes the claim, or returns the receipt of the work that was done
// before. While another call has it, it waits up to Wait.
func (c *claim) take(ctx context.Context) (receipt, error) {
	pending := receipt{kind: receiptPending, fingerprint: c.fingerprint, rest: newToken()}.encode()
	w := claimWait{claim: c}
	defer w.end()
	for {
		if err := ctx.Err(); err != nil {
			return receipt{}, wrap(c.op, c.name, err)
		}
		taken, began, err := takeLease(ctx, c.of.store, c.key, pending, c.of.claimTTL)
		if err != nil {
			return receipt{}, err
		}
		if taken {
			c.lease = holdLease(ctx, c.of.store, c.key, pending, began, leaseOptions{ttl: c.of.claimTTL})
			return receipt{}, nil
		}
		r, err := c.look(ctx)
		if err != nil || r.kind == receiptResult || r.kind == receiptEvent {
			return r, err
		}
		if r.kind == receiptPending {
			if err := w.wait(ctx); err != nil {
				return receipt{}, c.wrap(err)
			}
		}
	}
}

// wrap names the call in an error that does not name one yet.
func (c *claim) wrap(err error) error {
	if _, named := err.(*Error); named {
		return err
	}
	return wrap(c.op, c.name, err)
}

// look reads the key's receipt, a zero one if the key is missing, and compares the fingerprint.
func (c *claim) look(ctx context.Context) (receipt, error) {
	raw, err := c.of.store.Get(ctx, c.key)
	if err == ErrNotFound {
		return receipt{}, nil
	}
	if err != nil {
		return receipt{}, err
	}
	r, ok := parseReceipt(raw)
	if !ok {
		return receipt{}, wrap(c.op, c.name, ErrWrongType)
	}
	if r.fingerprint != c.fingerprint {
		return receipt{}, wrap(c.op, c.name, ErrMismatch)
	}
	return r, nil
}

// A keeper says what to keep of work that was done. The greater less is, the smaller the receipt.
type keeper func(less int) receipt

const leastKept = 2 // the greatest less

// run calls f under the claim, and completes the claim with the largest receipt
// of f's keeper that the store takes. If f fails, panics or exits, run releases the claim.
func (c *claim) run(ctx context.Context, f func(context.Context) (keeper, error)) error {
	returned := false
	defer func() {
		if !returned { // a panic or Goexit, which goes on
			_ = c.lease.release(ctx)
		}
	}()
	keep, err := c.call(ctx, f)
	returned = true
	if err != nil {
		return c.failed(ctx, err)
	}
	for less := range leastKept + 1 {
		if err = c.complete(ctx, keep(less).encode()); !errors.Is(err, ErrTooLarge) {
			break
		}
	}
	return err
}

// call calls f with a context that ends with ctx, and when the claim is lost.
func (c *claim) call(ctx context.Context, f func(context.Context) (keeper, error)) (keeper, error) {
	held := c.lease.context() // which has the values of ctx
	if ctx.Done() == nil {
		return f(held)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
	defer stop()
	return f(ctx)
}

// failed releases the claim and returns f's error, with ErrLockLost if the claim was lost, which may
// be why f failed.
func (c *claim) failed(ctx context.Context, err error) error {
	lost := !c.lease.alive()
	released := c.lease.release(ctx) // failing that, it ends at its deadline
	if lost || errors.Is(released, ErrLockLost) {
		return errors.Join(wrap(c.op, c.name, ErrLockLost), err)
	}
	return err
}

// The pause before a completion that failed is tried again.
const (
	firstCompletePause = 10 * time.Millisecond
	maxCompletePause   = time.Second
)

// complete puts done in the place of the pending receipt. The work has
// been done, and what is not recorded will be done again; so while the store
// fails, it goes on trying for as long as the claim can live, whether or not the caller still waits.
func (c *claim) complete(ctx context.Context, done string) error {
	s, until := c.of.store, time.Now().Add(c.of.claimTTL)
	for pause := firstCompletePause; ; pause = min(2*pause, maxCompletePause) {
		err := c.lease.complete(ctx, done, c.of.ttl)
		if err == nil || final(err) || time.Until(until) < pause {
			return c.wrap(err)
		}
		select {
		case <-time.After(pause):
		case <-s.done():
			return wrap(c.op, c.name, ErrClosed)
		}
	}
}

// final says that trying again can't help.
func final(err error) bool {
	return errors.Is(err, ErrLockLost) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrClosed) || errors.Is(err, ErrInvalidTTL)
}

// claimWait waits for the end of another call's claim.
type claimWait struct {
	claim *claim
	wake  *wake     // nil before the first wait
	until time.Time // Wait after that
}

// wait returns nil when it is time to look again: the key has changed, or the
// claim ends unless it is renewed.
func (w *claimWait) wait(ctx context.Context) error {
	c := w.claim
	if c.of.wait <= 0 {
		return ErrInProgress
	}
	if w.wake == nil {
		w.until = time.Now().Add(c.of.wait)
		var err error
		w.wake, err = c.of.wakes.subscribe(c.key)
		return err // look at once: the key may have changed before
	}
	left := time.Until(w.until)
	if left <= 0 {
		return ErrInProgress
	}
	ttl, err := c.of.store.TTL(ctx, c.key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if ttl != NoExpiry {
		left = min(left, ttl)
	}
	return w.wake.wait(ctx, left)
}

func (w *claimWait) end() {
	if w.wake != nil {
		w.wake.cancel()
	}
}
