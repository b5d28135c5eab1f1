package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// Codec turns values into the strings that a store keeps, and back. Decode of
// what Encode returned must give an equal value. It is called by many goroutines at once.
type Codec[T any] interface {
	Encode(T) (string, error)
	Decode(string) (T, error)
}

// JSON returns the default codec, which is encoding/json with the places closed where that
// silently changes data:
//
//   - A number that is decoded into an interface (Bucket[any], a map[string]any,
//     a field of type any) becomes a [json.Number] with the digits that were
//     stored, not a float64, so that an int64 past 2^53 stays what it was. A string of digits stays a string.
//   - A string that is not valid UTF-8 is an error of Encode: JSON can't
//     carry it, and encoding/json would put U+FFFD in its place. Bytes belong into a []byte, which
//     travels as base64.
//   - Anything but white space after the value is an error of Decode.
//
// JSON can't carry NaN and infinities, channels, functions, complex numbers and values
// that contain themselves: errors of Encode. It does not carry what
// encoding/json leaves out: unexported fields, the monotonic part and the zone's name of a
// [time.Time], which type an interface held, whether two pointers were the same. Fields that are
// unknown to T are skipped, missing ones keep their zero value, null decodes to the zero
// value. Thus fields may be added and removed while old values are around.
func JSON[T any]() Codec[T] {
	return jsonCodec[T]{dynamic: holdsInterface(reflect.TypeFor[T](), map[reflect.Type]bool{})}
}

// jsonCodec implements Codec. dynamic says that T may contain an interface, and so a number of no type.
type jsonCodec[T any] struct{ dynamic bool }

var (
	errInvalidUTF8  = errors.New("JSON can't carry a string that is not valid UTF-8")
	errTrailingData = errors.New("data after the JSON value")
)

// Encode implements [Codec].
func (c jsonCodec[T]) Encode(v T) (string, error) {
	text, err := encodeJSON(v)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(text) || strings.Contains(text, replaced) && !c.keeps(text) {
		return "", errInvalidUTF8
	}
	return text, nil
}

// replaced is what encoding/json writes for a byte that is not UTF-8. A U+FFFD
// that really is in a string it writes as it is.
const replaced = `\ufffd`

// keeps says whether text, which contains replaced, is the same after a round trip: then it
// was written so by a [json.RawMessage] or another marshaler, or stands after a backslash, and nothing was lost.
func (c jsonCodec[T]) keeps(text string) bool {
	v, err := c.Decode(text)
	if err != nil {
		return false
	}
	again, err := encodeJSON(v)
	return err == nil && again == text
}

func encodeJSON(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// Decode implements [Codec].
func (c jsonCodec[T]) Decode(text string) (v T, err error) {
	if !c.dynamic {
		err = json.Unmarshal([]byte(text), &v)
	} else {
		err = decodeNumbers(text, &v)
	}
	if err != nil {
		var zero T
		return zero, err // not half a value
	}
	return v, nil
}

// decodeNumbers is json.Unmarshal, except that numbers without a type become json.Number.
func decodeNumbers(text string, v any) error {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errTrailingData
	}
	return nil
}

// holdsInterface says whether a value of type t may contain one of an interface type.
func holdsInterface(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return holdsInterface(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if holdsInterface(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// BucketOptions of a [Bucket].
type BucketOptions[T any] struct {
	Codec Codec[T] // nil: JSON
}

// Bucket keeps Go values instead of strings, under a prefix of a store:
//
//	users := kv.NewBucket[User](store, "user", nil)
//	err := users.Set(ctx, "42", User{Name: "Ada"}, kv.NoExpiry) // the store's key is "user:42"
//	ada, err := users.Get(ctx, "42")
//
// Ttl, deadlines and atomicity are those of the store's methods of the same name. A zero value that was
// stored is a value: only for a key that is not there Get returns [ErrNotFound].
//
// Keys are what follows prefix + ":", which is taken as it is; build
// keys from foreign parts with [Key]. The rules for keys are as in [Store.Namespace]. Errors are an
// [*Error] with the key as the caller gave it; that of a codec is its cause. A codec's panic
// goes through to the caller, and nothing has been written then.
//
// A Bucket is safe for concurrent use if its codec is, as [JSON] is.
type Bucket[T any] struct {
	s     *Store // a namespace: its keys are the bucket's
	codec Codec[T]
}

// NewBucket returns a bucket of the keys in s that begin with prefix + ":". opts may be nil.
func NewBucket[T any](s *Store, prefix string, opts *BucketOptions[T]) *Bucket[T] {
	b := &Bucket[T]{s: s.Namespace(prefix)}
	if opts != nil {
		b.codec = opts.Codec
	}
	if b.codec == nil {
		b.codec = JSON[T]()
	}
	return b
}

// Get returns the value of key, or [ErrNotFound] as it is.
func (b *Bucket[T]) Get(ctx context.Context, key string) (T, error) {
	var zero T
	text, err := b.s.Get(ctx, key)
	if err != nil {
		return zero, err
	}
	v, err := b.codec.Decode(text)
	if err != nil {
		return zero, wrap("get", key, err)
	}
	return v, nil
}

// Set stores v under key, as [Store.Set] does.
func (b *Bucket[T]) Set(ctx context.Context, key string, v T, ttl time.Duration) error {
	text, err := b.codec.Encode(v)
	if err != nil {
		return wrap("set", key, err)
	}
	return b.s.Set(ctx, key, text, ttl)
}

// SetNX stores v if key is not live, and says whether it did, as [Store.SetNX] does.
func (b *Bucket[T]) SetNX(ctx context.Context, key string, v T, ttl time.Duration) (stored bool, err error) {
	text, err := b.codec.Encode(v)
	if err != nil {
		return false, wrap("setnx", key, err)
	}
	return b.s.SetNX(ctx, key, text, ttl)
}

// Update stores what f returns for the value of key (the zero value and false
// if it is not live) and returns that, as [Store.Update] does: f may run more
// than once, and its error ends Update, is returned as it is, and nothing is written. Neither is anything if the
// old value can't be decoded: that is an error, and f is not called.
func (b *Bucket[T]) Update(ctx context.Context, key string, ttl time.Duration, f func(old T, exists bool) (T, error)) (T, error) {
	var written T
	_, err := b.s.Update(ctx, key, ttl, func(text string, exists bool) (string, error) {
		var old T
		if exists {
			var err error
			if old, err = b.codec.Decode(text); err != nil {
				return "", wrap("update", key, err)
			}
		}
		v, err := f(old, exists)
		if err != nil {
			return "", err
		}
		written = v
		text, err = b.codec.Encode(v)
		return text, wrap("update", key, err)
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return written, nil
}

// Delete deletes keys and returns how many of them were live, as [Store.Delete] does.
func (b *Bucket[T]) Delete(ctx context.Context, keys ...string) (deleted int, err error) {
	return b.s.Delete(ctx, keys...)
}

// Item is a key of a [Bucket] with its value.
type Item[T any] struct {
	Key       string
	Value     T
	ExpiresAt time.Time // wall-clock time of the deadline; zero: no deadline
}

// Scan yields the live items of r, as [Store.Scan] does. Prefix, From and To of
// r are the bucket's keys, as are those that it yields; with r.KeysOnly no value is read or decoded.
//
// For a value that can't be decoded it yields the item without it, with an [*Error] that names the key,
// and goes on to the next. After any other error the sequence ends.
func (b *Bucket[T]) Scan(ctx context.Context, r Range) iter.Seq2[Item[T], error] {
	return func(yield func(Item[T], error) bool) {
		for e, err := range b.s.Scan(ctx, r) {
			item := Item[T]{Key: e.Key, ExpiresAt: e.ExpiresAt}
			if err == nil && !r.KeysOnly {
				item.Value, err = b.codec.Decode(e.Value)
				err = wrap("scan", e.Key, err)
			}
			if !yield(item, err) {
				return
			}
		}
	}
}
