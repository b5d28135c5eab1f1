package kv_test

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// FuzzCursor: a cursor that Page did not make for this range is ErrCursor, whatever it is.
func FuzzCursor(f *testing.F) {
	s := kv.New(nil)
	for i := range 100 {
		if err := s.Set(f.Context(), "key"+strconv.Itoa(i), "v", 0); err != nil {
			f.Fatal(err)
		}
	}
	r := kv.Range{Prefix: "key"}
	_, good, err := s.Page(f.Context(), r, "", 3)
	require.NoError(f, err)
	f.Add(good, "key")
	f.Add(good+"\n", "key")
	f.Add(strings.ToLower(good), "key")
	f.Add(good, "ke")
	f.Add("", "key")
	f.Add("AAAAAAAAAAAAAAAAAAA", "key")
	f.Fuzz(func(t *testing.T, cursor, prefix string) {
		entries, next, err := s.Page(t.Context(), kv.Range{Prefix: prefix}, cursor, 3)
		if cursor == "" || cursor == good && prefix == "key" {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, kv.ErrCursor)
		require.Empty(t, entries)
		require.Empty(t, next)
	})
}

// FuzzKey: different parts never make the same key, and the key is valid.
func FuzzKey(f *testing.F) {
	f.Add("session", "1", "session:1", "")
	f.Add("", "", "", "")
	f.Add("a:b", "c", "a", "b:c")
	f.Add("%", "", "%25", "")
	f.Add(".", "..", "..", ".")
	f.Add("{", "}", "%7B", "}")
	s := kv.New(nil)
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		keys := map[string][]string{}
		for _, parts := range [][]string{{a}, {b}, {c}, {a, b}, {b, a}, {c, d}, {a + ":" + b}, {a, ""}, {"", a}, {a, b, c}, {a, b + ":" + c}, {a + b, c}} {
			key := kv.Key(parts...)
			if other, taken := keys[key]; taken {
				require.Equalf(t, other, parts, "both make the key %q", key)
			}
			keys[key] = parts
			require.NotContains(t, key, "{", "a part chooses the hash slot")
			if len(key) <= kv.DefaultMaxKeyBytes {
				_, err := s.Exists(t.Context(), key)
				require.NoError(t, err)
			}
		}
	})
}

// FuzzValue: keys, values and metadata come back byte for byte, or are refused as a whole.
func FuzzValue(f *testing.F) {
	f.Add("key", "value", `{"a":1}`)
	f.Add("\x00", "\xff", "null")
	f.Add("..", "", "")
	f.Add(".", "", "{")
	f.Add("k", strings.Repeat("x", 70_000), `"`+strings.Repeat("m", 1023)+`"`)
	s := kv.New(&kv.Options{Shards: 1})
	f.Fuzz(func(t *testing.T, key, value, metadata string) {
		ctx := t.Context()
		want := kv.Entry{Key: key, Value: value, Metadata: metadata}
		err := s.Put(ctx, want)
		switch {
		case key == "" || key == "." || key == ".." || len(key) > kv.DefaultMaxKeyBytes:
			require.ErrorIs(t, err, kv.ErrInvalidKey)
			return
		case len(metadata) > kv.DefaultMaxMetadataBytes:
			require.ErrorIs(t, err, kv.ErrTooLarge)
		case metadata != "" && !json.Valid([]byte(metadata)):
			require.ErrorIs(t, err, kv.ErrInvalidMetadata)
		default:
			require.NoError(t, err)
			got, err := s.Entry(ctx, key)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		require.NoError(t, s.Set(ctx, key, value, 0))
		want.Metadata = ""
		for e, err := range s.Scan(ctx, kv.Range{Prefix: key[:len(key)/2]}) {
			require.NoError(t, err)
			require.Equal(t, want, e)
		}
		swapped, err := s.CompareAndSwap(ctx, key, value+"x", "y", 0)
		require.NoError(t, err)
		require.False(t, swapped)
		got, err := s.GetDelete(ctx, key)
		require.NoError(t, err)
		require.Equal(t, value, got)
	})
}

// FuzzIncr: what strconv prints is an integer, and nothing else.
func FuzzIncr(f *testing.F) {
	for _, value := range []string{"0", "-1", "01", "+1", " 1", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "-0", ""} {
		f.Add(value, int64(1))
		f.Add(value, int64(-9223372036854775808))
	}
	s := kv.New(nil)
	f.Fuzz(func(t *testing.T, value string, delta int64) {
		require.NoError(t, s.Set(t.Context(), "key", value, 0))
		n, err := strconv.ParseInt(value, 10, 64)
		integer := err == nil && strconv.FormatInt(n, 10) == value
		sum := n + delta
		overflow := (sum > n) != (delta > 0) && delta != 0
		got, err := s.Incr(t.Context(), "key", delta, 0)
		want := value
		switch {
		case !integer:
			require.ErrorIs(t, err, kv.ErrNotInteger)
		case overflow:
			require.ErrorIs(t, err, kv.ErrOverflow)
		default:
			require.NoError(t, err)
			require.Equal(t, sum, got)
			want = strconv.FormatInt(sum, 10)
		}
		stored, err := s.Get(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, want, stored)
	})
}

// FuzzBatch: a program of operations, batches and transactions does the same to a store as to a map.
func FuzzBatch(f *testing.F) {
	f.Add([]byte("sa1ia1ga0da0na5|sb7xb1ib2"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 600 {
			return
		}
		s := newStore(t, &kv.Options{Shards: 1 + len(program)%2})
		m := &model{live: map[string]kv.Entry{}, want: map[string][]kv.Event{}}
		var ops []kv.Op
		for len(program) >= 3 {
			op, rest := decodeOp(program)
			program = rest
			ops = append(ops, op)
			if op.Delta%5 == 0 || len(program) < 3 {
				fuzzApply(t, s, m, ops, op.Delta%2 == 0)
				ops = nil
			}
		}
		got := map[string]kv.Entry{}
		for e, err := range s.Scan(t.Context(), kv.Range{}) {
			require.NoError(t, err)
			got[e.Key] = e
		}
		require.Equal(t, m.live, got)
	})
}

// decodeOp takes an operation from the beginning of a program.
func decodeOp(program []byte) (op kv.Op, rest []byte) {
	ops := []kv.OpKind{kv.KindGet, kv.KindSet, kv.KindSetNX, kv.KindIncr, kv.KindExpire, kv.KindDelete}
	op = kv.Op{Kind: ops[int(program[0])%len(ops)], Key: string('a' + program[1]%8), TTL: kv.NoExpiry, Delta: int64(int8(program[2]))}
	if program[1] > 127 {
		op.TTL = kv.KeepTTL // without deadlines there is no time: both mean the same
	}
	op.Value = strconv.Itoa(int(program[2]))
	if program[2] == 255 {
		op.Value = "text"
	}
	return op, program[3:]
}

// fuzzApply compares what ops do, as a transaction or as a batch.
func fuzzApply(t *testing.T, s *kv.Store, m *model, ops []kv.Op, asTxn bool) {
	ctx := t.Context()
	if asTxn {
		conds := []kv.Cond{kv.IfValue(ops[0].Key, m.live[ops[0].Key].Value)}
		wantOK, want, wantErr := m.txn(conds, ops)
		ok, got, err := s.Txn(ctx, conds, ops...)
		require.ErrorIs(t, err, wantErr)
		require.Equal(t, wantOK, ok)
		require.Equal(t, want, got)
		return
	}
	got, err := s.Batch(ctx, ops...)
	require.NoError(t, err)
	for i, op := range ops {
		want := m.apply(op)
		if !errors.Is(got[i].Err, want.Err) {
			t.Fatalf("operation %d: error %v, want %v", i, got[i].Err, want.Err)
		}
		got[i].Err = want.Err
		require.Equal(t, want, got[i])
	}
}
