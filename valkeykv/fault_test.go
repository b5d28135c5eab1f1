package valkeykv_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
)

// operation is one call of a store, by its name.
type operation struct {
	name  string
	write bool
	f     func(ctx context.Context, s *kv.Store) error
}

var operations = []operation{
	{"now", false, func(ctx context.Context, s *kv.Store) error { _, err := s.Now(ctx); return err }},
	{"get", false, func(ctx context.Context, s *kv.Store) error { _, err := s.Get(ctx, "k"); return err }},
	{"entry", false, func(ctx context.Context, s *kv.Store) error { _, err := s.Entry(ctx, "k"); return err }},
	{"ttl", false, func(ctx context.Context, s *kv.Store) error { _, err := s.TTL(ctx, "k"); return err }},
	{"getmany", false, func(ctx context.Context, s *kv.Store) error { _, err := s.GetMany(ctx, "k", "l"); return err }},
	{"count", false, func(ctx context.Context, s *kv.Store) error { _, err := s.Count(ctx, "k"); return err }},
	{"page", false, func(ctx context.Context, s *kv.Store) error { _, _, err := s.Page(ctx, kv.Range{}, "", 10); return err }},
	{"watch", false, func(ctx context.Context, s *kv.Store) error { _, err := s.Watch(ctx, "k"); return err }},
	{"set", true, func(ctx context.Context, s *kv.Store) error { return s.Set(ctx, "k", "v", time.Hour) }},
	{"put", true, func(ctx context.Context, s *kv.Store) error { return s.Put(ctx, kv.Entry{Key: "k", Value: "v"}) }},
	{"setnx", true, func(ctx context.Context, s *kv.Store) error { _, err := s.SetNX(ctx, "k", "v", 0); return err }},
	{"incr", true, func(ctx context.Context, s *kv.Store) error { _, err := s.Incr(ctx, "n", 1, 0); return err }},
	{"incr ttl", true, func(ctx context.Context, s *kv.Store) error { _, err := s.Incr(ctx, "n", 1, time.Hour); return err }},
	{"cas", true, func(ctx context.Context, s *kv.Store) error {
		_, err := s.CompareAndSwap(ctx, "k", "v", "w", 0)
		return err
	}},
	{"cad", true, func(ctx context.Context, s *kv.Store) error { _, err := s.CompareAndDelete(ctx, "k", "v"); return err }},
	{"expire", true, func(ctx context.Context, s *kv.Store) error { _, err := s.Expire(ctx, "k", time.Hour); return err }},
	{"delete", true, func(ctx context.Context, s *kv.Store) error { _, err := s.Delete(ctx, "k"); return err }},
	{"getdelete", true, func(ctx context.Context, s *kv.Store) error { _, err := s.GetDelete(ctx, "k"); return err }},
	{"setmany", true, func(ctx context.Context, s *kv.Store) error {
		return s.SetMany(ctx, map[string]string{"k": "v", "l": "v"}, 0)
	}},
	{"txn", true, func(ctx context.Context, s *kv.Store) error {
		_, _, err := s.Txn(ctx, nil, kv.OpSet("k", "v", 0))
		return err
	}},
}

// within checks that f returns before its context is long over, and returns what it returns.
func within(t testing.TB, limit time.Duration, f func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begun := time.Now()
	err := f(ctx)
	require.Less(t, time.Since(begun), limit+500*time.Millisecond)
	return err
}

func TestServerDown(t *testing.T) {
	srv, s, _ := ownServer(t)
	require.NoError(t, s.Set(soon(t), "k", "v", 0))
	require.NoError(t, srv.Kill())
	for _, op := range operations { // the first may find the connections that were there
		_ = within(t, 200*time.Millisecond, func(ctx context.Context) error { return op.f(ctx, s) })
	}
	for _, op := range operations {
		err := within(t, 200*time.Millisecond, func(ctx context.Context) error { return op.f(ctx, s) })
		require.ErrorIs(t, err, valkeykv.ErrUnavailable, op.name)
		var cause *net.OpError
		require.ErrorAs(t, err, &cause, op.name)
		require.NotErrorIs(t, err, kv.ErrUnknownOutcome, "%s: nothing was sent", op.name)
	}
	require.NoError(t, srv.Restart())
	for _, op := range operations {
		if err := op.f(soon(t), s); !errors.Is(err, kv.ErrNotFound) {
			require.NoError(t, err, op.name)
		}
	}
}

// Without a deadline, a read gives up after a while.
func TestServerDownWithoutDeadline(t *testing.T) {
	t.Parallel()
	srv, s, _ := ownServer(t)
	require.NoError(t, srv.Kill())
	begun := time.Now()
	_, err := s.Get(context.Background(), "k")
	require.ErrorIs(t, err, valkeykv.ErrUnavailable)
	require.Less(t, time.Since(begun), 10*time.Second)
	require.Greater(t, time.Since(begun), time.Second)
}

func TestServerSilent(t *testing.T) {
	srv, s, _ := ownServer(t)
	require.NoError(t, s.Set(soon(t), "k", "v", 0))
	require.NoError(t, srv.Pause())
	t.Cleanup(func() { _ = srv.Resume() })
	silent := func() {
		var all sync.WaitGroup
		for _, op := range operations {
			all.Go(func() {
				err := within(t, 300*time.Millisecond, func(ctx context.Context) error { return op.f(ctx, s) })
				if op.write {
					require.ErrorIs(t, err, kv.ErrUnknownOutcome, op.name)
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					require.ErrorIs(t, err, valkeykv.ErrUnavailable, op.name)
				}
			})
		}
		all.Wait()
	}
	silent()

	// From here on the connections are broken, and calls without a deadline are making new ones.
	var patient sync.WaitGroup
	for range 16 {
		patient.Go(func() { _ = s.Set(context.Background(), "k", "patient", 0) })
	}
	for range 3 {
		silent()
	}
	require.NoError(t, srv.Resume())
	patient.Wait()
	eventually(t, func(ctx context.Context) error { return s.Set(ctx, "k", "again", 0) })
}

// A write whose answer is lost is reported as that and never sent twice.
func TestUnknownOutcome(t *testing.T) {
	srv, err := standalone()
	require.NoError(t, err)
	p := startProxy(t, srv.Addr)
	s := openStore(t, quiet(p.addr))
	c := rawClient(t, valkey.ClientOption{InitAddress: []string{srv.Addr}})
	flush(t, c)
	for i := range 10 {
		for _, incr := range []func(ctx context.Context) error{
			func(ctx context.Context) error { _, err := s.Incr(ctx, "n", 1, 0); return err },
			func(ctx context.Context) error { _, err := s.Incr(ctx, "n", 1, time.Hour); return err },
			func(ctx context.Context) error {
				_, err := s.Batch(ctx, kv.OpIncr("n", 1, 0), kv.OpGet("n"))
				return err
			},
			func(ctx context.Context) error { _, _, err := s.Txn(ctx, nil, kv.OpIncr("n", 1, 0)); return err },
		} {
			require.NoError(t, incr(soon(t))) // connects, and makes the script known
			before, err := do(t, c, "GET", "n").AsInt64()
			require.NoError(t, err)
			p.cut.Store(true)
			err = incr(soon(t))
			require.False(t, p.cut.Load())
			require.ErrorIs(t, err, kv.ErrUnknownOutcome)
			require.ErrorIs(t, err, valkeykv.ErrUnavailable)
			after, err := do(t, c, "GET", "n").AsInt64()
			require.NoError(t, err)
			require.Equal(t, before+1, after, "round %d: applied once", i)
		}
	}
}

func TestServerFull(t *testing.T) {
	_, s, c := ownServer(t, "--maxmemory-policy", "noeviction")
	ctx := soon(t)
	require.NoError(t, s.Set(ctx, "k", "v", 0))
	require.NoError(t, s.Set(ctx, "n", "1", 0))
	require.NoError(t, s.Set(ctx, "cas", "v", 0))
	require.NoError(t, s.Put(ctx, kv.Entry{Key: "m", Value: "1", Metadata: "{}"}))
	limiter, err := kv.NewRateLimiter(s, kv.Limit{Requests: 1000, Window: time.Hour}, nil)
	require.NoError(t, err)
	limit := func(bytes string) {
		require.NoError(t, c.Do(ctx, c.B().Arbitrary("CONFIG", "SET", "maxmemory", bytes).Build()).Error())
	}
	for name, op := range map[string]func() error{
		"cas": func() error { _, err := s.CompareAndSwap(ctx, "cas", "v", "v", 0); return err },
		"txn": func() error { _, _, err := s.Txn(ctx, nil, kv.OpSet("a", "x", 0), kv.OpSet("b", "x", 0)); return err },
		"put": func() error {
			return s.Put(ctx, kv.Entry{Key: "p", Value: "v", ExpiresAt: time.Now().Add(time.Hour)})
		},
		"incr m": func() error { _, err := s.Incr(ctx, "m", 1, 0); return err },
		"setnx":  func() error { _, err := s.SetNX(ctx, "new", "v", 0); return err },
		"take":   func() error { _, err := limiter.Allow(ctx, "key"); return err },
		"incr":   func() error { _, err := s.Incr(ctx, "n", 1, 0); return err },
		"set":    func() error { return s.Set(ctx, "k", "w", 0) },
		"batch": func() error {
			r, err := s.Batch(ctx, kv.OpSet("c", "x", 0), kv.OpGet("k"))
			if err != nil {
				return err
			}
			require.NoError(t, r[1].Err)
			return r[0].Err
		},
	} {
		require.NoError(t, op(), name)
		limit("1")
		err := op()
		require.ErrorIs(t, err, valkeykv.ErrFull, name)
		require.NotErrorIs(t, err, kv.ErrUnknownOutcome, name)
		var answer *valkey.ValkeyError
		require.ErrorAs(t, err, &answer, name)
		_, err = s.Get(ctx, "k")
		require.NoError(t, err, "reads go on")
		_, err = s.Delete(ctx, "new", "a")
		require.NoError(t, err, "deletes go on")
		limit("0")
	}
}

func TestReadOnlyReplica(t *testing.T) {
	t.Parallel()
	master, _, mc := ownServer(t)
	_, s, c := ownServer(t, "--replicaof", "127.0.0.1 "+master.Addr[len("127.0.0.1:"):])
	require.NoError(t, do(t, mc, "SET", "k", "v").Error())
	eventually(t, func(ctx context.Context) error { _, err := s.Get(ctx, "k"); return err })
	for _, op := range operations {
		if !op.write {
			continue
		}
		err := op.f(soon(t), s)
		require.ErrorIs(t, err, valkeykv.ErrReadOnly, op.name)
		require.NotErrorIs(t, err, kv.ErrUnknownOutcome, op.name)
	}
	require.NoError(t, c.Do(soon(t), c.B().Arbitrary("CONFIG", "SET", "replica-serve-stale-data", "no").Build()).Error())
	require.NoError(t, master.Kill())
	eventually(t, func(ctx context.Context) error { // it notices in its own time
		if _, err := s.Get(ctx, "k"); !errors.Is(err, valkeykv.ErrUnavailable) {
			return fmt.Errorf("stale: %w", err)
		}
		return nil
	})
}

func TestAccessDenied(t *testing.T) {
	srv, s, c := ownServer(t, "--requirepass", "")
	require.NoError(t, s.Set(soon(t), "k", "v", 0))
	require.NoError(t, c.Do(soon(t), c.B().Arbitrary("ACL", "SETUSER", "reader", "on", ">secret", "~k*", "+@read", "+hello", "+cluster|slots").Build()).Error())
	option := valkey.ClientOption{InitAddress: []string{srv.Addr}, Username: "reader", Password: "wrong"}
	_, err := valkeykv.Open(option, nil)
	require.ErrorIs(t, err, valkeykv.ErrDenied)
	var answer *valkey.ValkeyError
	require.ErrorAs(t, err, &answer)
	require.NotContains(t, err.Error(), "wrong:")

	option.Password, option.ForceSingleClient = "secret", true
	reader := openStore(t, option)
	value, err := reader.Get(soon(t), "k")
	require.NoError(t, err)
	require.Equal(t, "v", value)
	require.ErrorIs(t, reader.Set(soon(t), "k", "w", 0), valkeykv.ErrDenied)
	_, err = reader.Get(soon(t), "other")
	require.ErrorIs(t, err, valkeykv.ErrDenied)
	_, err = reader.Watch(soon(t), "k")
	require.ErrorIs(t, err, valkeykv.ErrDenied)
}

func TestServerLoading(t *testing.T) {
	t.Parallel()
	srv, s, c := ownServer(t, "--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
	entries := map[string]string{}
	for i := range 200 {
		entries[fmt.Sprint("key", i)] = strings.Repeat("v", 100)
	}
	require.NoError(t, s.SetMany(soon(t), entries, 0))
	require.NoError(t, c.Do(soon(t), c.B().Save().Build()).Error())
	require.NoError(t, srv.Kill())
	require.NoError(t, srv.RestartLoading())
	loading := func(err error) bool {
		var answer *valkey.ValkeyError
		return errors.Is(err, valkeykv.ErrUnavailable) && errors.As(err, &answer) && answer.IsLoading()
	}
	eventually(t, func(ctx context.Context) error { // the connections that were there break first
		if err := s.Set(ctx, "k", "v", 0); !loading(err) {
			require.Error(t, err, "it has loaded already")
			return err
		}
		return nil
	})
	err := within(t, 100*time.Millisecond, func(ctx context.Context) error { _, err := s.Get(ctx, "key0"); return err })
	require.True(t, loading(err) || errors.Is(err, context.DeadlineExceeded), err)
	value, err := s.Get(soon(t), "key0") // reads wait for it
	if err != nil {
		require.True(t, loading(err), err)
		eventually(t, func(ctx context.Context) error { value, err = s.Get(ctx, "key0"); return err })
	}
	require.Equal(t, entries["key0"], value)
}
