package valkeykv_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
	"github.com/kvrecipes/kv/valkeykv/internal/server"
)

// stops are what ends the servers that tests share.
var stops struct {
	sync.Mutex
	all []func() error
}

func stopLater(stop func() error) {
	stops.Lock()
	defer stops.Unlock()
	stops.all = append(stops.all, stop)
}

// The servers that tests share which do not break them. They are started when they are first needed.
var (
	standalone = sync.OnceValues(func() (*server.Server, error) {
		s, err := server.Start()
		if err == nil {
			stopLater(s.Stop)
		}
		return s, err
	})
	cluster = sync.OnceValues(func() (*server.Cluster, error) {
		c, err := server.StartCluster(3, 1)
		if err == nil {
			stopLater(c.Stop)
		}
		return c, err
	})
)

func TestMain(m *testing.M) {
	if _, err := server.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "valkeykv:", err)
		os.Exit(1)
	}
	code := m.Run()
	for _, stop := range stops.all {
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, "valkeykv: stop the servers:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// target is a kind of server that tests run on.
type target struct {
	name   string
	option func(t *testing.T) valkey.ClientOption
}

var targets = []target{
	{"standalone", func(t *testing.T) valkey.ClientOption {
		s, err := standalone()
		require.NoError(t, err)
		return valkey.ClientOption{InitAddress: []string{s.Addr}}
	}},
	{"cluster", func(t *testing.T) valkey.ClientOption {
		c, err := cluster()
		require.NoError(t, err)
		return valkey.ClientOption{InitAddress: c.Addrs()[:3]}
	}},
}

// onTargets runs f on an empty store of each kind of server, with a client on the same.
func onTargets(t *testing.T, f func(t *testing.T, s *kv.Store, c valkey.Client)) {
	t.Helper()
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			option := target.option(t)
			c := rawClient(t, option)
			flush(t, c)
			f(t, openStore(t, option), c)
		})
	}
}

func openStore(t *testing.T, option valkey.ClientOption) *kv.Store {
	t.Helper()
	s, err := valkeykv.Open(option, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// rawClient is the client of a program that knows nothing of kv.
func rawClient(t testing.TB, option valkey.ClientOption) valkey.Client {
	t.Helper()
	option.DisableCache = true
	c, err := valkey.NewClient(option)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// flush deletes every key, and waits until the replicas have done so, too.
func flush(t testing.TB, c valkey.Client) {
	t.Helper()
	for _, n := range c.Nodes() {
		err := n.Do(context.Background(), n.B().Flushall().Sync().Build()).Error()
		if e, ok := valkey.IsValkeyErr(err); ok && isReadOnly(e) {
			continue // a replica follows its master
		}
		require.NoError(t, err)
	}
}

func isReadOnly(err error) bool { return len(err.Error()) > 8 && err.Error()[:8] == "READONLY" }

// do sends a raw command on key.
func do(t testing.TB, c valkey.Client, args ...string) valkey.ValkeyResult {
	t.Helper()
	cmd := c.B().Arbitrary(args[0])
	if len(args) > 1 {
		cmd = cmd.Keys(args[1])
	}
	if len(args) > 2 {
		cmd = cmd.Args(args[2:]...)
	}
	return c.Do(context.Background(), cmd.Build())
}

// soon bounds what must not wait for anything.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}
