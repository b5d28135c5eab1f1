package kv_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
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

func TestSessionIdleDeadlineSlides(t *testing.T) {
	use := map[string]func(m *kv.Sessions[login], id string) (string, error){
		"Get": func(m *kv.Sessions[login], id string) (string, error) {
			_, err := m.Get(context.Background(), id)
			return id, err
		},
		"Update": func(m *kv.Sessions[login], id string) (string, error) {
			_, err := m.Update(context.Background(), id, visit)
			return id, err
		},
		"Update without a change": func(m *kv.Sessions[login], id string) (string, error) {
			_, err := m.Update(context.Background(), id, func(l login) (login, error) { return l, nil })
			return id, err
		},
		"Rotate": func(m *kv.Sessions[login], id string) (string, error) {
			return m.Rotate(context.Background(), id)
		},
	}
	for name, use := range use {
		for _, maxAge := range []time.Duration{0, 1000 * time.Hour} {
			t.Run(fmt.Sprint(name, maxAge), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := kv.New(nil)
					defer s.Close()
					m := kv.NewSessions(s, &kv.SessionOptions[login]{IdleTTL: time.Minute, MaxAge: maxAge})
					id, err := m.Create(t.Context(), login{})
					require.NoError(t, err)
					for range 5 {
						time.Sleep(time.Minute - 1)
						id, err = use(m, id)
						require.NoError(t, err)
					}
					time.Sleep(time.Minute)
					requireNoSession(t, m, id)
				})
			})
		}
	}
}

func TestSessionDefaultIdleTTLIsADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		m := kv.NewSessions[login](s, nil)
		id, err := m.Create(t.Context(), login{})
		require.NoError(t, err)
		left, err := s.TTL(t.Context(), sessionKey("session", id))
		require.NoError(t, err)
		require.Equal(t, 24*time.Hour, left)
		time.Sleep(24*time.Hour - 1)
		_, err = m.Get(t.Context(), id)
		require.NoError(t, err)
		time.Sleep(24 * time.Hour)
		requireNoSession(t, m, id)
	})
}

// A random life against a model: after each step the key's deadline is what the
// docs say, to the nanosecond, and never past MaxAge from the creation.
func TestSessionDeadlinesAgainstAModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, round))
			s := kv.New(nil)
			defer s.Close()
			o := &kv.SessionOptions[login]{IdleTTL: 1 + time.Duration(r.Int64N(int64(time.Minute)))}
			if r.IntN(4) > 0 {
				o.MaxAge = 1 + time.Duration(r.Int64N(int64(4*o.IdleTTL)))
			}
			runSessionModel(t, r, s, kv.NewSessions(s, o), o)
		})
	}
}

func runSessionModel(t *testing.T, r *rand.Rand, s *kv.Store, m *kv.Sessions[login], o *kv.SessionOptions[login]) {
	time.Sleep(time.Duration(r.Int64N(int64(time.Minute))))
	created, data := time.Now(), login{User: "ada"}
	id, err := m.Create(t.Context(), data)
	require.NoError(t, err)
	used := created
	deadline := func() time.Time {
		end := used.Add(o.IdleTTL)
		if o.MaxAge > 0 && created.Add(o.MaxAge).Before(end) {
			end = created.Add(o.MaxAge)
		}
		return end
	}
	for range 20 {
		e, err := s.Entry(t.Context(), sessionKey("session", id))
		require.NoError(t, err)
		require.Zero(t, e.ExpiresAt.Sub(deadline()))
		pause := time.Duration(r.Int64N(int64(o.IdleTTL)))
		switch r.IntN(10) {
		case 0:
			pause = time.Until(deadline()) // to the end exactly
		case 1:
			pause = time.Until(deadline()) - 1
		}
		time.Sleep(pause)
		if !time.Now().Before(deadline()) {
			requireNoSession(t, m, id)
			return
		}
		used = time.Now()
		old := id
		switch r.IntN(3) {
		case 0:
			got, err := m.Get(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, data, got)
		case 1:
			data.Visits++
			got, err := m.Update(t.Context(), id, visit)
			require.NoError(t, err)
			require.Equal(t, data, got)
		case 2:
			id, err = m.Rotate(t.Context(), id)
			require.NoError(t, err)
			requireNoSession(t, m, old)
		}
	}
}

// The store's deadline is relative, so that a write which is held up moves it
// too far. The session must be over all the same.
func TestSessionMaxAgeHoldsThroughAPause(t *testing.T) {
	for _, method := range []string{"Set", "Expire", "CompareAndSwap"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				engine := kvtest.NewFaulty(kv.New(nil))
				s := kv.NewWithEngine(engine, nil)
				defer s.Close()
				m := kv.NewSessions(s, &kv.SessionOptions[login]{IdleTTL: time.Hour, MaxAge: time.Hour})
				end := time.Now().Add(time.Hour)
				engine.Inject(kvtest.Times(1, kvtest.Fault{Delay: 20 * time.Minute}, method))
				id, err := m.Create(t.Context(), login{})
				require.NoError(t, err)
				switch method {
				case "Expire":
					_, err = m.Get(t.Context(), id)
				case "CompareAndSwap":
					_, err = m.Update(t.Context(), id, visit)
				}
				require.NoError(t, err)

				time.Sleep(time.Until(end) - time.Minute)
				_, err = m.Update(t.Context(), id, func(l login) (login, error) {
					time.Sleep(time.Minute)
					return visit(l)
				})
				require.ErrorIs(t, err, kv.ErrNotFound, "it ended while f ran")
				left, err := s.TTL(t.Context(), sessionKey("session", id))
				require.NoError(t, err)
				require.Equal(t, 20*time.Minute, left, "or this tests nothing")
				for name, call := range sessionMethods(t, m) {
					if name != "Destroy" { // which is glad to delete what is left
						require.ErrorIs(t, call(t.Context(), id), kv.ErrNotFound, name)
					}
				}
				requireKeys(t, s, 1)
			})
		})
	}
}

func TestSessionUpdateCountsTheTimeOfF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		m := kv.NewSessions(s, &kv.SessionOptions[login]{IdleTTL: time.Hour, MaxAge: 2 * time.Hour})
		id, err := m.Create(t.Context(), login{})
		require.NoError(t, err)
		slow := func(d time.Duration) func(login) (login, error) {
			return func(l login) (login, error) {
				time.Sleep(d)
				return visit(l)
			}
		}
		for range 3 {
			_, err = m.Update(t.Context(), id, slow(30*time.Minute))
			require.NoError(t, err)
		}
		left, err := s.TTL(t.Context(), sessionKey("session", id))
		require.NoError(t, err)
		require.Equal(t, 30*time.Minute, left, "90 minutes of 2 hours have passed")
		_, err = m.Update(t.Context(), id, slow(30*time.Minute))
		require.ErrorIs(t, err, kv.ErrNotFound)
		requireKeys(t, s, 0)
	})
}

func TestSessionMaxAgeCountsFromCreationWhateverTheOptionsWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		before := kv.NewSessions[login](s, nil)
		after := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Hour})
		id, err := before.Create(t.Context(), login{})
		require.NoError(t, err)
		time.Sleep(time.Hour - 1)
		_, err = before.Get(t.Context(), id)
		require.NoError(t, err)
		id, err = after.Rotate(t.Context(), id)
		require.NoError(t, err)
		left, err := s.TTL(t.Context(), sessionKey("session", id))
		require.NoError(t, err)
		require.Equal(t, time.Duration(1), left)
		time.Sleep(time.Nanosecond)
		requireNoSession(t, after, id)
	})
}

// shiftedEngine is an engine whose clock was set.
type shiftedEngine struct {
	*kvtest.Faulty
	by time.Duration
}

func (e *shiftedEngine) Now(ctx context.Context) (time.Time, error) {
	now, err := e.Faulty.Now(ctx)
	return now.Add(e.by), err
}

func TestSessionLivesNoLongerThanMaxAgeWhenTheClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &shiftedEngine{Faulty: kvtest.NewFaulty(kv.New(nil))}
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		for _, maxAge := range []time.Duration{2 * time.Hour, math.MaxInt64} {
			engine.by = 0
			m := kv.NewSessions(s, &kv.SessionOptions[login]{IdleTTL: math.MaxInt64, MaxAge: maxAge})
			id, err := m.Create(t.Context(), login{})
			require.NoError(t, err)
			engine.by = -24 * time.Hour
			_, err = m.Get(t.Context(), id)
			require.NoError(t, err)
			left, err := s.TTL(t.Context(), sessionKey("session", id))
			require.NoError(t, err)
			require.LessOrEqual(t, left, maxAge)
			require.GreaterOrEqual(t, left, maxAge-1) // the last nanosecond of all time is not to be had
		}
	})
}

func TestSessionDurationsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		for _, o := range []kv.SessionOptions[login]{
			{IdleTTL: math.MaxInt64},
			{IdleTTL: math.MaxInt64, MaxAge: math.MaxInt64},
			{IdleTTL: 1, MaxAge: math.MaxInt64},
			{IdleTTL: math.MaxInt64, MaxAge: 1},
		} {
			m := kv.NewSessions(s, &o)
			id, err := m.Create(t.Context(), login{})
			require.NoError(t, err)
			_, err = m.Get(t.Context(), id)
			require.NoError(t, err)
			_, err = m.Update(t.Context(), id, visit)
			require.NoError(t, err)
			id, err = m.Rotate(t.Context(), id)
			require.NoError(t, err)
			time.Sleep(time.Nanosecond)
			_, err = m.Get(t.Context(), id)
			if o.IdleTTL == 1 || o.MaxAge == 1 {
				require.ErrorIs(t, err, kv.ErrNotFound)
			} else {
				require.NoError(t, err)
			}
		}
	})
}

func TestSessionNegativeDurations(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	id, err := kv.NewSessions[login](s, nil).Create(t.Context(), login{})
	require.NoError(t, err)
	for _, o := range []kv.SessionOptions[login]{{IdleTTL: -1}, {IdleTTL: -2}, {MaxAge: -1}, {IdleTTL: time.Hour, MaxAge: math.MinInt64}} {
		m := kv.NewSessions(s, &o)
		_, err := m.Create(t.Context(), login{})
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
		_, err = m.Get(t.Context(), id)
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
		_, err = m.Update(t.Context(), id, visit)
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
		_, err = m.Rotate(t.Context(), id)
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
	}
	requireKeys(t, s, 1)
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

// Whatever lies between Update's read and its write, what ended stays ended.
func TestSessionEndsWhileUpdated(t *testing.T) {
	for _, maxAge := range []time.Duration{0, time.Hour} {
		s := kv.New(nil)
		m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: maxAge})

		id, err := m.Create(t.Context(), login{})
		require.NoError(t, err)
		_, err = m.Update(t.Context(), id, func(l login) (login, error) {
			require.NoError(t, m.Destroy(t.Context(), id))
			return visit(l)
		})
		require.ErrorIs(t, err, kv.ErrNotFound)
		requireKeys(t, s, 0)

		id, err = m.Create(t.Context(), login{})
		require.NoError(t, err)
		var newID string
		_, err = m.Update(t.Context(), id, func(l login) (login, error) {
			newID, err = m.Rotate(t.Context(), id)
			require.NoError(t, err)
			return visit(l)
		})
		require.ErrorIs(t, err, kv.ErrNotFound)
		requireNoSession(t, m, id)
		requireKeys(t, s, 1)
		got, err := m.Get(t.Context(), newID)
		require.NoError(t, err)
		require.Zero(t, got.Visits)
		require.NoError(t, s.Close())
	}
}

// Destroy just before each of the calls that a method makes.
func TestSessionDestroyedInTheMiddle(t *testing.T) {
	calls := map[string][]string{
		"Get":    {"Get", "GetExpire", "Now", "Expire"},
		"Update": {"Get", "Now", "CompareAndSwap"},
		"Rotate": {"Get", "Now", "Set", "CompareAndDelete"},
	}
	for method, engineCalls := range calls {
		for _, maxAge := range []time.Duration{0, time.Hour} {
			for _, at := range engineCalls {
				t.Run(fmt.Sprint(method, maxAge, at), func(t *testing.T) {
					inner := kv.New(nil)
					engine := kvtest.NewFaulty(inner)
					s := kv.NewWithEngine(engine, nil)
					defer s.Close()
					m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: maxAge})
					id, err := m.Create(t.Context(), login{})
					require.NoError(t, err)
					reached := false
					engine.Inject(func(c kvtest.Call) kvtest.Fault {
						if c.Method == at && !reached {
							reached = true
							require.NoError(t, kv.NewSessions[login](inner, nil).Destroy(t.Context(), id))
						}
						return kvtest.Fault{}
					})
					switch method {
					case "Get":
						_, err = m.Get(t.Context(), id)
					case "Update":
						_, err = m.Update(t.Context(), id, visit)
					case "Rotate":
						_, err = m.Rotate(t.Context(), id)
					}
					if reached {
						require.ErrorIs(t, err, kv.ErrNotFound)
						requireKeys(t, s, 0)
					} else {
						require.NoError(t, err)
					}
				})
			}
		}
	}
}

// Everything at once on one session, again and again: once Destroy has said that
// it did it, no key is left, whoever is still writing.
func TestSessionDestroyRace(t *testing.T) {
	for round := range 300 {
		s := kv.New(nil)
		m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Duration(round%2) * time.Hour})
		id, err := m.Create(t.Context(), login{})
		require.NoError(t, err)
		var last atomic.Pointer[string] // the id after a rotation that won
		last.Store(&id)
		var destroyed atomic.Bool
		var wg sync.WaitGroup
		start := make(chan struct{})
		act := func(f func() error) {
			wg.Go(func() {
				<-start
				for range 3 {
					if err := f(); err != nil {
						assert.ErrorIs(t, err, kv.ErrNotFound)
					}
				}
			})
		}
		for range 2 {
			act(func() error { _, err := m.Get(context.Background(), id); return err })
			act(func() error { _, err := m.Update(context.Background(), id, visit); return err })
			act(func() error {
				newID, err := m.Rotate(context.Background(), id)
				if err == nil {
					last.Store(&newID)
				}
				return err
			})
		}
		act(func() error {
			err := m.Destroy(context.Background(), id)
			if err == nil {
				destroyed.Store(true)
			}
			return err
		})
		close(start)
		wg.Wait()
		requireNoSession(t, m, id)
		if destroyed.Load() {
			requireKeys(t, s, 0)
		} else { // then a rotation was first
			requireKeys(t, s, 1)
			_, err := m.Get(t.Context(), *last.Load())
			require.NoError(t, err)
		}
		require.NoError(t, s.Close())
	}
}

func TestSessionOneOfManyRotationsWins(t *testing.T) {
	for range 100 {
		s := kv.New(nil)
		m := kv.NewSessions[login](s, nil)
		id, err := m.Create(t.Context(), login{User: "ada"})
		require.NoError(t, err)
		var won atomic.Pointer[string]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				newID, err := m.Rotate(context.Background(), id)
				if err == nil {
					assert.Nil(t, won.Swap(&newID), "two rotations won")
					return
				}
				assert.ErrorIs(t, err, kv.ErrNotFound)
			})
		}
		wg.Wait()
		requireKeys(t, s, 1) // losers leave nothing behind
		got, err := m.Get(t.Context(), *won.Load())
		require.NoError(t, err)
		require.Equal(t, "ada", got.User)
		require.NoError(t, s.Close())
	}
}

// Each Update that succeeded, under whatever id, is in the data that is left.
func TestSessionRotateLosesNoUpdate(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Hour})
	first, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	var current atomic.Pointer[string]
	current.Store(&first)
	var succeeded atomic.Int64
	var updates sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		updates.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := m.Update(context.Background(), *current.Load(), visit)
				if err == nil {
					succeeded.Add(1)
				} else {
					assert.ErrorIs(t, err, kv.ErrNotFound)
				}
			}
		})
	}
	for range 500 {
		id, err := m.Rotate(t.Context(), *current.Load())
		require.NoError(t, err)
		current.Store(&id)
	}
	close(done)
	updates.Wait()
	got, err := m.Get(t.Context(), *current.Load())
	require.NoError(t, err)
	require.EqualValues(t, succeeded.Load(), got.Visits)
	requireKeys(t, s, 1)
}

func TestSessionRotateTakesALateUpdateAlong(t *testing.T) {
	inner := kv.New(nil)
	engine := kvtest.NewFaulty(inner)
	s := kv.NewWithEngine(engine, nil)
	defer s.Close()
	m, behind := kv.NewSessions[login](s, nil), kv.NewSessions[login](inner, nil)
	id, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	left := 3
	engine.Inject(func(c kvtest.Call) kvtest.Fault {
		if c.Method == "CompareAndDelete" && left > 0 {
			left--
			_, err := behind.Update(t.Context(), id, visit)
			require.NoError(t, err)
		}
		return kvtest.Fault{}
	})
	id, err = m.Rotate(t.Context(), id)
	require.NoError(t, err)
	got, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, 3, got.Visits)
	requireKeys(t, s, 1)
}

func TestSessionRotateEndsWithItsContext(t *testing.T) {
	inner := kv.New(nil)
	engine := kvtest.NewFaulty(inner)
	s := kv.NewWithEngine(engine, nil)
	defer s.Close()
	m, behind := kv.NewSessions[login](s, nil), kv.NewSessions[login](inner, nil)
	id, err := m.Create(t.Context(), login{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rounds := 0
	engine.Inject(func(c kvtest.Call) kvtest.Fault {
		if c.Method == "CompareAndDelete" { // an Update always comes between
			_, err := behind.Update(t.Context(), id, visit)
			require.NoError(t, err)
			if rounds++; rounds == 10 {
				cancel()
			}
		}
		return kvtest.Fault{}
	})
	_, err = m.Rotate(ctx, id)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 10, rounds)
	requireKeys(t, s, 1)
	got, err := m.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, 10, got.Visits)
}

// What a Rotate leaves behind that fails at each of its steps: the old session,
// or nothing where the store doesn't know, but never two.
func TestSessionRotateFails(t *testing.T) {
	cases := []struct {
		method  string
		fault   kvtest.Fault
		oldLife bool
	}{
		{"Get", kvtest.Fault{Err: kvtest.ErrDown}, true},
		{"Now", kvtest.Fault{Err: kvtest.ErrDown}, true},
		{"Set", kvtest.Fault{Err: kvtest.ErrDown}, true},
		{"Set", kvtest.Fault{Err: kvtest.ErrUnknown}, true},
		{"Set", kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, true},
		{"CompareAndDelete", kvtest.Fault{Err: kvtest.ErrDown}, true},
		{"CompareAndDelete", kvtest.Fault{Err: kvtest.ErrUnknown}, true},
		{"CompareAndDelete", kvtest.Fault{Err: kvtest.ErrUnknown, Applied: true}, false},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.method, c.fault), func(t *testing.T) {
			engine := kvtest.NewFaulty(kv.New(nil))
			s := kv.NewWithEngine(engine, nil)
			defer s.Close()
			m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: time.Hour})
			id, err := m.Create(t.Context(), login{User: "ada"})
			require.NoError(t, err)
			engine.Inject(kvtest.Times(1, c.fault, c.method))
			newID, err := m.Rotate(t.Context(), id)
			require.ErrorIs(t, err, kvtest.ErrDown)
			require.Empty(t, newID)
			if c.oldLife {
				requireKeys(t, s, 1)
				_, err = m.Get(t.Context(), id)
				require.NoError(t, err)
			} else {
				requireKeys(t, s, 0)
			}
		})
	}
}

func TestSessionOfAClientThatWentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		m := kv.NewSessions[login](s, nil)
		engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Second}, "CompareAndDelete", "Delete"))

		id, err := m.Create(t.Context(), login{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		id, err = m.Rotate(ctx, id)
		require.NoError(t, err, "the last step goes on without the client")
		require.Error(t, ctx.Err())
		require.NoError(t, m.Destroy(ctx, id))
		requireKeys(t, s, 0)
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
