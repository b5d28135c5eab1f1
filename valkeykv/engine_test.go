package valkeykv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
)

// A value without metadata is the plain value for every other client, and the other way round.
func TestValuesArePlain(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		ctx := soon(t)
		writes := map[string]func(key string) error{
			"set":     func(key string) error { return s.Set(ctx, key, "7", 0) },
			"set ttl": func(key string) error { return s.Set(ctx, key, "7", time.Hour) },
			"setnx":   func(key string) error { _, err := s.SetNX(ctx, key, "7", time.Hour); return err },
			"put":     func(key string) error { return s.Put(ctx, kv.Entry{Key: key, Value: "7"}) },
			"put at": func(key string) error {
				return s.Put(ctx, kv.Entry{Key: key, Value: "7", ExpiresAt: time.Now().Add(time.Hour)})
			},
			"incr":     func(key string) error { _, err := s.Incr(ctx, key, 7, 0); return err },
			"incr ttl": func(key string) error { _, err := s.Incr(ctx, key, 7, time.Hour); return err },
			"txn":      func(key string) error { _, _, err := s.Txn(ctx, nil, kv.OpSet(key, "7", 0)); return err },
			"cas": func(key string) error {
				require.NoError(t, do(t, c, "SET", key, "old").Error())
				ok, err := s.CompareAndSwap(ctx, key, "old", "7", 0)
				require.True(t, ok)
				return err
			},
		}
		for key, write := range writes {
			require.NoError(t, write(key), key)
			raw, err := do(t, c, "GET", key).ToString()
			require.NoError(t, err, key)
			require.Equal(t, "7", raw, key)
		}
		require.NoError(t, do(t, c, "SET", "foreign", "\x00\xff plain", "PX", "60000").Error())
		e, err := s.Entry(ctx, "foreign")
		require.NoError(t, err)
		require.Equal(t, "\x00\xff plain", e.Value)
		require.Empty(t, e.Metadata)
		require.WithinDuration(t, time.Now().Add(time.Minute), e.ExpiresAt, 5*time.Second)
	})
}

// With metadata, or if it looks as if it had some, a value is stored in an envelope.
func TestEnvelopesAreKept(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		ctx := soon(t)
		require.NoError(t, s.Put(ctx, kv.Entry{Key: "n", Value: "41", Metadata: `{"a":1}`}))
		raw, err := do(t, c, "GET", "n").ToString()
		require.NoError(t, err)
		require.Equal(t, valkeykv.Magic+"00000007"+`{"a":1}41`, raw)
		steps := []func() error{
			func() error { _, err := s.Incr(ctx, "n", 1, 0); return err },
			func() error { _, err := s.Incr(ctx, "n", 1, time.Hour); return err },
			func() error { _, err := s.Batch(ctx, kv.OpIncr("n", 1, 0), kv.OpIncr("n", 1, time.Hour)); return err },
			func() error { _, _, err := s.Txn(ctx, nil, kv.OpIncr("n", 1, 0)); return err },
			func() error { _, err := s.CompareAndSwap(ctx, "n", "46", "47", kv.KeepTTL); return err },
			func() error { _, err := s.GetExpire(ctx, "n", time.Hour); return err },
		}
		for i, step := range steps {
			require.NoError(t, step(), i)
			e, err := s.Entry(ctx, "n")
			require.NoError(t, err)
			require.Equal(t, `{"a":1}`, e.Metadata, i)
		}
		value, err := s.Get(ctx, "n")
		require.NoError(t, err)
		require.Equal(t, "47", value)

		for i, value := range []string{valkeykv.Magic, valkeykv.Magic + "00000001x"} {
			key := fmt.Sprint("magic", i)
			require.NoError(t, s.Set(ctx, key, value, 0))
			got, err := s.Get(ctx, key)
			require.NoError(t, err)
			require.Equal(t, value, got)
			ok, err := s.CompareAndSwap(ctx, key, value, value+"!", 0)
			require.NoError(t, err)
			require.True(t, ok)
			ok, results, err := s.Txn(ctx, []kv.Cond{kv.IfValue(key, value+"!")}, kv.OpSet(key, value, 0), kv.OpGet(key))
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, value, results[1].Value)
			got, err = s.GetDelete(ctx, key)
			require.NoError(t, err)
			require.Equal(t, value, got)
		}
	})
}

// Whatever reads the value of another program's list, set or hash says so; what only writes, replaces it.
func TestWrongType(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		ctx := soon(t)
		reads := map[string]func() error{
			"get":       func() error { _, err := s.Get(ctx, "list"); return err },
			"entry":     func() error { _, err := s.Entry(ctx, "list"); return err },
			"getdelete": func() error { _, err := s.GetDelete(ctx, "list"); return err },
			"getexpire": func() error { _, err := s.GetExpire(ctx, "list", time.Hour); return err },
			"getmany":   func() error { _, err := s.GetMany(ctx, "list"); return err },
			"incr":      func() error { _, err := s.Incr(ctx, "list", 1, 0); return err },
			"incr ttl":  func() error { _, err := s.Incr(ctx, "list", 1, time.Hour); return err },
			"cas":       func() error { _, err := s.CompareAndSwap(ctx, "list", "a", "b", 0); return err },
			"cad":       func() error { _, err := s.CompareAndDelete(ctx, "list", "a"); return err },
			"txn":       func() error { _, _, err := s.Txn(ctx, nil, kv.OpGet("list")); return err },
			"cond":      func() error { _, _, err := s.Txn(ctx, []kv.Cond{kv.IfValue("list", "a")}); return err },
			"batch":     func() error { r, err := s.Batch(ctx, kv.OpGet("list")); return errors.Join(err, r[0].Err) },
		}
		require.NoError(t, do(t, c, "RPUSH", "list", "a").Error())
		for name, read := range reads {
			err := read()
			require.ErrorIs(t, err, kv.ErrWrongType, name)
			var answer *valkey.ValkeyError
			if name != "txn" && name != "cond" {
				require.ErrorAs(t, err, &answer, name)
			}
		}
		n, err := do(t, c, "LLEN", "list").AsInt64()
		require.NoError(t, err)
		require.EqualValues(t, 1, n, "the list is as it was")
		exists, err := s.Exists(ctx, "list")
		require.NoError(t, err)
		require.True(t, exists)
		require.NoError(t, s.Set(ctx, "list", "v", 0))
		value, err := s.Get(ctx, "list")
		require.NoError(t, err)
		require.Equal(t, "v", value)
	})
}

// A server that has forgotten the scripts gets them anew, in the middle of a batch, too.
func TestScriptsAreSentAgain(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		ctx := soon(t)
		forget := func() {
			for _, n := range c.Nodes() {
				require.NoError(t, n.Do(ctx, n.B().ScriptFlush().Build()).Error())
			}
		}
		forget()
		results, err := s.Batch(ctx, kv.OpSet("n", "5", 0), kv.OpIncr("n", 1, time.Hour), kv.OpGet("n"), kv.OpIncr("n", 1, 0),
			kv.OpExpire("n", kv.NoExpiry), kv.OpDelete("n"), kv.OpIncr("n", 2, time.Hour), kv.OpIncr("m", 3, time.Hour), kv.OpExpire("m", kv.NoExpiry))
		require.NoError(t, err)
		want := []kv.Result{{OK: true}, {Int: 6, OK: true}, {Value: "6", OK: true}, {Int: 7, OK: true}, {OK: true}, {OK: true}, {Int: 2, OK: true}, {Int: 3, OK: true}, {OK: true}}
		require.Equal(t, want, results)
		forget()
		for i := range 3 {
			forget()
			_, err = s.Incr(ctx, "one", 1, time.Hour)
			require.NoError(t, err)
			forget()
			_, err = s.Entry(ctx, "one")
			require.NoError(t, err)
			forget()
			n, err := s.Count(ctx, "")
			require.NoError(t, err, i)
			require.Equal(t, 3, n)
			forget()
			for _, err := range s.Scan(ctx, kv.Range{}) {
				require.NoError(t, err)
			}
		}
	})
}

// By the engine's own clock no key is live at or after its deadline.
func TestDeadlinesAreExact(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, _ valkey.Client) {
		ctx := soon(t)
		for i := range 20 {
			key := fmt.Sprint(i)
			require.NoError(t, s.Set(ctx, key, "v", 3*time.Millisecond))
			e, err := s.Entry(ctx, key)
			if errors.Is(err, kv.ErrNotFound) {
				continue // slow machine
			}
			require.NoError(t, err)
			for {
				before, err := s.Now(ctx)
				require.NoError(t, err)
				live, err := s.Exists(ctx, key)
				require.NoError(t, err)
				after, err := s.Now(ctx)
				require.NoError(t, err)
				if !before.Before(e.ExpiresAt) {
					require.False(t, live, "live at %v, deadline %v", before, e.ExpiresAt)
					break
				}
				if after.Before(e.ExpiresAt) {
					require.True(t, live, "gone at %v, deadline %v", after, e.ExpiresAt)
				}
			}
		}
	})
}

func TestHugeDeadlines(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, _ valkey.Client) {
		ctx := soon(t)
		const longest = time.Duration(1<<63 - 1)
		require.NoError(t, s.Set(ctx, "set", "v", longest))
		_, err := s.Incr(ctx, "incr", 1, longest)
		require.NoError(t, err)
		_, err = s.Expire(ctx, "set", longest)
		require.NoError(t, err)
		_, err = s.GetExpire(ctx, "set", longest)
		require.NoError(t, err)
		far := time.Date(200_000, 1, 1, 0, 0, 0, 0, time.UTC)
		require.NoError(t, s.Put(ctx, kv.Entry{Key: "put", Value: "v", ExpiresAt: far}))
		for _, key := range []string{"set", "incr", "put"} {
			ttl, err := s.TTL(ctx, key)
			require.NoError(t, err)
			require.Greater(t, ttl, longest/2, key)
		}
		e, err := s.Entry(ctx, "put")
		require.NoError(t, err)
		require.Equal(t, 9999, e.ExpiresAt.UTC().Year())
	})
}

func TestCrossSlot(t *testing.T) {
	option := targets[1].option(t)
	s, c := openStore(t, option), rawClient(t, option)
	flush(t, c)
	before := commands(t, c)
	_, _, err := s.Txn(soon(t), []kv.Cond{kv.IfAbsent("a")}, kv.OpSet("b", "v", 0))
	require.ErrorIs(t, err, kv.ErrCrossSlot)
	require.Equal(t, before, commands(t, c), "nothing was sent")
	ok, _, err := s.Txn(soon(t), []kv.Cond{kv.IfAbsent("{x}a")}, kv.OpSet("{x}b", "v", 0), kv.OpSet("x", "v", 0))
	require.NoError(t, err)
	require.True(t, ok)
}

// commands returns how many commands that work on keys the nodes have run.
func commands(t *testing.T, c valkey.Client) string {
	var all []string
	for addr, n := range c.Nodes() {
		info, err := n.Do(context.Background(), n.B().Info().Section("commandstats").Build()).ToString()
		require.NoError(t, err)
		for line := range strings.Lines(info) {
			name, stats, _ := strings.Cut(line, ":")
			switch name {
			case "cmdstat_eval", "cmdstat_evalsha", "cmdstat_set", "cmdstat_get", "cmdstat_exists":
				all = append(all, addr+name+strings.SplitN(stats, ",", 2)[0])
			}
		}
	}
	require.NotEmpty(t, all)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// The slots are the server's.
func TestSlots(t *testing.T) {
	option := targets[1].option(t)
	c := rawClient(t, option)
	for _, key := range []string{"", "a", "{a}b", "{}a", "a{b", "a{}b{c}", "{{a}}b", "\x00\xff", "foo{bar}{zap}"} {
		want, err := c.Do(context.Background(), c.B().ClusterKeyslot().Key(key).Build()).AsInt64()
		require.NoError(t, err)
		cmd := c.B().Get().Key(key).Build()
		require.EqualValues(t, want, cmd.Slot(), "%q", key)
	}
}

func TestStats(t *testing.T) {
	onTargets(t, func(t *testing.T, s *kv.Store, c valkey.Client) {
		entries := map[string]string{}
		for i := range 100 {
			entries[fmt.Sprint(i)] = "v"
		}
		require.NoError(t, s.SetMany(soon(t), entries, 0))
		require.EqualValues(t, 100, s.Stats().Keys)
	})
}

func TestOpenRefusesReplicas(t *testing.T) {
	option := targets[1].option(t)
	option.SendToReplicas = func(cmd valkey.Completed) bool { return cmd.IsReadOnly() }
	_, err := valkeykv.Open(option, nil)
	require.ErrorIs(t, err, kv.ErrUnsupported)
	_, err = valkeykv.New(nil, nil)
	require.Error(t, err)
}

func TestOpenWithoutServer(t *testing.T) {
	p := startProxy(t, "127.0.0.1:1") // a port on which somebody listens who ends every connection
	for _, single := range []bool{false, true} {
		_, err := valkeykv.Open(valkey.ClientOption{InitAddress: []string{p.addr}, ForceSingleClient: single}, nil)
		require.ErrorIs(t, err, valkeykv.ErrUnavailable)
	}
}

// New leaves the client open.
func TestNewSharesTheClient(t *testing.T) {
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			c, err := valkey.NewClient(target.option(t)) // with client-side caching, as programs have it
			require.NoError(t, err)
			defer c.Close()
			flush(t, c)
			s, err := valkeykv.New(c, nil)
			require.NoError(t, err)
			w, err := s.Watch(soon(t), "k")
			require.NoError(t, err)
			require.NoError(t, s.Set(soon(t), "key", "v", 0))
			require.Equal(t, "v", (<-w.Events()).Entry.Value)
			require.NoError(t, s.Close())
			_, open := <-w.Events()
			require.False(t, open)
			require.ErrorIs(t, w.Err(), kv.ErrClosed)
			require.NoError(t, c.Do(soon(t), c.B().Get().Key("key").Build()).Error())
		})
	}
}
