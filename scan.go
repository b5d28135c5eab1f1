package kv

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"iter"
	"strings"
)

const (
	defaultPageLimit = 100
	deleteBatch      = 1000 // keys that DeletePrefix deletes at a time
)

// Scan yields the live entries of r, each key at most once. In memory they come
// in byte order of the key; every key that is live throughout the scan is
// yielded, keys written or deleted meanwhile may or may not be, and each entry
// is a value that the key really had during the scan.
//
// No lock is held while the body of the loop runs: it may write, delete and
// scan. Breaking out of the loop frees everything. After an error, which is ctx's, [ErrClosed] or the
// engine's, the sequence ends.
//
// On Valkey the order is not promised, and Range.Reverse, From and To are [ErrUnsupported].
func (s *Store) Scan(ctx context.Context, r Range) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if s.root.closed.Load() {
			yield(Entry{}, wrap("scan", r.Prefix, ErrClosed))
			return
		}
		s.engine.Scan(background(ctx), s.wholeRange(r))(func(e Entry, err error) bool {
			if s.root.closed.Load() {
				err = ErrClosed
			}
			if err != nil {
				yield(Entry{}, wrap("scan", r.Prefix, err))
				return false
			}
			e.Key = s.strip(e.Key)
			return yield(e, nil)
		})
	}
}

// Page returns up to limit entries of r, from cursor on, and the cursor of the
// next page. "" as cursor is the beginning, "" as next the end; an empty page
// need not be the end. A limit below 1 means 100, one over 10,000 means 10,000.
//
// The store keeps nothing between pages. A cursor is printable, bound to r and good
// for as long as the data is; one that was changed or made for another range is [ErrCursor].
//
// On Valkey limit is a hint, and a key may come again on a later page.
func (s *Store) Page(ctx context.Context, r Range, cursor string, limit int) (entries []Entry, next string, err error) {
	if s.root.closed.Load() {
		return nil, "", wrap("page", r.Prefix, ErrClosed)
	}
	whole := s.wholeRange(r)
	position, err := openCursor(whole, cursor)
	if err != nil {
		return nil, "", wrap("page", r.Prefix, err)
	}
	if limit < 1 {
		limit = defaultPageLimit
	}
	limit = min(limit, s.root.limits.MaxBatch)
	entries, position, err = s.engine.Page(background(ctx), whole, position, limit)
	if err != nil {
		return nil, "", wrap("page", r.Prefix, err)
	}
	for i := range entries {
		entries[i].Key = s.strip(entries[i].Key)
	}
	return entries, sealCursor(whole, position), nil
}

// Count returns how many live keys begin with prefix. It walks them, as a scan does.
func (s *Store) Count(ctx context.Context, prefix string) (int, error) {
	n := 0
	for _, err := range s.Scan(ctx, Range{Prefix: prefix, KeysOnly: true}) {
		if err != nil {
			return n, relabel("count", err)
		}
		n++
	}
	return n, nil
}

// DeletePrefix deletes the keys that begin with prefix and returns how many were live. It
// is atomic key by key, not together: a key written meanwhile may stay. "" is every key.
func (s *Store) DeletePrefix(ctx context.Context, prefix string) (deleted int, err error) {
	keys := make([]string, 0, deleteBatch)
	flush := func() error {
		n, err := s.deleteBatch(ctx, keys)
		deleted, keys = deleted+n, keys[:0]
		return err
	}
	for e, err := range s.Scan(ctx, Range{Prefix: prefix, KeysOnly: true}) {
		if err != nil {
			return deleted, relabel("deleteprefix", err)
		}
		if keys = append(keys, e.Key); len(keys) == cap(keys) {
			if err := flush(); err != nil {
				return deleted, relabel("deleteprefix", err)
			}
		}
	}
	return deleted, relabel("deleteprefix", flush())
}

func (s *Store) deleteBatch(ctx context.Context, keys []string) (int, error) {
	ops := make([]Op, len(keys))
	for i, key := range keys {
		ops[i] = OpDelete(s.whole(key))
	}
	if s.root.closed.Load() {
		return 0, ErrClosed
	}
	results, err := s.engine.Batch(background(ctx), ops)
	if err == nil {
		err = firstError(results)
	}
	return countOK(results), err
}

// relabel gives err, which another method may have wrapped, the name op.
func relabel(op string, err error) error {
	if e, ok := err.(*Error); ok {
		return wrap(op, e.Key, e.Err)
	}
	return wrap(op, "", err)
}

// wholeRange returns r within the namespace.
func (s *Store) wholeRange(r Range) Range {
	r.Prefix = s.whole(r.Prefix)
	if r.From != "" {
		r.From = s.whole(r.From)
	}
	if r.To != "" {
		r.To = s.whole(r.To)
	}
	return r
}

// A cursor is base64url(checksum of range and position, position). The checksum
// binds it to its range and finds changes by accident; it is no secret, because
// whoever may page through a range gains nothing by beginning elsewhere in it.
const cursorSum = 8

func sealCursor(r Range, position string) string {
	if position == "" {
		return ""
	}
	sum := cursorChecksum(r, position)
	return base64.RawURLEncoding.EncodeToString(append(sum[:], position...))
}

func openCursor(r Range, cursor string) (position string, err error) {
	if cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) <= cursorSum || strings.ContainsAny(cursor, "\r\n") { // which decoding skips
		return "", ErrCursor
	}
	position = string(raw[cursorSum:])
	if sum := cursorChecksum(r, position); string(sum[:]) != string(raw[:cursorSum]) {
		return "", ErrCursor
	}
	return position, nil
}

func cursorChecksum(r Range, position string) (sum [cursorSum]byte) {
	var b []byte
	for _, field := range []string{r.Prefix, r.From, r.To, position} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	if r.Reverse {
		b = append(b, 'r')
	}
	if r.KeysOnly {
		b = append(b, 'k')
	}
	full := sha256.Sum256(b)
	copy(sum[:], full[:])
	return sum
}
