package valkeykv_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// fillKeys sets n keys and returns them as a set.
func fillKeys(t testing.TB, s *kv.Store, prefix string, n int) map[string]bool {
	t.Helper()
	entries, keys := map[string]string{}, map[string]bool{}
	for i := range n {
		key := fmt.Sprint(prefix, i)
		entries[key], keys[key] = "v"+key, true
	}
	require.NoError(t, s.SetMany(longer(t), entries, time.Hour))
	return keys
}

// scanned returns the keys that a scan yields; none may come twice, each with its value.
func scanned(t testing.TB, s *kv.Store, prefix string) map[string]bool {
	t.Helper()
	keys := map[string]bool{}
	for e, err := range s.Scan(longer(t), kv.Range{Prefix: prefix}) {
		require.NoError(t, err)
		require.False(t, keys[e.Key], "%q comes twice", e.Key)
		require.Equal(t, "v"+e.Key, e.Value)
		require.False(t, e.ExpiresAt.IsZero())
		keys[e.Key] = true
	}
	return keys
}

// paged returns the keys of all pages from cursor on. between is called after each page.
func paged(t testing.TB, s *kv.Store, cursor string, keys map[string]bool, between func(page int)) {
	t.Helper()
	for page := 1; ; page++ {
		entries, next, err := s.Page(longer(t), kv.Range{Prefix: "key"}, cursor, 100)
		require.NoError(t, err)
		for _, e := range entries {
			keys[e.Key] = true
		}
		if cursor = next; cursor == "" {
			return
		}
		require.Less(t, page, 10_000, "pages do not end")
		between(page)
	}
}

func TestScanPrefixIsNoPattern(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, _ valkey.Client) {
		prefixes := []string{"a*", "a?", "a[bc]", "a\\", "a[^b]", "a[b-d]", "\x00\xff", "a", "ab", "]"}
		for _, p := range prefixes {
			require.NoError(t, s.Set(soon(t), p+"k", "v"+p+"k", time.Hour))
		}
		for _, p := range prefixes {
			want := map[string]bool{}
			for _, q := range prefixes {
				if strings.HasPrefix(q+"k", p) {
					want[q+"k"] = true
				}
			}
			require.Equal(t, want, scanned(t, s, p), "%q", p)
		}
	})
}

func TestScanSkipsOtherTypes(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		want := fillKeys(t, s, "key", 10)
		require.NoError(t, do(t, c, "RPUSH", "key list", "a").Error())
		require.NoError(t, do(t, c, "SADD", "key set", "a").Error())
		require.Equal(t, want, scanned(t, s, "key"))
		n, err := s.DeletePrefix(soon(t), "")
		require.NoError(t, err)
		require.Equal(t, 10, n)
		require.NoError(t, do(t, c, "LLEN", "key list").Error())
	})
}

// Large values come in answers of bounded size, and all of them.
func TestScanLargeValues(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, _ valkey.Client) {
		large := strings.Repeat("x", 1<<20)
		for i := range 20 {
			require.NoError(t, s.Set(soon(t), fmt.Sprint("key", i), large, 0))
		}
		n := 0
		for e, err := range s.Scan(longer(t), kv.Range{}) {
			require.NoError(t, err)
			require.Len(t, e.Value, len(large))
			n++
		}
		require.Equal(t, 20, n)
	})
}

// While a table grows and shrinks, a scan yields every key that is there throughout, once.
func TestScanWhileTheTableChanges(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, _ valkey.Client) {
		want := fillKeys(t, s, "key", 3000)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			var err error
			for ctx.Err() == nil && err == nil {
				more := map[string]string{}
				for i := range 5000 {
					more[fmt.Sprint("more", i)] = "v"
				}
				if err = s.SetMany(context.Background(), more, 0); err == nil {
					_, err = s.DeletePrefix(context.Background(), "more")
				}
			}
			done <- err
		}()
		for range 10 {
			require.Equal(t, want, scanned(t, s, "key"))
		}
		cancel()
		require.NoError(t, <-done)
	})
}

// Cursors outlive the client that got them.
func TestPagesSurviveTheClient(t *testing.T) {
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			option := target.option(t)
			flush(t, rawClient(t, option))
			s := openStore(t, option)
			want, got := fillKeys(t, s, "key", 1000), map[string]bool{}
			for cursor := ""; ; {
				s := openStore(t, option)
				entries, next, err := s.Page(soon(t), kv.Range{Prefix: "key"}, cursor, 100)
				require.NoError(t, err)
				for _, e := range entries {
					got[e.Key] = true
				}
				if cursor = next; cursor == "" {
					break
				}
			}
			require.Equal(t, want, got)
		})
	}
}

// A restarted server has its table in another order; pages begin again rather than miss a key.
func TestPagesSurviveTheServer(t *testing.T) {
	srv, s, _ := ownServer(t, durable...)
	want, got := fillKeys(t, s, "key", 1000), map[string]bool{}
	paged(t, s, "", got, func(page int) {
		if page == 5 || page == 7 {
			require.NoError(t, srv.Kill())
			require.NoError(t, srv.Restart())
			eventually(t, func(ctx context.Context) error { _, err := s.Now(ctx); return err })
			for range 4 { // every connection that was there
				_, _ = s.Exists(soon(t), "key0")
			}
		}
	})
	require.Equal(t, want, got)
}

func TestPagesAndScansSurviveClusterChanges(t *testing.T) {
	t.Parallel()
	cl, s, c := ownCluster(t)
	want, got := fillKeys(t, s, "key", 2000), map[string]bool{}
	tag, last := lastSlots(c)
	maps.Copy(want, fillKeys(t, s, "key{"+tag+"}", 50))
	paged(t, s, "", got, func(page int) {
		switch page {
		case 3:
			require.NoError(t, cl.Failover(longer(t), 3, false))
		case 12:
			require.NoError(t, cl.MoveSlot(longer(t), 0))
		}
	})
	require.Equal(t, want, got)

	got = map[string]bool{}
	for e, err := range s.Scan(longer(t), kv.Range{Prefix: "key"}) {
		require.NoError(t, err)
		require.False(t, got[e.Key], "%q comes twice", e.Key)
		if len(got) == 100 {
			require.NoError(t, cl.Failover(longer(t), 4, false))
		}
		if len(got) == 1000 { // in the second of three nodes: keys of the third go where the scan has been
			require.NoError(t, cl.MoveSlot(longer(t), last))
		}
		got[e.Key] = true
	}
	require.Equal(t, want, got)
}

// lastSlots returns a hash tag, and its slot, which lies among the last.
func lastSlots(c valkey.Client) (tag string, slot int) {
	for i := 0; ; i++ {
		tag = fmt.Sprint(i)
		cmd := c.B().Get().Key(tag).Build()
		if slot = int(cmd.Slot()); slot > 16000 {
			return tag, slot
		}
	}
}

func TestForeignPositions(t *testing.T) {
	memory := kv.New(nil)
	defer memory.Close()
	fillKeys(t, memory, "key", 10)
	_, cursor, err := memory.Page(context.Background(), kv.Range{Prefix: "key"}, "", 3)
	require.NoError(t, err)
	onTargets(t, func(t *testing.T, s *kv.Store, _ valkey.Client) {
		_, _, err := s.Page(soon(t), kv.Range{Prefix: "key"}, cursor, 3)
		require.ErrorIs(t, err, kv.ErrCursor)
	})
}
