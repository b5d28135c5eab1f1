package kv

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"time"
)

// SessionOptions of [NewSessions]. The zero value of each field is its default.
// With a negative duration every method fails with [ErrInvalidTTL].
type SessionOptions[T any] struct {
	Prefix  string        // of the store's keys; "": "session"
	IdleTTL time.Duration // a session ends when it has not been used for this long; 0: 24 h
	MaxAge  time.Duration // a session ends this long after its creation, however much it is used; 0: no bound
	Codec   Codec[T]      // of the data; nil: [JSON]
}

// Sessions keeps data under unguessable ids: the login sessions of a web
// application, say. Make one with [NewSessions]. It is safe for concurrent use,
// and any number of processes may share the sessions of one store.
//
// [Sessions.Create] returns the id for the cookie, [Sessions.Get] is what each
// request calls, and [Sessions.Update] changes the data. Call [Sessions.Rotate]
// whenever the user's rights change, at login above all: it gives the session a
// new id, so that one which an attacker planted or saw before is worth nothing.
// Call [Sessions.Destroy] at logout.
//
// An id is 256 bits from crypto/rand as 43 characters of base64url, which need
// no escaping in cookies, headers and URLs. The store holds only its SHA-256:
// whoever reads the store, a backup or a log can take over no session. No error
// contains an id.
//
// A session ends when it has been idle for IdleTTL, MaxAge after its creation
// (by the store's clock) or when it is destroyed, whichever comes first. Nothing
// brings it back: every write on an existing session is a compare-and-swap or
// moves its deadline, and an id is never given twice. Ids that are
// unknown, ended or malformed can't be told apart: each is [ErrNotFound], for every method.
type Sessions[T any] struct {
	store  *Store
	prefix string // of the keys, with its ":"
	idle   time.Duration
	maxAge time.Duration // 0: no bound
	codec  Codec[T]
}

// invalidTTL makes every write of the store fail with ErrInvalidTTL.
const invalidTTL = KeepTTL - 1

// NewSessions returns sessions kept in s. opts may be nil. Processes that share
// sessions need the same options.
func NewSessions[T any](s *Store, opts *SessionOptions[T]) *Sessions[T] {
	var o SessionOptions[T]
	if opts != nil {
		o = *opts
	}
	if o.Prefix == "" {
		o.Prefix = "session"
	}
	if o.IdleTTL == 0 {
		o.IdleTTL = 24 * time.Hour
	}
	if o.IdleTTL < 0 || o.MaxAge < 0 {
		o.IdleTTL, o.MaxAge = invalidTTL, 0
	}
	if o.Codec == nil {
		o.Codec = JSON[T]()
	}
	return &Sessions[T]{
		store:  s,
		prefix: Key(o.Prefix, ""),
		idle:   o.IdleTTL,
		maxAge: o.MaxAge,
		codec:  o.Codec,
	}
}

// Create begins a session with data and returns its id, which only the client
// should keep.
func (m *Sessions[T]) Create(ctx context.Context, data T) (id string, err error) {
	id, key := m.newID()
	now, err := m.store.Now(ctx)
	if err != nil {
		return "", err
	}
	value, err := m.seal(key, now, data)
	if err != nil {
		return "", err
	}
	ttl := m.idle
	if m.maxAge > 0 {
		ttl = min(ttl, m.maxAge)
	}
	// Set, not SetNX: an engine that had to repeat the write would find its own
	// first try, and 256 random bits don't collide.
	if err := m.store.Set(ctx, key, value, ttl); err != nil {
		return "", err
	}
	return id, nil
}

// Get returns the data of the session and puts its idle deadline off.
//
// Without MaxAge that is one step of the store; with it, three. Data that the
// codec can't decode is the codec's error, what no Sessions wrote [ErrWrongType].
func (m *Sessions[T]) Get(ctx context.Context, id string) (T, error) {
	var none T
	key, ok := m.key(id)
	if !ok {
		return none, ErrNotFound
	}
	value, err := m.touch(ctx, key)
	if err != nil {
		return none, bareNotFound(err)
	}
	_, data, err := m.open(key, value)
	return data, err
}

// touch returns the value of key and puts its deadline off.
func (m *Sessions[T]) touch(ctx context.Context, key string) (string, error) {
	if m.maxAge == 0 {
		return m.store.GetExpire(ctx, key, m.idle)
	}
	value, ttl, err := m.read(ctx, key)
	if err != nil {
		return "", err
	}
	// The time of creation never changes under one key, so this deadline is
	// right for whatever data the session has by now.
	found, err := m.store.Expire(ctx, key, ttl)
	if err == nil && !found {
		err = ErrNotFound
	}
	return value, err
}

// Update calls f with the data of the session, stores what f returns, puts the
// idle deadline off and returns the stored data. If another change came between,
// it starts again with that: f may run more than once, and no change is lost. f
// may call the store and these sessions.
//
// An error of f is returned as it is, a panic passes through, and both leave the
// session as it was. A session that ends while f runs, or whose id is
// rotated, is [ErrNotFound], and nothing is written. Update retries until it wins or ctx ends.
func (m *Sessions[T]) Update(ctx context.Context, id string, f func(T) (T, error)) (T, error) {
	var none T
	key, ok := m.key(id)
	if !ok {
		return none, ErrNotFound
	}
	ctx = background(ctx)
	for {
		if err := ctx.Err(); err != nil {
			return none, wrap("update", key, err)
		}
		data, done, err := m.tryUpdate(ctx, key, f)
		if err != nil {
			return none, err
		}
		if done {
			return data, nil
		}
		runtime.Gosched() // let the winner of the race get on
	}
}

// tryUpdate is one round of Update; done is false if another write came between.
func (m *Sessions[T]) tryUpdate(ctx context.Context, key string, f func(T) (T, error)) (data T, done bool, err error) {
	old, err := m.store.Get(ctx, key)
	if err != nil {
		return data, false, bareNotFound(err)
	}
	began := time.Now()
	left, err := m.left(ctx, key, old)
	if err != nil {
		return data, false, err
	}
	created, data, err := m.open(key, old)
	if err != nil {
		return data, false, err
	}
	if data, err = f(data); err != nil {
		return data, false, err
	}
	value, err := m.seal(key, created, data)
	if err != nil {
		return data, false, err
	}
	if left -= time.Since(began); left <= 0 { // f took all the time there was
		return data, false, ErrNotFound
	}
	done, err = m.store.CompareAndSwap(ctx, key, old, value, min(m.idle, left))
	return data, done, err
}

// Rotate gives the session a new id and ends the old one. The data, the time of
// creation and what is left of MaxAge stay. Of several callers one gets the new
// id, the others [ErrNotFound]. An Update that succeeded under the old id is part of
// the session under the new one, and one that comes too late fails.
//
// The new id is stored before the old one is deleted, so that the session is
// never lost, not even between two nodes of a cluster; nobody knows the
// new id until Rotate returns it. A process that dies between the two leaves a
// key that nobody can reach, until its idle deadline. If the store doesn't say
// whether the old id is gone ([ErrUnknownOutcome]), Rotate ends the new one, too: the user may
// have to log in again, but no session goes on that was meant to end.
func (m *Sessions[T]) Rotate(ctx context.Context, id string) (newID string, err error) {
	from, ok := m.key(id)
	if !ok {
		return "", ErrNotFound
	}
	ctx = background(ctx)
	newID, to := m.newID()
	tried := false
	defer func() {
		if err != nil && tried { // as well as we can: without that, it goes at its deadline
			_, _ = m.store.Delete(context.WithoutCancel(ctx), to)
		}
	}()
	for {
		value, ttl, err := m.read(ctx, from)
		if err != nil {
			return "", err
		}
		tried = true
		if err := m.store.Set(ctx, to, value, ttl); err != nil {
			return "", err
		}
		// Where the client has gone away meanwhile, finish all the same: a write
		// that is broken off would be one of unknown outcome.
		moved, err := m.store.CompareAndDelete(context.WithoutCancel(ctx), from, value)
		if err != nil {
			return "", err
		}
		if moved {
			return newID, nil
		}
		if err := ctx.Err(); err != nil {
			return "", wrap("rotate", from, err)
		}
		runtime.Gosched() // an Update came between: take its data along
	}
}

// read returns the stored session under key, and the ttl of one that is used now.
func (m *Sessions[T]) read(ctx context.Context, key string) (value string, ttl time.Duration, err error) {
	value, err = m.store.Get(ctx, key)
	if err != nil {
		return "", 0, bareNotFound(err)
	}
	left, err := m.left(ctx, key, value)
	return value, min(m.idle, left), err
}

// Destroy ends the session. It goes on when ctx ends, because a client that logs
// out often goes away at once. [ErrNotFound] says that there was nothing to end
// any more; most callers ignore it.
func (m *Sessions[T]) Destroy(ctx context.Context, id string) error {
	key, ok := m.key(id)
	if !ok {
		return ErrNotFound
	}
	n, err := m.store.Delete(context.WithoutCancel(background(ctx)), key)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// newID returns a new id and the key of its session.
func (m *Sessions[T]) newID() (id, key string) {
	var b [sessionIDBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	id = base64.RawURLEncoding.EncodeToString(b[:])
	key, _ = m.key(id)
	return id, key
}

// key returns the key of the session id; ok is false if id can't be one.
func (m *Sessions[T]) key(id string) (key string, ok bool) {
	return sessionKey(m.prefix, id)
}

const (
	sessionIDBytes  = 32
	sessionIDLength = (sessionIDBytes*8 + 5) / 6 // in base64
)

func sessionKey(prefix, id string) (key string, ok bool) {
	var raw [sessionIDLength]byte // a conversion would allocate
	if len(id) != len(raw) {
		return "", false
	}
	copy(raw[:], id)
	sum := sha256.Sum256(raw[:])
	buf := append(make([]byte, 0, 128), prefix...)
	return string(base64.RawURLEncoding.AppendEncode(buf, sum[:])), true
}

// left returns what is left of MaxAge for the session value under key,
// ErrNotFound if nothing.
//
// The key's deadline alone would not do: the store gets it as a duration, and a
// process that is paused between reading the clock and writing would push it out.
// So each method asks here first, and no session outlives MaxAge for any of them.
func (m *Sessions[T]) left(ctx context.Context, key, value string) (time.Duration, error) {
	if m.maxAge == 0 {
		return math.MaxInt64, nil
	}
	created, _, err := openSession(value)
	if err != nil {
		return 0, wrap("session", key, err)
	}
	now, err := m.store.Now(ctx)
	if err != nil {
		return 0, err
	}
	age := max(now.Sub(created), 0) // a server's clock may be set back
	if age >= m.maxAge {
		return 0, ErrNotFound
	}
	return m.maxAge - age, nil
}

// A stored session is the version of its format, its time of creation in
// nanoseconds since 1970 (8 bytes, big endian), and the encoded data.
const (
	sessionVersion = '1'
	sessionHeader  = 1 + 8
)

func (m *Sessions[T]) seal(key string, created time.Time, data T) (string, error) {
	encoded, err := m.codec.Encode(data)
	if err != nil {
		return "", wrap("session", key, err)
	}
	var header [sessionHeader]byte
	header[0] = sessionVersion
	binary.BigEndian.PutUint64(header[1:], uint64(created.UnixNano()))
	return string(header[:]) + encoded, nil
}

func (m *Sessions[T]) open(key, value string) (created time.Time, data T, err error) {
	created, encoded, err := openSession(value)
	if err == nil {
		data, err = m.codec.Decode(encoded)
	}
	if err != nil {
		var none T
		return created, none, wrap("session", key, err)
	}
	return created, data, nil
}

func openSession(value string) (created time.Time, encoded string, err error) {
	if len(value) < sessionHeader || value[0] != sessionVersion {
		return time.Time{}, "", ErrWrongType
	}
	nanos := binary.BigEndian.Uint64([]byte(value[1:sessionHeader]))
	return time.Unix(0, int64(nanos)), value[sessionHeader:], nil
}

// bareNotFound returns ErrNotFound for an error that wraps it, which would name
// the key, and other errors as they are.
func bareNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return ErrNotFound
	}
	return err
}
