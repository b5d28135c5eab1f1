package kv_test

import (
	"context"
	"fmt"
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
