package valkeykv_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// quiet returns options of a client that sends nothing by itself.
func quiet(addr string) valkey.ClientOption {
	return valkey.ClientOption{InitAddress: []string{addr}, Dialer: net.Dialer{KeepAlive: time.Hour}, ForceSingleClient: true, PipelineMultiplex: -1}
}

// Each operation takes one round trip.
func TestRoundTrips(t *testing.T) {
	srv, err := standalone()
	require.NoError(t, err)
	p := startProxy(t, srv.Addr)
	s := openStore(t, quiet(p.addr))
	flush(t, rawClient(t, valkey.ClientOption{InitAddress: []string{srv.Addr}}))
	ctx := t.Context()
	hundred := map[string]string{}
	var keys []string
	var ops []kv.Op
	for i := range 100 {
		key := fmt.Sprint("many", i)
		hundred[key] = "v"
		keys = append(keys, key)
		ops = append(ops, kv.OpIncr(fmt.Sprint("count", i), 1, time.Hour), kv.OpSetNX(key, "v", 0), kv.OpExpire(key, 0))
	}
	limiter, err := kv.NewRateLimiter(s, kv.Limit{Requests: 1000, Window: time.Hour}, nil)
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"Now", func() error { _, err := s.Now(ctx); return err }},
		{"Set", func() error { return s.Set(ctx, "n", "1", time.Hour) }},
		{"Get", func() error { _, err := s.Get(ctx, "n"); return err }},
		{"Entry", func() error { _, err := s.Entry(ctx, "n"); return err }},
		{"Exists", func() error { _, err := s.Exists(ctx, "n"); return err }},
		{"TTL", func() error { _, err := s.TTL(ctx, "n"); return err }},
		{"SetNX", func() error { _, err := s.SetNX(ctx, "n", "1", time.Hour); return err }},
		{"Put", func() error { return s.Put(ctx, kv.Entry{Key: "p", Value: "v", Metadata: "{}"}) }},
		{"Put with a deadline", func() error {
			return s.Put(ctx, kv.Entry{Key: "p", Value: "v", ExpiresAt: time.Now().Add(time.Hour)})
		}},
		{"Incr", func() error { _, err := s.Incr(ctx, "n", 1, 0); return err }},
		{"Incr with a ttl", func() error { _, err := s.Incr(ctx, "n", 1, time.Hour); return err }},
		{"Expire", func() error { _, err := s.Expire(ctx, "n", time.Hour); return err }},
		{"Expire, NoExpiry", func() error { _, err := s.Expire(ctx, "n", kv.NoExpiry); return err }},
		{"Expire, KeepTTL", func() error { _, err := s.Expire(ctx, "n", kv.KeepTTL); return err }},
		{"GetExpire", func() error { _, err := s.GetExpire(ctx, "n", time.Hour); return err }},
		{"CompareAndSwap", func() error { _, err := s.CompareAndSwap(ctx, "p", "v", "w", time.Hour); return err }},
		{"CompareAndDelete", func() error { _, err := s.CompareAndDelete(ctx, "p", "no"); return err }},
		{"Delete", func() error { _, err := s.Delete(ctx, "p"); return err }},
		{"GetDelete", func() error {
			require.NoError(t, s.Set(ctx, "g", "v", 0))
			p.trips.Add(-1)
			_, err := s.GetDelete(ctx, "g")
			return err
		}},
		{"SetMany of 100", func() error { return s.SetMany(ctx, hundred, time.Hour) }},
		{"GetMany of 100", func() error { _, err := s.GetMany(ctx, keys...); return err }},
		{"Delete of 100", func() error { _, err := s.Delete(ctx, keys...); return err }},
		{"Batch of 300", func() error { _, err := s.Batch(ctx, ops...); return err }},
		{"Txn", func() error {
			_, _, err := s.Txn(ctx, []kv.Cond{kv.IfExists("n")}, kv.OpSet("a", "b", 0), kv.OpIncr("n", 1, 0))
			return err
		}},
		{"RateLimiter.Allow", func() error { _, err := limiter.Allow(ctx, "key"); return err }},
	} {
		require.NoError(t, c.f(), c.name) // the first time a script is sent whole
		before := p.trips.Load()
		require.NoError(t, c.f(), c.name)
		require.EqualValues(t, 1, p.trips.Load()-before, "round trips of %s", c.name)
	}
}

// On a cluster a batch takes one round trip to each node, all at once.
func TestBatchOfTenThousand(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		entries := map[string]string{}
		var keys []string
		for i := range 10_000 {
			keys = append(keys, fmt.Sprint("key", i))
			entries[keys[i]] = fmt.Sprint(i)
		}
		ctx := soon(t)
		require.NoError(t, s.SetMany(ctx, entries, time.Hour))
		got, err := s.GetMany(ctx, keys...)
		require.NoError(t, err)
		require.Equal(t, entries, got)
		n, err := s.Count(ctx, "key")
		require.NoError(t, err)
		require.Equal(t, 10_000, n)
		n, err = s.Delete(ctx, keys...)
		require.NoError(t, err)
		require.Equal(t, 10_000, n)
		ops := make([]kv.Op, 10_000)
		for i := range ops {
			ops[i] = kv.OpIncr(fmt.Sprint("{t}", i%100), 1, time.Hour)
		}
		ok, results, err := s.Txn(ctx, nil, ops...)
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, 100, results[9999].Int)
	})
}
