package valkeykv_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// The recipes do on a server what they do in memory, and between processes.

// names are what users may call things, braces and all.
var names = []string{"plain", "{a}", "}{", "{}", "a:b", "%25", "{user}:1{2}", "\x00\xff"}

// twoProcesses runs f with two stores on each kind of server, as two processes have them.
func twoProcesses(t *testing.T, f func(t *testing.T, stores []*kv.Store)) {
	t.Helper()
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			option := target.option(t)
			flush(t, rawClient(t, option))
			f(t, []*kv.Store{openStore(t, option), openStore(t, option)})
		})
	}
}

// both runs f n times on each store, all at the same time.
func both(t *testing.T, stores []*kv.Store, n int, f func(s *kv.Store, i int) error) {
	t.Helper()
	errs := make(chan error, n*len(stores))
	var all sync.WaitGroup
	for _, s := range stores {
		for i := range n {
			all.Go(func() { errs <- f(s, i) })
		}
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

func TestLockBetweenProcesses(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		for _, name := range names {
			var inside, total atomic.Int64
			fence := int64(-1) // guarded by the lock
			lockers := []*kv.Locker{kv.NewLocker(stores[0], nil), kv.NewLocker(stores[1], nil)}
			both(t, stores, 4, func(s *kv.Store, i int) error {
				for range 5 {
					l := lockers[0]
					if s == stores[1] {
						l = lockers[1]
					}
					k, err := l.Lock(soon(t), name)
					if err != nil {
						return err
					}
					if n := inside.Add(1); n != 1 {
						return fmt.Errorf("%d hold the lock", n)
					}
					if k.Fence() <= fence {
						return fmt.Errorf("fence %d after %d", k.Fence(), fence)
					}
					fence = k.Fence()
					total.Add(1)
					inside.Add(-1)
					if err := k.Unlock(soon(t)); err != nil {
						return err
					}
				}
				return nil
			})
			require.EqualValues(t, 40, total.Load())
		}
	})
}

// A waiter of another process gets the lock by push, long before it would look by itself.
func TestLockIsHandedOnByPush(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		held, err := kv.NewLocker(s, nil).Lock(soon(t), "x")
		require.NoError(t, err)
		got := make(chan error, 1)
		go func() {
			k, err := kv.NewLocker(s, nil).Lock(soon(t), "x")
			if err == nil {
				err = k.Unlock(soon(t))
			}
			got <- err
		}()
		eventually(t, func(ctx context.Context) error { return waiting(ctx, c) })
		begun := time.Now()
		require.NoError(t, held.Unlock(soon(t)))
		require.NoError(t, <-got)
		require.Less(t, time.Since(begun), 5*time.Second)
	})
}

// waiting returns an error while nobody is subscribed to changes.
func waiting(ctx context.Context, c valkey.Client) error {
	for _, n := range c.Nodes() {
		if patterns, err := n.Do(ctx, n.B().PubsubNumpat().Build()).AsInt64(); err != nil || patterns > 0 {
			return err
		}
	}
	return errors.New("nobody waits")
}

// Held makes a write conditional on the lock, on a cluster within one hash tag.
func TestLockHeldInTxn(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		s := stores[0].Namespace("{orders}")
		k, err := kv.NewLocker(s, nil).Lock(soon(t), "x")
		require.NoError(t, err)
		ok, _, err := s.Txn(soon(t), []kv.Cond{k.Held()}, kv.OpSet("total", "1", 0))
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, k.Unlock(soon(t)))
		ok, _, err = s.Txn(soon(t), []kv.Cond{k.Held()}, kv.OpSet("total", "2", 0))
		require.NoError(t, err)
		require.False(t, ok)
	})
}

func TestLimitsBetweenProcesses(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		for _, algorithm := range []kv.Algorithm{kv.FixedWindow, kv.SlidingWindow, kv.TokenBucket} {
			for _, name := range names {
				var allowed atomic.Int64
				both(t, stores, 2, func(s *kv.Store, _ int) error {
					r, err := kv.NewRateLimiter(s, kv.Limit{Requests: 10, Window: time.Hour, Algorithm: algorithm},
						&kv.RateLimiterOptions{Prefix: fmt.Sprint("limit", algorithm)})
					if err != nil {
						return err
					}
					for range 10 {
						result, err := r.Allow(soon(t), name)
						if err != nil {
							return err
						}
						if result.Allowed {
							allowed.Add(1)
						}
					}
					return nil
				})
				require.EqualValues(t, 10, allowed.Load(), "%v %q", algorithm, name)
			}
		}
	})
}

func TestIdempotencyBetweenProcesses(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		for _, name := range names {
			var runs, events, processed atomic.Int64
			both(t, stores, 4, func(s *kv.Store, _ int) error {
				i := kv.NewIdempotency(s, &kv.IdempotencyOptions{Wait: 10 * time.Second})
				r, _, err := i.Execute(soon(t), name, "print", func(context.Context) (kv.Response, error) {
					return kv.Response{Status: 201, Body: fmt.Append(nil, runs.Add(1))}, nil
				})
				if err != nil {
					return err
				}
				if r.Status != 201 || string(r.Body) != "1" {
					return fmt.Errorf("got %d %q", r.Status, r.Body)
				}
				_, _, err = i.Execute(soon(t), name, "another", nil)
				if !errors.Is(err, kv.ErrMismatch) {
					return fmt.Errorf("another fingerprint: %w", err)
				}
				did, err := i.Process(soon(t), name, func(context.Context) error { events.Add(1); return nil })
				if did {
					processed.Add(1)
				}
				if errors.Is(err, kv.ErrInProgress) {
					return nil
				}
				return err
			})
			require.EqualValues(t, 1, runs.Load(), name)
			require.EqualValues(t, 1, events.Load(), name)
			require.EqualValues(t, 1, processed.Load(), name)
		}
	})
}

func TestGuardedBetweenProcesses(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		for _, name := range names {
			var runs atomic.Int64
			compute := func(context.Context) (string, error) { return fmt.Sprint(runs.Add(1)), nil }
			g := []*kv.Guarded[string]{kv.NewGuarded[string](stores[0], nil), kv.NewGuarded[string](stores[1], nil)}
			of := func(s *kv.Store) *kv.Guarded[string] {
				if s == stores[0] {
					return g[0]
				}
				return g[1]
			}
			both(t, stores, 8, func(s *kv.Store, _ int) error {
				v, err := of(s).Get(soon(t), name, compute)
				if err == nil && v != "1" {
					err = fmt.Errorf("got %q", v)
				}
				return err
			})
			require.EqualValues(t, 1, runs.Load(), name)
			require.NoError(t, g[0].Invalidate(soon(t), name))
			v, err := g[1].Get(soon(t), name, compute)
			require.NoError(t, err)
			require.Equal(t, "2", v)
		}
	})
}

func TestSessionsBetweenProcesses(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		type data struct{ User string }
		a, b := kv.NewSessions[data](stores[0], nil), kv.NewSessions[data](stores[1], nil)
		id, err := a.Create(soon(t), data{"ada"})
		require.NoError(t, err)
		d, err := b.Get(soon(t), id)
		require.NoError(t, err)
		require.Equal(t, "ada", d.User)
		_, err = b.Update(soon(t), id, func(d data) (data, error) { d.User += "!"; return d, nil })
		require.NoError(t, err)
		var rotated atomic.Int64
		var latest atomic.Value
		both(t, stores, 4, func(s *kv.Store, _ int) error {
			m := a
			if s == stores[1] {
				m = b
			}
			next, err := m.Rotate(soon(t), id)
			if errors.Is(err, kv.ErrNotFound) {
				return nil
			}
			if err == nil {
				rotated.Add(1)
				latest.Store(next)
			}
			return err
		})
		require.EqualValues(t, 1, rotated.Load())
		d, err = a.Get(soon(t), latest.Load().(string))
		require.NoError(t, err)
		require.Equal(t, "ada!", d.User)
		require.NoError(t, a.Destroy(soon(t), latest.Load().(string)))
		_, err = b.Get(soon(t), latest.Load().(string))
		require.ErrorIs(t, err, kv.ErrNotFound)
	})
}

func TestFlagsBetweenProcesses(t *testing.T) {
	twoProcesses(t, func(t *testing.T, stores []*kv.Store) {
		var flags []*kv.Flags
		for _, s := range stores {
			f, err := kv.NewFlags(s, &kv.FlagsOptions{OnError: func(flag string, err error) { t.Errorf("flag %q: %v", flag, err) }})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, f.Close()) })
			flags = append(flags, f)
		}
		for _, name := range names {
			require.False(t, flags[1].Enabled(name, "u"))
			for _, value := range []string{"on", "off", "100"} {
				require.NoError(t, flags[0].Set(soon(t), name, value))
				eventually(t, func(context.Context) error {
					if flags[1].Enabled(name, "u") != (value != "off") {
						return fmt.Errorf("%q is not %s yet", name, value)
					}
					return nil
				})
			}
		}
	})
}
