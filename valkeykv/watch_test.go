package valkeykv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
	"github.com/kvrecipes/kv/valkeykv/internal/server"
)

// next returns the next event of w.
func next(t testing.TB, w *kv.Watcher) kv.Event {
	t.Helper()
	select {
	case ev, ok := <-w.Events():
		require.True(t, ok, "the watch has ended: %v", w.Err())
		return ev
	case <-time.After(10 * time.Second):
		require.Fail(t, "no event comes")
		return kv.Event{}
	}
}

// lags checks that w ends with ErrLagged, whatever came before.
func lags(t testing.TB, w *kv.Watcher) {
	t.Helper()
	late := time.After(15 * time.Second)
	for {
		select {
		case _, ok := <-w.Events():
			if !ok {
				require.ErrorIs(t, w.Err(), kv.ErrLagged)
				return
			}
		case <-late:
			require.Fail(t, "the watch does not end")
		}
	}
}

func watch(t testing.TB, s *kv.Store, prefix string) *kv.Watcher {
	t.Helper()
	w, err := s.Watch(soon(t), prefix)
	require.NoError(t, err)
	t.Cleanup(w.Stop)
	return w
}

// ownServer returns a server that the test may break, and a store on it.
func ownServer(t *testing.T, args ...string) (*server.Server, *kv.Store, valkey.Client) {
	t.Helper()
	s, err := server.Start(args...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	option := valkey.ClientOption{InitAddress: []string{s.Addr}}
	return s, openStore(t, option), rawClient(t, option)
}

// Other programs' writes are events, too; what is no string or no write is none.
func TestWatchForeignWrites(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		w := watch(t, s, "{k}")
		for _, write := range [][]string{
			{"RPUSH", "{k}list", "a"}, {"SADD", "{k}set", "a"}, {"HSET", "{k}hash", "a", "b"},
			{"SET", "{k}1", "a"}, {"APPEND", "{k}1", "b"}, {"SETRANGE", "{k}1", "0", "x"}, {"INCRBYFLOAT", "{k}2", "1.5"},
			{"GETSET", "{k}1", "y"}, {"EXPIRE", "{k}1", "100"}, {"PERSIST", "{k}1"}, {"LPOP", "{k}list"},
			{"COPY", "{k}1", "{k}3"}, {"RENAME", "{k}3", "{k}4"}, {"GETDEL", "{k}4"}, {"UNLINK", "{k}2"},
		} {
			require.NoError(t, do(t, c, write...).Error(), write)
		}
		want := []struct {
			key string
			of  kv.EventType
		}{
			{"1", kv.EventPut}, {"1", kv.EventPut}, {"1", kv.EventPut}, {"2", kv.EventPut}, {"1", kv.EventPut},
			{"list", kv.EventDelete}, {"3", kv.EventPut}, {"3", kv.EventDelete}, {"4", kv.EventPut}, {"4", kv.EventDelete}, {"2", kv.EventDelete},
		}
		last := map[string]kv.Event{}
		for len(last) < 5 || last["2"].Type != kv.EventDelete {
			ev := next(t, w)
			key := ev.Entry.Key[len("{k}"):]
			require.Contains(t, []string{"1", "2", "3", "4", "list"}, key)
			require.NotEmpty(t, want)
			for want[0].key != key || want[0].of != ev.Type { // writes undone before they were read may be left out
				require.Contains(t, []string{"3", "4", "2"}, want[0].key, "%v instead of %v", ev, want[0])
				want = want[1:]
			}
			want = want[1:]
			last[key] = ev
		}
		require.Equal(t, "y", last["1"].Entry.Value)
	})
}

// The entry of a write that is undone before it can be read has a deadline that has passed.
func TestWatchUndoneWrites(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		w := watch(t, s, "")
		for range 50 {
			_, err := s.Batch(soon(t), kv.OpSet("k", "v", 0), kv.OpDelete("k"))
			require.NoError(t, err)
			put := next(t, w)
			require.Equal(t, kv.EventPut, put.Type)
			if put.Entry.Value != "v" {
				require.Equal(t, kv.Entry{Key: "k", ExpiresAt: time.Unix(0, 0)}, put.Entry)
			}
			require.Equal(t, kv.Event{Type: kv.EventDelete, Entry: kv.Entry{Key: "k"}}, next(t, w))
		}
	})
}

func TestWatchKeepsOtherNotifications(t *testing.T) {
	_, s, c := ownServer(t, "--notify-keyspace-events", "Eh")
	w := watch(t, s, "k")
	require.NoError(t, s.Set(soon(t), "k", "v", 0))
	next(t, w)
	config, err := c.Do(soon(t), c.B().ConfigGet().Parameter("notify-keyspace-events").Build()).AsStrMap()
	require.NoError(t, err)
	for _, class := range "EhKg$xe" {
		require.Contains(t, config["notify-keyspace-events"], string(class))
	}
}

// Whatever may have made the store miss an event ends its watches. A new one works.
func TestWatchLags(t *testing.T) {
	t.Parallel()
	srv, s, c := ownServer(t)
	for name, trouble := range map[string]func(){
		"connection killed": func() {
			require.NoError(t, c.Do(soon(t), c.B().Arbitrary("CLIENT", "KILL", "TYPE", "pubsub").Build()).Error())
		},
		"all keys flushed": func() { require.NoError(t, c.Do(soon(t), c.B().Flushall().Build()).Error()) },
		"notifications turned off": func() {
			require.NoError(t, c.Do(soon(t), c.B().Arbitrary("CONFIG", "SET", "notify-keyspace-events", "").Build()).Error())
		},
		"restart": func() {
			require.NoError(t, srv.Kill())
			require.NoError(t, srv.Restart())
		},
		"silence": func() {
			require.NoError(t, srv.Pause())
			t.Cleanup(func() { _ = srv.Resume() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, beside := watch(t, s, "a"), watch(t, s, "b")
			require.NoError(t, s.Set(soon(t), "a", "v", 0))
			require.Equal(t, "v", next(t, w).Entry.Value)
			trouble()
			lags(t, w)
			lags(t, beside)
			_ = srv.Resume()
			w = watch(t, s, "a")
			eventually(t, func(ctx context.Context) error { return s.Set(ctx, "a", "again", 0) })
			require.Equal(t, "again", next(t, w).Entry.Value)
		})
	}
}

// A demoted master goes on talking, but of changes that are not its own.
func TestWatchLagsWhenTheServerIsDemoted(t *testing.T) {
	t.Parallel()
	master, s, c := ownServer(t)
	replica, _, rc := ownServer(t, "--replicaof", "127.0.0.1 "+master.Addr[len("127.0.0.1:"):], "--repl-diskless-sync-delay", "0")
	require.NoError(t, s.Set(soon(t), "k", "v", 0))
	eventually(t, func(ctx context.Context) error { return rc.Do(ctx, rc.B().Get().Key("k").Build()).Error() })
	w := watch(t, s, "")
	require.NoError(t, c.Do(soon(t), c.B().Arbitrary("FAILOVER", "TO", "127.0.0.1", replica.Addr[len("127.0.0.1:"):]).Build()).Error())
	lags(t, w)
	require.ErrorIs(t, s.Set(soon(t), "k", "v", 0), valkeykv.ErrReadOnly)
}

func TestWatchLagsWhenSlotsMove(t *testing.T) {
	t.Parallel()
	cl, s, _ := ownCluster(t)
	w := watch(t, s, "")
	require.NoError(t, cl.Failover(soon(t), 3, false))
	lags(t, w)
	eventually(t, func(ctx context.Context) error { return s.Set(ctx, "k", "v", 0) })
	w = watch(t, s, "")
	for i := range 30 {
		require.NoError(t, s.Set(soon(t), fmt.Sprint(i), "v", 0))
		require.Equal(t, fmt.Sprint(i), next(t, w).Entry.Key)
	}
	require.NoError(t, cl.MoveSlot(soon(t), 0))
	lags(t, w)
}

// Where CONFIG is forbidden, Watch finds out by itself whether changes are told.
func TestWatchWithoutConfig(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		each := func(args ...string) {
			for _, n := range c.Nodes() {
				require.NoError(t, n.Do(soon(t), n.B().Arbitrary(args...).Build()).Error())
			}
		}
		each("ACL", "SETUSER", "hosted", "on", ">secret", "~*", "&*", "+@all", "-config")
		option := valkey.ClientOption{Username: "hosted", Password: "secret"}
		for addr := range c.Nodes() {
			option.InitAddress = append(option.InitAddress, addr)
		}
		hosted := openStore(t, option)

		each("CONFIG", "SET", "notify-keyspace-events", "")
		_, err := hosted.Watch(soon(t), "")
		require.ErrorContains(t, err, "notify-keyspace-events")
		each("CONFIG", "SET", "notify-keyspace-events", "KA")
		w := watch(t, hosted, "")
		require.NoError(t, hosted.Set(soon(t), "k", "v", 0))
		require.Equal(t, "k", next(t, w).Entry.Key)
		n, err := s.Count(soon(t), "kv:probe")
		require.NoError(t, err)
		require.Zero(t, n)
	})
}

// Watches come and go without leaving subscriptions behind.
func TestWatchSubscriptionsEnd(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		keep := watch(t, s, "keep")
		for i := range 100 {
			w := watch(t, s, fmt.Sprint("p", i))
			require.NoError(t, s.Set(soon(t), fmt.Sprint("p", i, "x"), "v", 0))
			next(t, w)
			w.Stop()
		}
		eventually(t, func(ctx context.Context) error {
			for _, n := range c.Nodes() {
				patterns, err := n.Do(ctx, n.B().PubsubNumpat().Build()).AsInt64()
				if err != nil || patterns > 1 {
					return fmt.Errorf("%d patterns, %w", patterns, err)
				}
			}
			return nil
		})
		require.NoError(t, s.Set(soon(t), "keep", "v", 0))
		next(t, keep)
	})
}

// eventually calls f until it succeeds.
func eventually(t testing.TB, f func(ctx context.Context) error) {
	t.Helper()
	ctx := soon(t)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			require.NoError(t, err)
		case <-ticker.C:
		}
	}
}

// ownCluster returns a cluster that the test may break.
func ownCluster(t *testing.T) (*server.Cluster, *kv.Store, valkey.Client) {
	t.Helper()
	cl, err := server.StartCluster(3, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cl.Stop()) })
	option := valkey.ClientOption{InitAddress: cl.Addrs()}
	return cl, openStore(t, option), rawClient(t, option)
}
