package valkeykv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv/internal/server"
)

// Behind sentinels the store follows the master to its replica.
func TestSentinels(t *testing.T) {
	t.Parallel()
	master, _, _ := ownServer(t)
	_, _, replica := ownServer(t, "--replicaof", "127.0.0.1 "+master.Addr[len("127.0.0.1:"):], "--repl-diskless-sync-delay", "0")
	sentinel, err := server.StartSentinel(master)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sentinel.Stop()) })
	s := openStore(t, valkey.ClientOption{
		InitAddress: []string{sentinel.Addr},
		Sentinel:    valkey.SentinelOption{MasterSet: "main", TopologyRefreshInterval: 200 * time.Millisecond},
	})
	fillKeys(t, s, "key", 100)
	w := watch(t, s, "n")
	n, err := s.Incr(soon(t), "n", 1, time.Hour)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, "1", next(t, w).Entry.Value)
	eventually(t, func(ctx context.Context) error { return replica.Do(ctx, replica.B().Get().Key("n").Build()).Error() })
	eventually(t, func(ctx context.Context) error { // the sentinel has to have heard of the replica
		c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{sentinel.Addr}, ForceSingleClient: true, DisableCache: true})
		if err != nil {
			return err
		}
		defer c.Close()
		replicas, err := c.Do(ctx, c.B().Arbitrary("SENTINEL", "REPLICAS", "main").Build()).ToArray()
		if err == nil && len(replicas) == 0 {
			err = fmt.Errorf("no replica")
		}
		return err
	})

	require.NoError(t, master.Kill())
	lags(t, w)
	ctx := longer(t)
	for { // until the replica has been made the master
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err = s.SetNX(short, "after", "v", 0)
		cancel()
		if err == nil {
			break
		}
		require.NoError(t, ctx.Err(), err)
	}
	count, err := s.Count(soon(t), "key")
	require.NoError(t, err)
	require.Equal(t, 100, count)
	w = watch(t, s, "n")
	n, err = s.Incr(soon(t), "n", 1, time.Hour)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.Equal(t, kv.EventPut, next(t, w).Type)
}
