package kv_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/require"
)

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
