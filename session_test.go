package kv_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type login struct {
	User   string
	Visits int
}

func visit(l login) (login, error) {
	l.Visits++
	return l, nil
}

// sessionKey is the key that the docs promise: it holds the SHA-256 of the id alone.
func sessionKey(prefix, id string) string {
	sum := sha256.Sum256([]byte(id))
	return kv.Key(prefix, base64.RawURLEncoding.EncodeToString(sum[:]))
}

// sessionMethods calls every method that takes an id; Update's f must not be reached.
func sessionMethods[T any](t *testing.T, m *kv.Sessions[T]) map[string]func(ctx context.Context, id string) error {
	return map[string]func(ctx context.Context, id string) error{
		"Get": func(ctx context.Context, id string) error {
			_, err := m.Get(ctx, id)
			return err
		},
		"Update": func(ctx context.Context, id string) error {
			_, err := m.Update(ctx, id, func(v T) (T, error) {
				t.Error("f was called for a session that doesn't exist")
				return v, nil
			})
			return err
		},
		"Rotate": func(ctx context.Context, id string) error {
			newID, err := m.Rotate(ctx, id)
			if err != nil && newID != "" {
				t.Error("Rotate failed and gave an id")
			}
			return err
		},
		"Destroy": m.Destroy,
	}
}

func requireNoSession[T any](t *testing.T, m *kv.Sessions[T], id string) {
	t.Helper()
	for name, call := range sessionMethods(t, m) {
		require.ErrorIs(t, call(t.Context(), id), kv.ErrNotFound, name)
	}
}

func requireKeys(t *testing.T, s *kv.Store, want int) {
	t.Helper()
	n, err := s.Count(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, want, n, "keys in the store")
}

func TestSessionLife(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions[login](s, nil)

	id, err := m.Create(t.Context(), login{User: "ada"})
	require.NoError(t, err)
	got, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, login{User: "ada"}, got)

	got, err = m.Update(t.Context(), id, visit)
	require.NoError(t, err)
	require.Equal(t, login{"ada", 1}, got)
	got, err = m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, login{"ada", 1}, got)

	newID, err := m.Rotate(t.Context(), id)
	require.NoError(t, err)
	require.NotEqual(t, id, newID)
	requireNoSession(t, m, id)
	got, err = m.Get(t.Context(), newID)
	require.NoError(t, err)
	require.Equal(t, login{"ada", 1}, got)

	require.NoError(t, m.Destroy(t.Context(), newID))
	requireNoSession(t, m, newID)
	requireKeys(t, s, 0)
}

func TestSessionIDs(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions[int](s, nil)
	seen := make(map[string]bool)
	var ones [256]int // how often each bit is set
	const n = 2000
	for range n / 2 {
		id, err := m.Create(t.Context(), 0)
		require.NoError(t, err)
		newID, err := m.Rotate(t.Context(), id)
		require.NoError(t, err)
		for _, id := range []string{id, newID} {
			raw, err := base64.RawURLEncoding.Strict().DecodeString(id)
			require.NoError(t, err)
			require.Len(t, raw, 32)
			require.False(t, seen[id])
			seen[id] = true
			for bit := range ones {
				ones[bit] += int(raw[bit/8] >> (bit % 8) & 1)
			}
		}
	}
	for bit, count := range ones {
		require.InDelta(t, n/2, count, 6*math.Sqrt(n)/2, "bit %d is not random", bit)
	}
}

func TestSessionStoreHoldsOnlyTheHash(t *testing.T) {
	for _, prefix := range []string{"", "login", "app:login", "{tag}", "."} {
		s := kv.New(nil)
		m := kv.NewSessions(s.Namespace("tenant"), &kv.SessionOptions[login]{Prefix: prefix})
		id, err := m.Create(t.Context(), login{User: "ada"})
		require.NoError(t, err)
		_, err = m.Update(t.Context(), id, visit)
		require.NoError(t, err)
		if prefix == "" {
			prefix = "session"
		}
		n := 0
		for e, err := range s.Scan(t.Context(), kv.Range{}) {
			require.NoError(t, err)
			require.Equal(t, "tenant:"+sessionKey(prefix, id), e.Key)
			require.NotContains(t, e.Key+e.Value+e.Metadata, id)
			n++
		}
		require.Equal(t, 1, n)
		require.NoError(t, s.Close())
	}
}

func TestSessionUnknownAndMalformedIDs(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions[login](s, nil)
	id, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	ended, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	require.NoError(t, m.Destroy(t.Context(), ended))

	ids := []string{
		"", "x", ".", "..", ended,
		id[:42], id + "=", id + "A", " " + id[1:], id[:42] + "\n", "session:" + id,
		strings.TrimPrefix(sessionKey("session", id), "session:"), sessionKey("session", id),
		strings.Repeat("A", 43), strings.Repeat("\x00", 43), strings.Repeat(":", 43), strings.Repeat("\xff", 43),
		strings.Repeat("a", 1<<20),
	}
	for _, bad := range ids {
		requireNoSession(t, m, bad)
	}
	_, err = m.Get(t.Context(), id)
	require.NoError(t, err)
	requireKeys(t, s, 1)
	other := kv.NewSessions(s, &kv.SessionOptions[login]{Prefix: "other"})
	requireNoSession(t, other, id)
}

func TestSessionUpdateLosesNothing(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Hour})
	id, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 250 {
				_, err := m.Update(context.Background(), id, visit)
				assert.NoError(t, err)
				_, err = m.Get(context.Background(), id)
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	got, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, 1000, got.Visits)
}

func TestSessionUpdateAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		m := kv.NewSessions[login](s, nil)
		id, err := m.Create(t.Context(), login{User: "ada"})
		require.NoError(t, err)
		before, err := s.Entry(t.Context(), sessionKey("session", id))
		require.NoError(t, err)
		time.Sleep(time.Hour)

		mine := errors.New("mine")
		got, err := m.Update(t.Context(), id, func(login) (login, error) { return login{User: "eve"}, mine })
		require.True(t, err == mine, "an error of f comes as it is")
		require.Zero(t, got)
		require.PanicsWithValue(t, "boom", func() {
			_, _ = m.Update(t.Context(), id, func(login) (login, error) { panic("boom") })
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = m.Update(ctx, id, func(login) (login, error) {
			t.Error("f was called")
			return login{}, nil
		})
		require.ErrorIs(t, err, context.Canceled)

		after, err := s.Entry(t.Context(), sessionKey("session", id))
		require.NoError(t, err)
		require.Equal(t, before, after, "neither data nor deadline have changed")
	})
}

type textCodec struct{ fail error }

func (c textCodec) Encode(s string) (string, error) { return "<" + s + ">", c.fail }
func (c textCodec) Decode(s string) (string, error) { return strings.Trim(s, "<>"), c.fail }

func TestSessionCodec(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions(s, &kv.SessionOptions[string]{Codec: textCodec{}})
	id, err := m.Create(t.Context(), "a\x00\xff")
	require.NoError(t, err)
	got, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "a\x00\xff", got)
	raw, err := s.Get(t.Context(), sessionKey("session", id))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(raw, "<a\x00\xff>"))
	require.Len(t, raw, 9+len("<a\x00\xff>"), "the envelope has 9 bytes")

	broken := kv.NewSessions(s, &kv.SessionOptions[string]{Codec: textCodec{errors.New("broken")}})
	_, err = broken.Create(t.Context(), "x")
	require.ErrorContains(t, err, "broken")
	got, err = broken.Get(t.Context(), id)
	require.ErrorContains(t, err, "broken")
	require.Empty(t, got)
	_, err = broken.Update(t.Context(), id, func(string) (string, error) { return "", nil })
	require.ErrorContains(t, err, "broken")
	requireKeys(t, s, 1)

	numbers := kv.NewSessions[float64](s, nil)
	_, err = numbers.Create(t.Context(), math.NaN())
	require.Error(t, err)
	n, err := numbers.Create(t.Context(), 1)
	require.NoError(t, err)
	_, err = numbers.Update(t.Context(), n, func(float64) (float64, error) { return math.NaN(), nil })
	require.Error(t, err)
	one, err := numbers.Get(t.Context(), n)
	require.NoError(t, err)
	require.EqualValues(t, 1, one)
}

// Errors travel to logs and to clients.
func TestSessionErrorsHideTheID(t *testing.T) {
	engine := kvtest.NewFaulty(kv.New(nil))
	s := kv.NewWithEngine(engine, nil)
	m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Hour})
	id, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	check := func(wantErr error) {
		t.Helper()
		calls := sessionMethods(t, m)
		calls["Update"] = func(ctx context.Context, id string) error {
			_, err := m.Update(ctx, id, visit)
			return err
		}
		for name, call := range calls {
			err := call(t.Context(), id)
			require.ErrorIs(t, err, wantErr, name)
			for _, form := range []string{"%v", "%+v", "%#v", "%q"} {
				require.NotContains(t, fmt.Sprintf(form, err), id)
			}
		}
	}
	engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}))
	check(kvtest.ErrDown)
	for _, method := range []string{"Now", "Expire", "CompareAndSwap", "CompareAndDelete", "Set"} {
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrUnknown}, method))
		for name, call := range sessionMethods(t, m) {
			if name == "Update" || name == "Destroy" {
				continue
			}
			if err := call(t.Context(), id); err != nil {
				require.NotContains(t, fmt.Sprintf("%+v %#v", err, err), id)
			}
		}
	}
	engine.Heal()
	require.NoError(t, s.Close())
	check(kv.ErrClosed)
	_, err = m.Create(t.Context(), login{})
	require.ErrorIs(t, err, kv.ErrClosed)
}

func TestSessionTooLarge(t *testing.T) {
	s := kv.New(&kv.Options{MaxValueBytes: 100})
	defer s.Close()
	m := kv.NewSessions[login](s, nil)
	large := login{User: strings.Repeat("x", 100)}
	_, err := m.Create(t.Context(), large)
	require.ErrorIs(t, err, kv.ErrTooLarge)
	id, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	_, err = m.Update(t.Context(), id, func(login) (login, error) { return large, nil })
	require.ErrorIs(t, err, kv.ErrTooLarge)
	got, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Zero(t, got)
}

func TestSessionNilContext(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Hour})
	var none context.Context
	id, err := m.Create(none, login{})
	require.NoError(t, err)
	_, err = m.Get(none, id)
	require.NoError(t, err)
	_, err = m.Update(none, id, visit)
	require.NoError(t, err)
	id, err = m.Rotate(none, id)
	require.NoError(t, err)
	require.NoError(t, m.Destroy(none, id))
}

// What other hands have put under a session's key is an error, not a panic and not a session.
func FuzzSessionStoredBytes(f *testing.F) {
	for _, seed := range []string{"", "1", "12345678", "1\x00\x00\x00\x00\x00\x00\x00\x00{}", "2\x00\x00\x00\x00\x00\x00\x00\x00{}",
		"1\xff\xff\xff\xff\xff\xff\xff\xff{\"User\":\"eve\"}", "1\x7f\xff\xff\xff\xff\xff\xff\xffnull", "{}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		s := kv.New(nil)
		defer s.Close()
		for _, maxAge := range []time.Duration{0, time.Hour, math.MaxInt64} {
			m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: maxAge})
			id, err := m.Create(t.Context(), login{})
			require.NoError(t, err)
			key := sessionKey("session", id)
			require.NoError(t, s.Set(t.Context(), key, stored, time.Hour))
			_, getErr := m.Get(t.Context(), id)
			_, updateErr := m.Update(t.Context(), id, func(l login) (login, error) { return l, nil })
			require.Equal(t, getErr == nil, updateErr == nil)
			if len(stored) < 9 || stored[0] != '1' {
				require.ErrorIs(t, getErr, kv.ErrWrongType)
			}
			if left, err := s.TTL(t.Context(), key); err == nil {
				require.LessOrEqual(t, left, 24*time.Hour)
			}
		}
	})
}
