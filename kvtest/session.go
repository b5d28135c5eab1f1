package kvtest

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

type profile struct {
	User string
	Seen int
}

var sessionCases = []testCase{
	{
		name:     "Sessions",
		contract: "Unknown, expired and malformed ids are all ErrNotFound. Create: 256-bit random id; the store holds only its SHA-256.",
		run: func(e *env) {
			m, other := kv.NewSessions[profile](e.store, nil), kv.NewSessions[profile](e.peer(), nil)
			id, err := m.Create(e.ctx, profile{User: "ada"})
			e.NoError(err)
			for entry, err := range e.store.Scan(e.ctx, kv.Range{}) {
				e.NoError(err)
				e.NotContains(entry.Key+entry.Value+entry.Metadata, id)
				e.NotContains(entry.Key+entry.Value+entry.Metadata, strings.ToLower(id))
			}
			data, err := other.Get(e.ctx, id)
			e.NoError(err)
			e.Equal(profile{User: "ada"}, data)
			data, err = other.Update(e.ctx, id, func(p profile) (profile, error) { p.Seen++; return p, nil })
			e.NoError(err)
			e.Equal(profile{"ada", 1}, data)
			for _, unknown := range []string{"", "x", id[1:], id + "A", strings.Repeat("A", len(id)), strings.Repeat("z", 1000), "\x00", "*"} {
				_, err := m.Get(e.ctx, unknown)
				e.ErrorIsf(err, kv.ErrNotFound, "id %q", unknown)
			}
			e.NoError(m.Destroy(e.ctx, id))
			_, err = other.Get(e.ctx, id)
			e.ErrorIs(err, kv.ErrNotFound)
			e.Empty(e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "Sessions/deadlines",
		contract: "Get and Update slide the idle deadline, never past MaxAge from creation.",
		run: func(e *env) {
			m := kv.NewSessions(e.store, &kv.SessionOptions[string]{IdleTTL: 4 * e.unit(), MaxAge: 7 * e.unit()})
			idle, err := m.Create(e.ctx, "idle")
			e.NoError(err)
			used, err := m.Create(e.ctx, "used")
			e.NoError(err)
			born := e.now()
			keep := func(data string) (string, error) { return data, nil }
			for i := range 2 {
				e.wait(2 * e.unit())
				var err error
				if i == 0 {
					_, err = m.Get(e.ctx, used)
				} else {
					_, err = m.Update(e.ctx, used, keep)
				}
				if e.h.Virtual || e.now().Sub(born) < 5*e.unit() {
					e.NoError(err)
				}
			}
			e.wait(e.slack() + e.h.Resolution)
			_, err = m.Get(e.ctx, idle)
			e.ErrorIs(err, kv.ErrNotFound, "an idle session")
			e.waitUntil(born.Add(7*e.unit() + e.slack() + 2*time.Millisecond))
			_, err = m.Get(e.ctx, used)
			e.ErrorIs(err, kv.ErrNotFound, "a session older than MaxAge")
		},
	},
	{
		name:     "Sessions/Update never resurrects",
		contract: "Update never resurrects a destroyed session.",
		run: func(e *env) {
			m := kv.NewSessions[profile](e.store, nil)
			id, err := m.Create(e.ctx, profile{})
			e.NoError(err)
			_, err = m.Update(e.ctx, id, func(p profile) (profile, error) {
				e.NoError(m.Destroy(e.ctx, id))
				return p, nil
			})
			e.ErrorIs(err, kv.ErrNotFound)
			e.Empty(e.keysOf(e.store, kv.Range{}))
		},
	},
	{
		name:     "Sessions/Rotate",
		contract: "Rotate keeps the data and kills the old id; one of two racing callers wins.",
		run: func(e *env) {
			m, other := kv.NewSessions[profile](e.store, nil), kv.NewSessions[profile](e.peer(), nil)
			id, err := m.Create(e.ctx, profile{User: "ada"})
			e.NoError(err)
			var winners atomic.Int64
			var newID atomic.Value
			e.parallel(8, func(g int) error {
				sessions := m
				if g%2 == 0 {
					sessions = other
				}
				rotated, err := sessions.Rotate(e.ctx, id)
				switch {
				case err == nil:
					winners.Add(1)
					newID.Store(rotated)
				case !errors.Is(err, kv.ErrNotFound):
					return err
				}
				return nil
			})
			e.EqualValues(1, winners.Load())
			_, err = m.Get(e.ctx, id)
			e.ErrorIs(err, kv.ErrNotFound)
			data, err := other.Get(e.ctx, newID.Load().(string))
			e.NoError(err)
			e.Equal("ada", data.User)
			e.Len(e.keysOf(e.store, kv.Range{}), 1)
		},
	},
}
