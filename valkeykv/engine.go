package valkeykv

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// engine is a [kv.Engine] on a server or a cluster.
type engine struct {
	client  valkey.Client
	owned   bool // client was made by Open: Close closes it
	cluster bool
	hub     *hub

	calls  calls
	health *health
}

var _ kv.Engine = (*engine)(nil)

func newEngine(client valkey.Client, owned bool) *engine {
	e := &engine{
		client:  client,
		owned:   owned,
		cluster: client.Mode() == valkey.ClientModeCluster,
		health:  newHealth(),
	}
	e.hub = newHub(e)
	return e
}

// do sends a command.
func (e *engine) do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	if ctx == nil {
		ctx = context.Background()
	}
	return e.doOn(ctx, e.client, cmd)
}

// doOn sends a command to one node.
func (e *engine) doOn(ctx context.Context, client valkey.Client, cmd valkey.Completed) valkey.ValkeyResult {
	if ctx.Done() == nil {
		return client.Do(ctx, cmd) // without the closure
	}
	return await(ctx, e, func() valkey.ValkeyResult { return client.Do(ctx, cmd) }, valkey.NewErrorResult, valkey.ValkeyResult.NonValkeyError)
}

// doMulti sends commands in one round trip for each node.
func (e *engine) doMulti(ctx context.Context, cmds ...valkey.Completed) []valkey.ValkeyResult {
	return e.doMultiOn(ctx, e.client, cmds...)
}

// doMultiOn sends commands to one node in one round trip.
func (e *engine) doMultiOn(ctx context.Context, client valkey.Client, cmds ...valkey.Completed) []valkey.ValkeyResult {
	return await(ctx, e, func() []valkey.ValkeyResult { return client.DoMulti(ctx, cmds...) },
		func(err error) []valkey.ValkeyResult { return sameError(len(cmds), err) }, firstFailure)
}

// firstFailure returns the first error that is no answer of a server.
func firstFailure(results []valkey.ValkeyResult) error {
	for _, r := range results {
		if err := r.NonValkeyError(); err != nil {
			return err
		}
	}
	return nil
}

func sameError(n int, err error) []valkey.ValkeyResult {
	results := make([]valkey.ValkeyResult, n)
	for i := range results {
		results[i] = valkey.NewErrorResult(err)
	}
	return results
}

// Now implements [kv.Engine]. The server keeps a key through the whole of the
// millisecond that its deadline names. On a clock that is one millisecond
// behind the server's, keys therefore die exactly at their deadlines, as the contract wants it.
func (e *engine) Now(ctx context.Context) (time.Time, error) {
	// TIME has no key. In a cluster each node has its own clock: take always the same.
	cmd := e.client.B().Time().Build().SetSlot("").ToRetryable()
	fields, err := e.do(ctx, cmd).AsIntSlice()
	if err != nil {
		return time.Time{}, readFault(err)
	}
	return time.Unix(fields[0], fields[1]*int64(time.Microsecond)).Add(-time.Millisecond), nil
}

// Get implements [kv.Engine].
func (e *engine) Get(ctx context.Context, key string) (string, error) {
	return found(e.do(ctx, e.client.B().Get().Key(key).Build()), readFault)
}

// found returns the value that the server answered, or ErrNotFound.
func found(r valkey.ValkeyResult, fault func(error) error) (string, error) {
	raw, err := r.ToString()
	switch {
	case err == nil:
		value, _ := unseal(raw)
		return value, nil
	case valkey.IsValkeyNil(err):
		return "", kv.ErrNotFound
	}
	return "", fault(err)
}

// Entry implements [kv.Engine].
func (e *engine) Entry(ctx context.Context, key string) (kv.Entry, error) {
	r := e.run(ctx, entryScript, []string{key})
	fields, err := r.ToArray()
	switch {
	case err == nil:
		entry, _ := decodeEntry(key, fields)
		return entry, nil
	case valkey.IsValkeyNil(err):
		return kv.Entry{}, kv.ErrNotFound
	}
	return kv.Entry{}, readFault(err)
}

// decodeEntry returns the entry of key that a script answered; false if the key was not there.
func decodeEntry(key string, fields []valkey.ValkeyMessage) (kv.Entry, bool) {
	if len(fields) != 2 {
		return kv.Entry{}, false
	}
	raw, _ := fields[0].ToString()
	ms, _ := fields[1].AsInt64()
	entry := kv.Entry{Key: key, ExpiresAt: deadline(ms)}
	entry.Value, entry.Metadata = unseal(raw)
	return entry, true
}

// deadline returns the time of a deadline in milliseconds since 1970; negative is none.
func deadline(ms int64) time.Time {
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// TTL implements [kv.Engine].
func (e *engine) TTL(ctx context.Context, key string) (time.Duration, error) {
	ms, err := e.do(ctx, e.client.B().Pttl().Key(key).Build()).AsInt64()
	switch {
	case err != nil:
		return 0, readFault(err)
	case ms == -2:
		return 0, kv.ErrNotFound
	case ms == -1:
		return kv.NoExpiry, nil
	}
	// 0 is the millisecond of the deadline, through which the key lives.
	ms = min(max(ms, 1), int64(math.MaxInt64/time.Millisecond))
	return time.Duration(ms) * time.Millisecond, nil
}

// Set implements [kv.Engine].
func (e *engine) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	return e.one(ctx, kv.OpSet(key, value, ttl)).Err
}

// SetNX implements [kv.Engine].
func (e *engine) SetNX(ctx context.Context, key, value string, ttl time.Duration) (bool, error) {
	r := e.one(ctx, kv.OpSetNX(key, value, ttl))
	return r.OK, r.Err
}

// Incr implements [kv.Engine].
func (e *engine) Incr(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	r := e.one(ctx, kv.OpIncr(key, delta, ttl))
	return r.Int, r.Err
}

// Expire implements [kv.Engine].
func (e *engine) Expire(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	r := e.one(ctx, kv.OpExpire(key, ttl))
	return r.OK, r.Err
}

// Delete implements [kv.Engine].
func (e *engine) Delete(ctx context.Context, key string) (bool, error) {
	r := e.one(ctx, kv.OpDelete(key))
	return r.OK, r.Err
}

// Put implements [kv.Engine].
func (e *engine) Put(ctx context.Context, entry kv.Entry) error {
	raw := seal(entry.Value, entry.Metadata)
	var r valkey.ValkeyResult
	if entry.ExpiresAt.IsZero() {
		r = e.do(ctx, e.client.B().Set().Key(entry.Key).Value(raw).Build())
	} else {
		r = e.run(ctx, putScript, []string{entry.Key}, raw, strconv.FormatInt(deadlineMS(entry.ExpiresAt), 10))
	}
	return writeFault(r.Error())
}

// lastDeadline is the end of the year 9999. No deadline is later: the sums and
// doubles that a server computes with are then far from their limits.
var lastDeadline = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// deadlineMS returns at in milliseconds since 1970, rounded up; 0 for times before.
func deadlineMS(at time.Time) int64 {
	if at.After(lastDeadline) {
		at = lastDeadline
	}
	if at.Before(time.Unix(0, 0)) {
		return 0
	}
	return at.Add(time.Millisecond - 1).UnixMilli()
}

// ttlMS returns ttl in milliseconds, rounded up.
func ttlMS(ttl time.Duration) int64 { return int64((ttl-1)/time.Millisecond) + 1 }

// ttlArg returns ttl as the scripts take it.
func ttlArg(ttl time.Duration) string {
	switch ttl {
	case kv.NoExpiry:
		return ""
	case kv.KeepTTL:
		return "keep"
	}
	return strconv.FormatInt(ttlMS(ttl), 10)
}

// CompareAndSwap implements [kv.Engine].
func (e *engine) CompareAndSwap(ctx context.Context, key, old, new string, ttl time.Duration) (bool, error) {
	swapped, err := e.run(ctx, casScript, []string{key}, old, new, ttlArg(ttl)).AsBool()
	return swapped, writeFault(err)
}

// CompareAndDelete implements [kv.Engine].
func (e *engine) CompareAndDelete(ctx context.Context, key, old string) (bool, error) {
	deleted, err := e.run(ctx, cadScript, []string{key}, old).AsBool()
	return deleted, writeFault(err)
}

// GetDelete implements [kv.Engine].
func (e *engine) GetDelete(ctx context.Context, key string) (string, error) {
	return found(e.do(ctx, e.client.B().Getdel().Key(key).Build()), writeFault)
}

// GetExpire implements [kv.Engine].
func (e *engine) GetExpire(ctx context.Context, key string, ttl time.Duration) (string, error) {
	b := e.client.B().Getex().Key(key)
	switch ttl {
	case kv.KeepTTL:
		return e.Get(ctx, key)
	case kv.NoExpiry:
		return found(e.do(ctx, b.Persist().Build()), writeFault)
	}
	return found(e.do(ctx, b.PxMilliseconds(ttlMS(ttl)).Build()), writeFault)
}

// refillLetters are the kinds of quotas as the stored states name them.
var refillLetters = map[kv.Refill]string{kv.RefillWindow: "w", kv.RefillSliding: "s", kv.RefillSteady: "g"}

// Take implements [kv.Engine].
func (e *engine) Take(ctx context.Context, key string, q kv.Quota, n int64, dry bool) (kv.Usage, error) {
	if _, _, _, err := q.Take("", 0, n); err != nil { // checks q and n
		return kv.Usage{}, err
	}
	store := ""
	if dry {
		store = "1"
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	r := e.run(ctx, takeScript, []string{key}, refillLetters[q.Refill], number(q.Capacity), number(q.Amount),
		number(q.Period.Microseconds()), number(max(n, -q.Capacity)), store)
	fields, err := r.AsIntSlice()
	if err != nil {
		return kv.Usage{}, writeFault(err)
	}
	return kv.Usage{
		OK:         fields[0] == 1,
		Used:       fields[1],
		RetryAfter: time.Duration(fields[2]) * time.Microsecond,
		ResetAfter: time.Duration(fields[3]) * time.Microsecond,
	}, nil
}

// statsTimeout bounds Stats, which has no context.
const statsTimeout = 2 * time.Second

// Stats implements [kv.Engine]. Keys is the sum of DBSIZE, so it counts keys of
// other programs; Expired is the server's own count since it started; Bytes is 0, because no server
// counts them. What can't be had within two seconds is 0.
func (e *engine) Stats() (s kv.Stats) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	nodes, err := e.nodes(ctx)
	if err != nil {
		return s
	}
	for _, n := range nodes {
		b := n.client.B()
		answers := e.doMultiOn(ctx, n.client, b.Dbsize().Build(), b.Info().Section("stats").Build())
		keys, _ := answers[0].AsInt64()
		info, _ := answers[1].ToString()
		expired, _ := strconv.ParseInt(infoField(info, "expired_keys"), 10, 64)
		s.Keys, s.Expired = s.Keys+keys, s.Expired+expired
	}
	return s
}

// Close implements [kv.Engine].
func (e *engine) Close() error {
	e.calls.close()
	e.hub.close()
	if e.owned {
		e.client.Close()
	}
	e.calls.wait()
	return nil
}
