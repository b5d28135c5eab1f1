package kv_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// roundTrip stores v in a bucket and returns what comes back.
func roundTrip[T any](t *testing.T, v T) T {
	t.Helper()
	s := kv.New(nil)
	defer s.Close()
	b := kv.NewBucket[T](s, "bucket", nil)
	require.NoError(t, b.Set(t.Context(), "key", v, kv.NoExpiry))
	got, err := b.Get(t.Context(), "key")
	require.NoError(t, err)
	return got
}

type account struct {
	Name    string            `json:"name"`
	Balance int64             `json:"balance,omitempty"`
	Limit   uint64            `json:",omitempty"`
	Rate    float64           `json:",omitempty"`
	Key     []byte            `json:",omitempty"`
	Tags    map[string]string `json:",omitempty"`
	Parent  *account          `json:",omitempty"`
	Extra   any               `json:",omitempty"`
}

func requireRoundTrip[T any](t *testing.T, values ...T) {
	t.Helper()
	for _, v := range values {
		require.Equal(t, v, roundTrip(t, v))
	}
}

func TestBucketKeepsValues(t *testing.T) {
	requireRoundTrip(t, int64(0), 1, -1, math.MaxInt64, math.MinInt64, 1<<53+1)
	requireRoundTrip(t, uint64(0), math.MaxUint64)
	requireRoundTrip(t, 0.0, 0.1, 1e300, 5e-324, math.MaxFloat64, math.Copysign(0, -1))
	require.True(t, math.Signbit(roundTrip(t, math.Copysign(0, -1))))
	requireRoundTrip(t, float32(0.1), math.MaxFloat32)
	requireRoundTrip(t, "", "42", "null", "true", "<a href=\"x\">&amp;</a>", "a\x00b\u2028\u2029\U0001F600", "\ufffd", `\ufffd`, `\\ufffd`, "\\\ufffd")
	requireRoundTrip(t, []byte(nil), []byte{}, []byte{0, 255, 254}, []byte("\xff\xfe not UTF-8"))
	requireRoundTrip(t, json.Number("12345678901234567890.000"), "-0", "1e400")
	requireRoundTrip(t, []string(nil), []string{}, []string{""})
	requireRoundTrip(t, map[string]int(nil), map[string]int{}, map[string]int{"": 0, "a": 1})
	requireRoundTrip(t, (*int)(nil), new(int))
	requireRoundTrip(t, struct{}{})
	requireRoundTrip(t, json.RawMessage(`{"a":[1,2.50,"\ufffd"]}`), json.RawMessage(`9007199254740993`), json.RawMessage("null"))
	requireRoundTrip(t, time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), time.Time{})
	requireRoundTrip(t, account{}, account{Name: "Ada", Balance: 1<<53 + 1, Limit: math.MaxUint64, Rate: 0.1, Key: []byte{0xff},
		Tags: map[string]string{"1": "2"}, Parent: &account{Name: "<root>"}})
}

// A number stays the number that was stored, also where nothing says which type it has, and a numeric string a string.
func TestBucketKeepsNumbersInInterfaces(t *testing.T) {
	for stored, want := range map[any]any{
		int64(math.MaxInt64):   json.Number("9223372036854775807"),
		int64(1<<53 + 1):       json.Number("9007199254740993"),
		uint64(math.MaxUint64): json.Number("18446744073709551615"),
		42:                     json.Number("42"),
		0:                      json.Number("0"),
		0.1:                    json.Number("0.1"),
		1e21:                   json.Number("1e+21"),
		"42":                   "42",
		"9007199254740993":     "9007199254740993",
		"":                     "",
		"0":                    "0",
		true:                   true,
		nil:                    nil,
	} {
		require.Equal(t, want, roundTrip(t, stored))
		require.Equal(t, []any{want}, roundTrip(t, []any{stored}))
		require.Equal(t, map[string]any{"n": want}, roundTrip(t, map[string]any{"n": stored}))
		if stored != nil {
			require.Equal(t, [1]map[int]*any{{7: &want}}, roundTrip(t, [1]map[int]*any{{7: &stored}}))
			require.Equal(t, account{Extra: want}, roundTrip(t, account{Extra: stored}))
			require.Equal(t, &account{Parent: &account{Extra: want}}, roundTrip(t, &account{Parent: &account{Extra: stored}}))
		}
	}
	type number interface{ String() string } // not empty: JSON can't know the type
	_, err := kv.JSON[number]().Decode("1")
	require.Error(t, err)
}

// A stored zero value differs from a key that is not there.
func TestBucketZeroIsNotMissing(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	check := func(name string, get func() (any, error), set func() error, zero any) {
		v, err := get()
		require.Same(t, kv.ErrNotFound, err, "%s: returned as it is", name)
		require.Equal(t, zero, v)
		require.NoError(t, set())
		v, err = get()
		require.NoError(t, err, name)
		require.Equal(t, zero, v)
	}
	ctx := t.Context()
	numbers, texts, accounts := kv.NewBucket[int](s, "n", nil), kv.NewBucket[string](s, "t", nil), kv.NewBucket[account](s, "a", nil)
	pointers, anything := kv.NewBucket[*account](s, "p", nil), kv.NewBucket[any](s, "x", nil)
	check("int", func() (any, error) { return numbers.Get(ctx, "k") }, func() error { return numbers.Set(ctx, "k", 0, 0) }, 0)
	check("string", func() (any, error) { return texts.Get(ctx, "k") }, func() error { return texts.Set(ctx, "k", "", 0) }, "")
	check("struct", func() (any, error) { return accounts.Get(ctx, "k") }, func() error { return accounts.Set(ctx, "k", account{}, 0) }, account{})
	check("nil pointer", func() (any, error) { return pointers.Get(ctx, "k") }, func() error { return pointers.Set(ctx, "k", nil, 0) }, (*account)(nil))
	check("nil", func() (any, error) { return anything.Get(ctx, "k") }, func() error { return anything.Set(ctx, "k", nil, 0) }, nil)
}

type withMarshaler struct{ text string }

func (m withMarshaler) MarshalJSON() ([]byte, error)     { return []byte(m.text), nil }
func (m *withMarshaler) UnmarshalJSON(text []byte) error { m.text = string(text); return nil }

type onlyMarshaler struct{ text string }

func (m onlyMarshaler) MarshalJSON() ([]byte, error) { return []byte(m.text), nil }

// What JSON can't carry is an error, never something else that is stored in its place.
func TestJSONRefuses(t *testing.T) {
	refuses := func(name string, err error) { t.Helper(); require.Error(t, err, name) }
	encode := func(v any) error { _, err := kv.JSON[any]().Encode(v); return err }
	refuses("NaN", encode(math.NaN()))
	refuses("infinity", encode(math.Inf(-1)))
	refuses("channel", encode(make(chan int)))
	refuses("function", encode(func() {}))
	refuses("complex", encode(1i))
	cycle := map[string]any{}
	cycle["self"] = cycle
	refuses("cycle", encode(cycle))

	const broken = "a\xffb"
	require.False(t, utf8.ValidString(broken))
	refuses("string", encode(broken))
	refuses("beside a good U+FFFD", encode("\ufffd"+broken+`\ufffd`))
	refuses("half a surrogate", encode("\xed\xa0\x80"))
	refuses("cut in a rune", encode("€"[:2]))
	refuses("map key", encode(map[string]int{broken: 1}))
	refuses("field", encode(account{Tags: map[string]string{"k": broken}}))
	refuses("error in a typed codec", func() error { _, err := kv.JSON[account]().Encode(account{Name: broken}); return err }())
	refuses("error of a struct with RawMessage", encode([]any{json.RawMessage(`"\ufffd"`), broken}))
	refuses("RawMessage", encode(json.RawMessage(`"`+broken+`"`)))
	refuses("marshaler", encode(withMarshaler{`"` + broken + `"`}))
	refuses("no JSON", encode(withMarshaler{`{`}))

	_, err := kv.JSON[onlyMarshaler]().Encode(onlyMarshaler{`"\ufffd"`})
	refuses("what can't be read again, and so can't be told from a broken string", err)
	text, err := kv.JSON[withMarshaler]().Encode(withMarshaler{`"\ufffd"`})
	require.NoError(t, err, "a marshaler may write the escape itself")
	require.Equal(t, `"\ufffd"`, text)
}

func TestJSONDecodeRefuses(t *testing.T) {
	for _, text := range []string{"", " ", "{", "[1,]", "1 2", "1x", "{}{}", "nul", `"a`, "01", "1 null", "[] ]"} {
		for name, err := range map[string]error{
			"any":     func() error { _, err := kv.JSON[any]().Decode(text); return err }(),
			"raw":     func() error { _, err := kv.JSON[json.RawMessage]().Decode(text); return err }(),
			"account": func() error { _, err := kv.JSON[account]().Decode(text); return err }(),
		} {
			require.Error(t, err, "%s: %q", name, text)
		}
	}
	for _, text := range []string{`"7"`, "7.5", "1e30", "9223372036854775808", "{}", "true"} {
		v, err := kv.JSON[int64]().Decode(text)
		require.Error(t, err, text)
		require.Zero(t, v)
	}
	v, err := kv.JSON[account]().Decode(`{"name":"Ada","balance":"no number"}`)
	require.Error(t, err)
	require.Zero(t, v, "not half a value")
	for _, text := range []string{" 7 ", "\n7\t\r\n"} {
		n, err := kv.JSON[any]().Decode(text)
		require.NoError(t, err)
		require.Equal(t, json.Number("7"), n)
	}
	added, err := kv.JSON[account]().Decode(`{"name":"Ada","unknown":[1]}`)
	require.NoError(t, err, "a field of a later version")
	require.Equal(t, account{Name: "Ada"}, added)
}

// What is stored is compact, plain JSON that other programs can read.
func TestJSONText(t *testing.T) {
	text, err := kv.JSON[account]().Encode(account{Name: "<Ada & Bob>", Balance: 7})
	require.NoError(t, err)
	require.Equal(t, `{"name":"<Ada & Bob>","balance":7}`, text)
}

func FuzzJSON(f *testing.F) {
	f.Add("Ada", "k", int64(1), 0.5, []byte{1}, `{"a":1}`)
	f.Add("\xff", "\ufffd", int64(-1), math.Inf(1), []byte(nil), `9007199254740993`)
	f.Add(`\ufffd`, "\xed\xa0\x80", int64(1<<53+1), math.Copysign(0, -1), []byte{}, `"\ufffd"`)
	f.Fuzz(func(t *testing.T, name, tag string, balance int64, rate float64, key []byte, foreign string) {
		codec := kv.JSON[account]()
		v := account{Name: name, Balance: balance, Rate: rate, Key: key, Tags: map[string]string{tag: name}, Extra: tag}
		text, err := codec.Encode(v)
		sound := utf8.ValidString(name) && utf8.ValidString(tag) && !math.IsNaN(rate) && !math.IsInf(rate, 0)
		require.Equal(t, sound, err == nil, "what can be carried is, what can't be is refused: %v", err)
		if err == nil {
			got, err := codec.Decode(text)
			require.NoError(t, err)
			if len(key) == 0 {
				v.Key = nil
			}
			require.Equal(t, v, got)
		}
		anything := kv.JSON[any]()
		if v, err := anything.Decode(foreign); err == nil && json.Valid([]byte(foreign)) {
			again, err := anything.Encode(v)
			require.NoError(t, err)
			same, err := anything.Decode(again)
			require.NoError(t, err)
			require.Equal(t, v, same)
		} else {
			require.False(t, json.Valid([]byte(foreign)), "%q: %v", foreign, err)
		}
	})
}

func TestBucketMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		ctx := t.Context()
		b := kv.NewBucket[account](s, "acc{o}unt:", nil) // taken as it is

		require.NoError(t, b.Set(ctx, "ada", account{Name: "Ada"}, time.Minute))
		text, err := s.Get(ctx, "acc{o}unt::ada")
		require.NoError(t, err)
		require.Equal(t, `{"name":"Ada"}`, text)

		stored, err := b.SetNX(ctx, "ada", account{Name: "Eve"}, time.Minute)
		require.NoError(t, err)
		require.False(t, stored)
		stored, err = b.SetNX(ctx, "bob", account{Name: "Bob"}, 2*time.Minute)
		require.NoError(t, err)
		require.True(t, stored)

		time.Sleep(time.Minute)
		_, err = b.Get(ctx, "ada")
		require.ErrorIs(t, err, kv.ErrNotFound)
		bob, err := b.Get(ctx, "bob")
		require.NoError(t, err)
		require.Equal(t, account{Name: "Bob"}, bob)

		deleted, err := b.Delete(ctx, "ada", "bob", "eve")
		require.NoError(t, err)
		require.Equal(t, 1, deleted)
		require.Empty(t, entries(t, s))
	})
}

func TestBucketUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		ctx := t.Context()
		b := kv.NewBucket[account](s, "account", nil)
		deposit := func(old account, exists bool) (account, error) {
			require.Equal(t, exists, old.Name == "Ada")
			return account{Name: "Ada", Balance: old.Balance + 5}, nil
		}
		v, err := b.Update(ctx, "ada", time.Minute, deposit)
		require.NoError(t, err)
		require.Equal(t, account{Name: "Ada", Balance: 5}, v)
		time.Sleep(time.Second)
		v, err = b.Update(ctx, "ada", kv.KeepTTL, deposit)
		require.NoError(t, err)
		require.Equal(t, account{Name: "Ada", Balance: 10}, v)
		ttl, err := s.TTL(ctx, "account:ada")
		require.NoError(t, err)
		require.Equal(t, 59*time.Second, ttl)

		abort := errors.New("no")
		v, err = b.Update(ctx, "ada", kv.KeepTTL, func(old account, _ bool) (account, error) { return account{Name: "Eve"}, abort })
		require.True(t, err == abort, "the error of f is returned as it is")
		require.Zero(t, v)
		v, err = b.Get(ctx, "ada")
		require.NoError(t, err)
		require.Equal(t, account{Name: "Ada", Balance: 10}, v)
	})
}

// Update loses no write of another, however many there are.
func TestBucketUpdateIsAtomic(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	b := kv.NewBucket[map[string]int](s, "counts", nil)
	const writers, rounds = 8, 100
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for range rounds {
				_, err := b.Update(t.Context(), "key", kv.NoExpiry, func(old map[string]int, _ bool) (map[string]int, error) {
					next := maps.Clone(old)
					if next == nil {
						next = make(map[string]int)
					}
					next[strconv.Itoa(i)]++
					return next, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	got, err := b.Get(t.Context(), "key")
	require.NoError(t, err)
	for i := range writers {
		require.Equal(t, rounds, got[strconv.Itoa(i)])
	}
}

// What Update returns is what was written, not what an earlier run of f returned.
func TestBucketUpdateReturnsTheLastRun(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	b := kv.NewBucket[int](s, "n", nil)
	runs := 0
	v, err := b.Update(t.Context(), "key", kv.NoExpiry, func(old int, _ bool) (int, error) {
		if runs++; runs == 1 { // somebody else writes meanwhile
			require.NoError(t, b.Set(t.Context(), "key", 100, kv.NoExpiry))
		}
		return old + 1, nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, runs)
	require.Equal(t, 101, v)
}

func collect[T any](t *testing.T, b *kv.Bucket[T], r kv.Range) (items []kv.Item[T]) {
	t.Helper()
	for item, err := range b.Scan(context.Background(), r) {
		require.NoError(t, err)
		items = append(items, item)
	}
	return items
}

func TestBucketScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		ctx := t.Context()
		b := kv.NewBucket[int](s.Namespace("ns"), "n", nil)
		for key, v := range map[string]int{"a": 1, "b1": 2, "b2": 3, "b3": 4, "c": 5} {
			require.NoError(t, b.Set(ctx, key, v, kv.NoExpiry))
		}
		require.NoError(t, b.Set(ctx, "b2", 3, time.Minute))
		for _, key := range []string{"n:b", "ns:n2:b", "ns:m:b", "ns:n"} { // none of the bucket's
			require.NoError(t, s.Set(ctx, key, "x", kv.NoExpiry))
		}
		one, three := kv.Item[int]{Key: "b1", Value: 2}, kv.Item[int]{Key: "b3", Value: 4}
		two := kv.Item[int]{Key: "b2", Value: 3, ExpiresAt: time.Now().Add(time.Minute)}
		normal := func(items []kv.Item[int]) []kv.Item[int] { // times without their location
			for i := range items {
				if !items[i].ExpiresAt.IsZero() {
					require.WithinDuration(t, two.ExpiresAt, items[i].ExpiresAt, 0)
					items[i].ExpiresAt = two.ExpiresAt
				}
			}
			return items
		}
		require.Equal(t, []kv.Item[int]{{Key: "a", Value: 1}, one, two, three, {Key: "c", Value: 5}}, normal(collect(t, b, kv.Range{})))
		require.Equal(t, []kv.Item[int]{one, two, three}, normal(collect(t, b, kv.Range{Prefix: "b"})))
		require.Equal(t, []kv.Item[int]{two}, normal(collect(t, b, kv.Range{From: "b2", To: "b3"})))
		require.Equal(t, []kv.Item[int]{three, two, one}, normal(collect(t, b, kv.Range{Prefix: "b", Reverse: true})))
		require.Equal(t, []kv.Item[int]{{Key: "a"}}, collect(t, b, kv.Range{Prefix: "a", KeysOnly: true}))
		require.Empty(t, collect(t, b, kv.Range{Prefix: "x"}))
		for item, err := range b.Scan(ctx, kv.Range{}) { // the body may break
			require.NoError(t, err)
			require.Equal(t, "a", item.Key)
			break
		}
	})
}

// One value that can't be decoded is an error that names its key, and the scan goes on.
func TestBucketScanGoesOnBehindGarbage(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	ctx := t.Context()
	b := kv.NewBucket[int](s, "n", nil)
	require.NoError(t, b.Set(ctx, "a", 1, kv.NoExpiry))
	require.NoError(t, s.Set(ctx, "n:b", "garbage", time.Hour))
	require.NoError(t, b.Set(ctx, "c", 3, kv.NoExpiry))
	var seen [][3]any
	for item, err := range b.Scan(ctx, kv.Range{}) {
		seen = append(seen, [3]any{item.Key, item.Value, err == nil})
		if err != nil {
			requireCodecError(t, err, "scan", "b")
			require.False(t, item.ExpiresAt.IsZero())
		}
	}
	require.Equal(t, [][3]any{{"a", 1, true}, {"b", 0, false}, {"c", 3, true}}, seen)

	for range b.Scan(ctx, kv.Range{From: "b"}) { // the body may break there, too
		break
	}
	require.Len(t, collect(t, b, kv.Range{KeysOnly: true}), 3, "keys alone are not decoded")

	require.NoError(t, s.Close())
	for _, err := range b.Scan(ctx, kv.Range{}) {
		require.ErrorIs(t, err, kv.ErrClosed)
	}
}

// requireCodecError checks that err names method and key, once, shows no value, and has the codec's error as its cause.
func requireCodecError(t *testing.T, err error, op, key string) {
	t.Helper()
	var e, inner *kv.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, [2]string{op, key}, [2]string{e.Op, e.Key})
	require.False(t, errors.As(e.Err, &inner), err)
	require.NotContains(t, err.Error(), "garbage")
}

func TestBucketCodecErrors(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	ctx := t.Context()
	b := kv.NewBucket[float64](s, "f", nil)
	require.NoError(t, s.Set(ctx, "f:bad", "garbage", kv.NoExpiry))

	v, err := b.Get(ctx, "bad")
	requireCodecError(t, err, "get", "bad")
	require.Zero(t, v)
	_, err = b.Update(ctx, "bad", kv.NoExpiry, func(float64, bool) (float64, error) { panic("f is not called") })
	requireCodecError(t, err, "update", "bad")
	requireCodecError(t, b.Set(ctx, "nan", math.NaN(), kv.NoExpiry), "set", "nan")
	_, err = b.SetNX(ctx, "nan", math.NaN(), kv.NoExpiry)
	requireCodecError(t, err, "setnx", "nan")
	_, err = b.Update(ctx, "nan", kv.NoExpiry, func(float64, bool) (float64, error) { return math.NaN(), nil })
	requireCodecError(t, err, "update", "nan")

	var unsupported *json.UnsupportedValueError
	require.ErrorAs(t, err, &unsupported, "the codec's error is the cause")
	require.Len(t, entries(t, s), 1, "nothing was written")
}

// Keys have the rules of a namespace, and errors name them as the caller does.
func TestBucketKeys(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	b := kv.NewBucket[int](s, "n", nil)
	for _, key := range []string{"", ".", "..", strings.Repeat("k", 511)} {
		_, err := b.Get(t.Context(), key)
		require.ErrorIs(t, err, kv.ErrInvalidKey)
		require.ErrorIs(t, b.Set(t.Context(), key, 1, kv.NoExpiry), kv.ErrInvalidKey)
		var e *kv.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, key, e.Key)
	}
	require.ErrorIs(t, b.Set(t.Context(), "key", 1, -2), kv.ErrInvalidTTL)
	require.NoError(t, b.Set(t.Context(), strings.Repeat("k", 510), 1, kv.NoExpiry))
}

// hexCodec is somebody's own codec, which panics where it is told to.
type hexCodec struct{ panics bool }

func (c hexCodec) Encode(n int) (string, error) {
	if c.panics {
		panic("encode")
	}
	return strconv.FormatInt(int64(n), 16), nil
}

func (c hexCodec) Decode(text string) (int, error) {
	if c.panics {
		panic("decode")
	}
	n, err := strconv.ParseInt(text, 16, 64)
	return int(n) + 1, err // on an error, too
}

func TestBucketOwnCodec(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	ctx := t.Context()
	b := kv.NewBucket(s, "hex", &kv.BucketOptions[int]{Codec: hexCodec{}})
	require.NoError(t, b.Set(ctx, "key", 255, kv.NoExpiry))
	text, err := s.Get(ctx, "hex:key")
	require.NoError(t, err)
	require.Equal(t, "ff", text)
	n, err := b.Get(ctx, "key")
	require.NoError(t, err)
	require.Equal(t, 256, n)
	require.NoError(t, s.Set(ctx, "hex:bad", "garbage", kv.NoExpiry))
	n, err = b.Get(ctx, "bad")
	require.Error(t, err)
	require.Zero(t, n)

	require.NotNil(t, kv.NewBucket(s, "json", &kv.BucketOptions[int]{}), "nil is JSON")
	require.NoError(t, kv.NewBucket(s, "json", &kv.BucketOptions[int]{}).Set(ctx, "key", 255, kv.NoExpiry))
	text, err = s.Get(ctx, "json:key")
	require.NoError(t, err)
	require.Equal(t, "255", text)
}

// A codec's panic reaches the caller, writes nothing and leaves the store usable.
func TestBucketCodecPanics(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	ctx := t.Context()
	require.NoError(t, s.Set(ctx, "hex:key", "ff", kv.NoExpiry))
	before := entries(t, s)
	b := kv.NewBucket(s, "hex", &kv.BucketOptions[int]{Codec: hexCodec{panics: true}})
	same := func(old int, _ bool) (int, error) { return old, nil }
	require.PanicsWithValue(t, "decode", func() { _, _ = b.Get(ctx, "key") })
	require.PanicsWithValue(t, "encode", func() { _ = b.Set(ctx, "key", 1, kv.NoExpiry) })
	require.PanicsWithValue(t, "encode", func() { _, _ = b.SetNX(ctx, "new", 1, kv.NoExpiry) })
	require.PanicsWithValue(t, "decode", func() { _, _ = b.Update(ctx, "key", kv.NoExpiry, same) })
	require.PanicsWithValue(t, "encode", func() { _, _ = b.Update(ctx, "new", kv.NoExpiry, same) })
	require.PanicsWithValue(t, "decode", func() {
		for range b.Scan(ctx, kv.Range{}) {
			t.Error("nothing is yielded")
		}
	})
	require.Equal(t, before, entries(t, s))
	require.NoError(t, s.Set(ctx, "hex:key", "fe", kv.NoExpiry), "no lock is held")
}
