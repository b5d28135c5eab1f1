package kv_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFlagGarbageIsReportedOnceAcrossABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		require.NoError(t, s.Set(t.Context(), "feature:x", "maybe", kv.NoExpiry))
		errs := &flagErrors{}
		newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
		require.Len(t, errs.take(), 1)
		engine.BreakWatches()
		synctest.Wait()
		told := errs.take()
		require.Len(t, told, 1)
		require.Empty(t, told[0].flag)
		require.ErrorIs(t, told[0].err, kv.ErrLagged)
	})
}

// Between the reading of the flags and the return of NewFlags anything may happen.
func TestFlagsMissNothingAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := kv.New(nil)
		engine := kvtest.NewFaulty(inner)
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		write := func(key, value string) {
			require.NoError(t, inner.Set(t.Context(), "feature:"+key, value, kv.NoExpiry))
		}
		for _, name := range []string{"on-off", "on-deleted"} {
			write(name, "on")
		}
		write("off-on", "off")
		// The answer of the scan takes a second, and the world goes on meanwhile.
		engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Second, Applied: true}, "Scan"))
		go func() {
			time.Sleep(time.Second / 2)
			write("on-off", "off")
			write("off-on", "on")
			write("new", "on")
			_, err := inner.Delete(t.Context(), "feature:on-deleted")
			assert.NoError(t, err)
		}()
		f := newFlags(t, s, nil)
		for name, want := range map[string]bool{"on-off": false, "off-on": true, "new": true, "on-deleted": false} {
			require.Equal(t, want, f.Enabled(name, "u"), name)
		}
	})
}

func TestFlagsWatchBeforeTheyRead(t *testing.T) {
	engine := kvtest.NewFaulty(kv.New(nil))
	s := kv.NewWithEngine(engine, nil)
	defer s.Close()
	var order []string
	engine.Inject(func(c kvtest.Call) kvtest.Fault {
		order = append(order, c.Method)
		return kvtest.Fault{}
	})
	f := newFlags(t, s, nil)
	require.Equal(t, []string{"Watch", "Scan"}, order)
	require.NoError(t, f.Close())
}

func TestFlagsRecoverFromABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := kv.New(nil)
		engine := kvtest.NewFaulty(inner)
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		errs := &flagErrors{}
		f := newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
		setFlag(t, f, "stays", "on")
		setFlag(t, f, "changes", "on")
		setFlag(t, f, "goes", "on")
		synctest.Wait()

		// The server is away for a minute: what was known serves, what is changed is missed.
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}, "Watch", "Scan"))
		engine.BreakWatches()
		synctest.Wait()
		require.NoError(t, inner.Set(t.Context(), "feature:changes", "off", kv.NoExpiry))
		require.NoError(t, inner.Set(t.Context(), "feature:comes", "on", kv.NoExpiry))
		_, err := inner.Delete(t.Context(), "feature:goes")
		require.NoError(t, err)
		time.Sleep(time.Minute)
		for _, name := range []string{"stays", "changes", "goes"} {
			require.True(t, f.Enabled(name, "u"), name)
		}
		require.False(t, f.Enabled("comes", "u"))
		began := time.Now()
		setFlag(t, f, "stays", "on")
		require.Zero(t, time.Since(began), "Set doesn't wait for a watch that is broken")
		told := errs.take()
		require.Greater(t, len(told), 10)
		require.ErrorIs(t, told[0].err, kv.ErrLagged)
		for _, e := range told[1:] {
			require.Empty(t, e.flag)
			require.ErrorIs(t, e.err, kvtest.ErrDown)
		}

		engine.Heal()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for name, want := range map[string]bool{"stays": true, "changes": false, "goes": false, "comes": true} {
			require.Equal(t, want, f.Enabled(name, "u"), name)
		}
		require.Empty(t, errs.take())
		setFlag(t, f, "later", "on")
		synctest.Wait()
		require.True(t, f.Enabled("later", "u"), "the new watch is followed")
	})
}

// A watch that can't be read through must not stay open.
func TestFlagsTryAgainWhenTheReadingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := kv.New(nil)
		engine := kvtest.NewFaulty(inner)
		s := kv.NewWithEngine(engine, nil)
		f := newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {}})
		setFlag(t, f, "x", "on")
		synctest.Wait()
		for _, fault := range []kvtest.Fault{{Err: kvtest.ErrDown}, {Err: kvtest.ErrDown, Applied: true}} {
			before := runtime.NumGoroutine()
			engine.Inject(kvtest.Always(fault, "Scan"))
			engine.BreakWatches()
			time.Sleep(time.Hour)
			require.True(t, f.Enabled("x", "u"), "half a reading changes nothing")
			require.LessOrEqual(t, runtime.NumGoroutine(), before)
			engine.Heal()
			time.Sleep(5 * time.Second)
			require.True(t, f.Enabled("x", "u"))
		}
		require.NoError(t, s.Close())
	})
}

func TestFlagsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {}})
		outage := func() (tries []time.Duration) {
			began := time.Now()
			engine.Inject(func(c kvtest.Call) kvtest.Fault {
				if c.Method != "Watch" {
					return kvtest.Fault{}
				}
				tries = append(tries, time.Since(began))
				return kvtest.Fault{Err: kvtest.ErrDown}
			})
			engine.BreakWatches()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			engine.Heal()
			time.Sleep(time.Minute) // long enough for the next outage to begin anew
			return tries
		}
		for range 2 {
			tries := outage()
			require.Zero(t, tries[0], "the first try comes at once")
			for i := 1; i < len(tries); i++ {
				most := 5 * time.Second
				if i < 10 {
					most = min(most, 10*time.Millisecond<<(i-1))
				}
				gap := tries[i] - tries[i-1]
				require.GreaterOrEqual(t, gap, most/2, "try %d", i)
				require.LessOrEqual(t, gap, most, "try %d", i)
			}
			require.Greater(t, len(tries), 100, "and it never gives up")
		}
	})
}

// A watch that breaks as soon as it is open is no reason to read all flags all the time.
func TestFlagsBackOffFromAWatchThatKeepsBreaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {}})
		before := engine.Count("Scan")
		for range 60_000 { // a minute
			engine.BreakWatches()
			time.Sleep(time.Millisecond)
		}
		scans := engine.Count("Scan") - before
		require.Greater(t, scans, 15)
		require.Less(t, scans, 40)
	})
}

func TestFlagsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		f := newFlags(t, s, nil)
		setFlag(t, f, "x", "on")
		setFlag(t, f, "y", "30")
		want := share(f, "y", 1000)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { assert.NoError(t, f.Close()) })
		}
		wg.Wait()
		require.NoError(t, f.Close())
		for range 3 {
			require.NoError(t, s.Set(t.Context(), "feature:x", "off", kv.NoExpiry))
			require.NoError(t, s.Set(t.Context(), "feature:y", "off", kv.NoExpiry))
		}
		synctest.Wait()
		require.True(t, f.Enabled("x", "u"), "the last known")
		require.Equal(t, want, share(f, "y", 1000))
		require.NoError(t, f.Set(t.Context(), "z", "on"), "still writes, and doesn't hang")
		require.NoError(t, s.Close())
		require.ErrorIs(t, f.Set(t.Context(), "z", "on"), kv.ErrClosed)
	}) // and no goroutine is left, or the bubble would say so
}

func TestFlagsCloseWaitsForTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		defer s.Close()
		f := newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {}})
		release := make(chan struct{})
		engine.Inject(func(kvtest.Call) kvtest.Fault {
			<-release
			return kvtest.Fault{}
		})
		engine.BreakWatches()
		synctest.Wait() // it hangs in Watch now
		closed := false
		go func() {
			assert.NoError(t, f.Close())
			closed = true
		}()
		synctest.Wait()
		require.False(t, closed)
		close(release)
		synctest.Wait()
		require.True(t, closed)
	})
}

func TestFlagsEndWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		errs := &flagErrors{}
		healthy := newFlags(t, s.Namespace("a"), &kv.FlagsOptions{OnError: errs.add})
		require.NoError(t, healthy.Set(t.Context(), "x", "on"))
		synctest.Wait()
		require.NoError(t, s.Close())
		synctest.Wait()
		require.True(t, healthy.Enabled("x", "u"), "the last known")
		require.Empty(t, errs.take(), "a closed store is no error")
		require.NoError(t, healthy.Close())
	})
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {}})
		engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}, "Watch"))
		engine.BreakWatches()
		time.Sleep(time.Minute)
		require.NoError(t, s.Close()) // while it waits for its next try
	})
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		errs := &flagErrors{}
		newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
		engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Hour}, "Watch"))
		engine.BreakWatches()
		synctest.Wait()
		require.Len(t, errs.take(), 1)
		require.NoError(t, s.Close()) // while it opens a new watch
		synctest.Wait()
		require.Empty(t, errs.take(), "a closed store is no error")
	})
}

func TestFlagsCloseWaitsForNoServer(t *testing.T) {
	for name, fault := range map[string]kvtest.Fault{
		"that doesn't answer": {Delay: time.Hour},
		"that is away":        {Err: kvtest.ErrDown},
	} {
		for _, method := range []string{"Watch", "Scan"} {
			t.Run(name+" "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					engine := kvtest.NewFaulty(kv.New(nil))
					s := kv.NewWithEngine(engine, nil)
					defer s.Close()
					f := newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {}})
					engine.Inject(kvtest.Always(fault, method))
					engine.BreakWatches()
					time.Sleep(time.Minute + 1) // it is in the call, or in a pause between two
					began := time.Now()
					require.NoError(t, f.Close())
					require.Zero(t, time.Since(began))
				})
			})
		}
	}
}

func TestNewFlagsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := kvtest.NewFaulty(kv.New(nil))
		s := kv.NewWithEngine(engine, nil)
		for _, method := range []string{"Watch", "Scan"} {
			engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown}, method))
			f, err := kv.NewFlags(s, nil)
			require.ErrorIs(t, err, kvtest.ErrDown)
			require.Nil(t, f)
		}
		engine.Heal()
		require.NoError(t, s.Close())
		f, err := kv.NewFlags(s, nil)
		require.ErrorIs(t, err, kv.ErrClosed)
		require.Nil(t, f)
	}) // and no goroutine is left
}

// Thousands of flags that change all the time, by several writers, with readers:
// in the end the copy is what the store holds, even if the watch lagged on the way.
func TestFlagsFollowAFlood(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		errs := &flagErrors{}
		f := newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
		const names, writers, writes = 3000, 4, 10_000
		name := func(i int) string { return fmt.Sprint("flag-", i) }
		var wg sync.WaitGroup
		for g := range uint64(writers) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, g))
				for range writes {
					key := kv.Key("feature", name(r.IntN(names)))
					if r.IntN(3) == 0 {
						_, err := s.Delete(context.Background(), key)
						assert.NoError(t, err)
						continue
					}
					assert.NoError(t, s.Set(context.Background(), key, []string{"on", "off", "50"}[r.IntN(3)], kv.NoExpiry))
				}
			})
			wg.Go(func() {
				for i := range writes {
					f.Enabled(name(i%names), "user-1")
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute) // in the bubble: until every retry is over
		fresh := newFlags(t, s, nil)
		for i := range names {
			value, err := s.Get(t.Context(), kv.Key("feature", name(i)))
			if err != nil {
				require.ErrorIs(t, err, kv.ErrNotFound)
			}
			want := value == "on" || value == "50" && fresh.Enabled(name(i), "user-1")
			require.Equal(t, want, f.Enabled(name(i), "user-1"), "%s is %q", name(i), value)
		}
		for _, e := range errs.take() {
			require.ErrorIs(t, e.err, kv.ErrLagged)
		}
	})
}
