package kv

import "context"

// AlreadyProcessed marks an event and says whether it was marked before, be
// it by Process, in one atomic step: of many callers one gets false. The mark stays
// for TTL. While Process is running the event it is [ErrInProgress].
//
// Mark first and handle then, and an event whose handler fails is lost;
// [Idempotency.Process] loses none.
func (i *Idempotency) AlreadyProcessed(ctx context.Context, eventID string) (bool, error) {
	c := i.claim("alreadyprocessed", eventSpace, eventID, "")
	mark := receipt{kind: receiptEvent, rest: newToken()}.encode()
	for {
		if err := background(ctx).Err(); err != nil {
			return false, wrap(c.op, c.name, err)
		}
		marked, _, err := takeLease(ctx, i.store, c.key, mark, i.ttl)
		if marked || err != nil {
			return false, err
		}
		switch r, err := c.look(ctx); {
		case err != nil:
			return false, err
		case r.kind == receiptEvent:
			return true, nil
		case r.kind == receiptPending:
			return false, wrap(c.op, c.name, ErrInProgress)
		case r.kind == receiptResult:
			return false, wrap(c.op, c.name, ErrWrongType)
		}
	}
}

// Process calls f for the event, unless that was done before, and marks the event
// for TTL when f has succeeded. processed is true if this call did so, and false without an error
// for a duplicate.
//
// If f fails, its error is returned as it is and the event is not marked: when it is delivered again, f
// runs again. So f should take effect in one step, or be able to run twice. Other errors are those of
// [Idempotency.Execute]; a duplicate of an event that is being processed gets [ErrInProgress], and
// its sender should deliver it again later.
func (i *Idempotency) Process(ctx context.Context, eventID string, f func(context.Context) error) (processed bool, err error) {
	c := i.claim("process", eventSpace, eventID, "")
	ctx = background(ctx)
	done, err := c.take(ctx)
	if err != nil {
		return false, err
	}
	if c.lease == nil {
		if done.kind != receiptEvent {
			err = wrap(c.op, c.name, ErrWrongType)
		}
		return false, err
	}
	err = c.run(ctx, func(ctx context.Context) (keeper, error) {
		return func(int) receipt { return receipt{kind: receiptEvent, rest: newToken()} }, f(ctx)
	})
	return err == nil, err
}
