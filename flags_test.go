package kv_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flagErrors collects what OnError is told.
type flagErrors struct {
	mu   sync.Mutex
	told []flagError // guarded by mu
}

type flagError struct {
	flag string
	err  error
}

func (e *flagErrors) add(flag string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = append(e.told, flagError{flag, err})
}

// take returns what has been told since the last call.
func (e *flagErrors) take() []flagError {
	e.mu.Lock()
	defer e.mu.Unlock()
	told := e.told
	e.told = nil
	return told
}

func newFlags(t *testing.T, s *kv.Store, opts *kv.FlagsOptions) *kv.Flags {
	t.Helper()
	f, err := kv.NewFlags(s, opts)
	require.NoError(t, err)
	return f
}

func setFlag(t *testing.T, f *kv.Flags, name, value string) {
	t.Helper()
	require.NoError(t, f.Set(t.Context(), name, value))
}

// share returns how many of n units the flag is on for.
func share(f *kv.Flags, name string, n int) int {
	on := 0
	for i := range n {
		if f.Enabled(name, fmt.Sprint("user-", i)) {
			on++
		}
	}
	return on
}

func TestFlagValues(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	errs := &flagErrors{}
	f := newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
	defer f.Close()
	const n = 1000
	require.Zero(t, share(f, "unknown", n))

	all := map[string]int{"on": n, "100": n, "100.0": n, "100.00": n, "100.000": n, "off": 0, "0": 0, "0.0": 0, "0.000": 0}
	for value, want := range all {
		setFlag(t, f, "x", value)
		require.Equal(t, want, share(f, "x", n), value)
		stored, err := s.Get(t.Context(), "feature:x")
		require.NoError(t, err)
		require.Equal(t, value, stored)
	}
	same := [][]string{{"30", "30.0", "30.00", "30.000"}, {"0.5", "0.50", "0.500"}, {"99.999"}, {"1"}, {"7.25"}}
	for _, values := range same {
		var want int
		for i, value := range values {
			setFlag(t, f, "x", value)
			if got := share(f, "x", n); i == 0 {
				want = got
			} else {
				require.Equal(t, want, got, value)
			}
		}
	}
	require.Empty(t, errs.take())
}

var badFlags = []string{
	"", " ", "On", "ON", "true", "yes", "1e1", "+5", "-1", "-0", "101", "100.001", "100.1", "1000", "5.", ".5", ".", "5.1234",
	"30%", " 30", "30 ", "30\n", "0x10", "1_0", "1,5", "NaN", "Inf", "05", "00", "3.-1", "3.+1", "1.2.3", "٣", "on\x00",
	"99999999999999999999", strings.Repeat("9", 1<<20),
}

func TestFlagSetRefusesGarbage(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	defer f.Close()
	setFlag(t, f, "x", "on")
	for _, value := range badFlags {
		err := f.Set(t.Context(), "x", value)
		require.ErrorIs(t, err, kv.ErrInvalidFlag, "%.20q", value)
		var e *kv.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "x", e.Key)
	}
	require.True(t, f.Enabled("x", "u"))
	require.ErrorIs(t, f.Set(t.Context(), strings.Repeat("x", 600), "on"), kv.ErrInvalidKey)
}

func TestFlagGarbageIsOffAndReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		errs := &flagErrors{}
		f := newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
		put := func(value string) []flagError {
			require.NoError(t, s.Set(t.Context(), "feature:x", value, kv.NoExpiry))
			synctest.Wait()
			return errs.take()
		}
		for _, value := range badFlags {
			require.Empty(t, put("on"))
			require.True(t, f.Enabled("x", "u"))
			for i := range 3 {
				told := put(value)
				require.False(t, f.Enabled("x", "u"), value)
				if i > 0 {
					require.Empty(t, told, "reported again")
					continue
				}
				require.Len(t, told, 1, "%.20q", value)
				require.Equal(t, "x", told[0].flag)
				require.ErrorIs(t, told[0].err, kv.ErrInvalidFlag)
				if value != "" && value != " " && value != "." && value != "On" {
					require.NotContains(t, told[0].err.Error(), value, "errors contain no values")
				}
			}
		}
		require.Len(t, put("one"), 1)
		require.Len(t, put("other"), 1, "another garbage is news")
		_, err := s.Delete(t.Context(), "feature:x")
		require.NoError(t, err)
		require.Len(t, put("other"), 1, "and so is one that had gone")
		require.Empty(t, put("on"))
		require.Len(t, put("other"), 1, "or had been put right")
	})
}

func TestFlagGarbageFoundAtTheStartIsReportedBeforeNewFlagsReturns(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	require.NoError(t, s.Set(t.Context(), "feature:bad", "maybe", kv.NoExpiry))
	require.NoError(t, s.Set(t.Context(), "feature:good", "on", kv.NoExpiry))
	var told []string
	f := newFlags(t, s, &kv.FlagsOptions{OnError: func(flag string, err error) {
		require.ErrorIs(t, err, kv.ErrInvalidFlag)
		told = append(told, flag) // no lock: it's on this goroutine
	}})
	defer f.Close()
	require.Equal(t, []string{"bad"}, told)
	require.False(t, f.Enabled("bad", "u"))
	require.True(t, f.Enabled("good", "u"))
}

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

func TestFlagNames(t *testing.T) {
	names := []string{"x", "", ".", "..", "a:b", "a", "a%3Ab", "a%b", "%", "{tag}", "a b", "\x00\xff", "prix-été", "feature", "feature:x", strings.Repeat("n", 300)}
	for _, prefix := range []string{"", "flags", "app:flags", "{f}", ".", "%"} {
		s := kv.New(nil)
		store := s.Namespace("tenant")
		f := newFlags(t, store, &kv.FlagsOptions{Prefix: prefix})
		for _, name := range names {
			require.False(t, f.Enabled(name, "u"), "%q", name)
			setFlag(t, f, name, "on")
			require.True(t, f.Enabled(name, "u"), "%q", name)
		}
		if prefix == "" {
			prefix = "feature"
		}
		again := newFlags(t, store, &kv.FlagsOptions{Prefix: prefix})
		for _, name := range names {
			require.True(t, again.Enabled(name, "u"), "%q", name)
			deleted, err := store.Delete(t.Context(), kv.Key(prefix, name))
			require.NoError(t, err)
			require.Equal(t, 1, deleted)
		}
		setFlag(t, f, "last", "on") // and so f knows what was before it
		for _, name := range names {
			require.False(t, f.Enabled(name, "u"), "%q", name)
		}
		require.NoError(t, s.Close())
	}
}

func TestFlagForeignKeysAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		errs := &flagErrors{}
		foreign := []string{"feature", "features:x", "featur", "feature:a:b", "feature:a%3ab", "feature:%zz", "feature:{x}", "other:x"}
		f := newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})
		for _, key := range foreign {
			require.NoError(t, s.Set(t.Context(), key, "on", kv.NoExpiry))
		}
		synctest.Wait()
		for _, f := range []*kv.Flags{f, newFlags(t, s, &kv.FlagsOptions{OnError: errs.add})} {
			for _, name := range []string{"x", "a:b", "a", "a%3ab", "a%3Ab", "%zz", "{x}"} {
				require.False(t, f.Enabled(name, "u"), name)
			}
		}
		require.Empty(t, errs.take())
	})
}

func TestFlagsReadTheirOwnWrites(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	defer f.Close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("flag", g)
			for i := range 500 {
				value := []string{"on", "off"}[i%2]
				assert.NoError(t, f.Set(context.Background(), name, value))
				assert.Equal(t, value == "on", f.Enabled(name, "u"))
			}
		})
	}
	wg.Wait()
}

func TestFlagsShowInEveryProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		setFlag(t, newFlags(t, s, nil), "early", "on")
		a, b := newFlags(t, s, nil), newFlags(t, s, nil)
		require.True(t, b.Enabled("early", "u"), "present flags are known when NewFlags returns")
		for _, value := range []string{"on", "off", "50", "on"} {
			setFlag(t, a, "x", value)
			synctest.Wait()
			require.Equal(t, share(a, "x", 1000), share(b, "x", 1000))
			require.Equal(t, value != "off", share(b, "x", 1000) > 0)
		}
		_, err := s.Delete(t.Context(), "feature:x")
		require.NoError(t, err)
		synctest.Wait()
		require.False(t, a.Enabled("x", "u"))
		require.False(t, b.Enabled("x", "u"))
	})
}

func TestFlagsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		f := newFlags(t, s, nil)
		require.NoError(t, s.Set(t.Context(), "feature:x", "on", time.Minute))
		require.NoError(t, s.Set(t.Context(), "feature:y", "on", time.Minute))
		synctest.Wait()
		late := newFlags(t, s, nil)
		_, err := s.Expire(t.Context(), "feature:y", kv.NoExpiry) // no event: must not be guessed from the old deadline
		require.NoError(t, err)
		time.Sleep(time.Minute - 1)
		require.True(t, f.Enabled("x", "u"))
		time.Sleep(kv.DefaultReapInterval * 2)
		synctest.Wait()
		for _, f := range []*kv.Flags{f, late, newFlags(t, s, nil)} {
			require.False(t, f.Enabled("x", "u"))
			require.True(t, f.Enabled("y", "u"))
		}
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

func TestFlagsOnErrorMayPanicExitAndCallBack(t *testing.T) {
	t.Run("panic", func(t *testing.T) {
		log := captureLog(t)
		testFlagsOnError(t, func(*kv.Flags) { panic("boom") })
		require.Equal(t, 3, strings.Count(log.String(), "panic=boom"))
		require.Contains(t, log.String(), "flags_test.go", "the stack")
	})
	t.Run("exit", func(t *testing.T) {
		testFlagsOnError(t, func(*kv.Flags) { runtime.Goexit() })
	})
	t.Run("Set", func(t *testing.T) {
		testFlagsOnError(t, func(f *kv.Flags) {
			assert.NoError(t, f.Set(context.Background(), "repaired", "on"))
			assert.True(t, f.Enabled("repaired", "u"))
		})
	})
	t.Run("Close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := kv.New(nil)
			defer s.Close()
			var f *kv.Flags
			calls := 0
			f = newFlags(t, s, &kv.FlagsOptions{OnError: func(string, error) {
				calls++
				assert.NoError(t, f.Close())
			}})
			for _, value := range []string{"bad", "worse", "worst"} {
				require.NoError(t, s.Set(t.Context(), "feature:x", value, kv.NoExpiry))
			}
			synctest.Wait()
			require.Equal(t, 1, calls)
		})
	})
}

// testFlagsOnError has OnError called thrice, and looks whether the flags go on.
func testFlagsOnError(t *testing.T, do func(*kv.Flags)) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		var f *kv.Flags
		told := &flagErrors{}
		f = newFlags(t, s, &kv.FlagsOptions{OnError: func(flag string, err error) {
			told.add(flag, err)
			do(f)
		}})
		for _, value := range []string{"bad", "worse", "worst"} {
			require.NoError(t, s.Set(t.Context(), "feature:x", value, kv.NoExpiry))
			synctest.Wait()
		}
		require.Len(t, told.take(), 3)
		require.NoError(t, s.Set(t.Context(), "feature:y", "on", kv.NoExpiry))
		synctest.Wait()
		require.True(t, f.Enabled("y", "u"))
		require.NoError(t, f.Close())
	})
}

func TestFlagsOnErrorHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		release := make(chan struct{})
		var told []string
		f := newFlags(t, s, &kv.FlagsOptions{OnError: func(flag string, err error) {
			<-release
			told = append(told, flag)
		}})
		for _, name := range []string{"a", "b", "c"} {
			require.NoError(t, s.Set(t.Context(), "feature:"+name, "garbage", kv.NoExpiry))
		}
		setFlag(t, f, "x", "on")
		require.True(t, f.Enabled("x", "u"))
		require.NoError(t, s.Set(t.Context(), "feature:x", "off", kv.NoExpiry))
		synctest.Wait()
		require.False(t, f.Enabled("x", "u"))
		require.NoError(t, f.Close())
		close(release)
		synctest.Wait()
		require.Equal(t, []string{"a"}, told, "one at a time, and none begins after Close")
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

func TestFlagSetOfAClientThatWentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		f := newFlags(t, s, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 {
			require.NoError(t, f.Set(ctx, "x", "on"), "the write has happened")
		}
		var none context.Context
		require.NoError(t, f.Set(none, "y", "on"))
	})
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

// The published buckets. A unit is on from the first thousandth of a percent above its bucket.
func TestFlagBucketVectors(t *testing.T) {
	vectors := []struct {
		name, unit string
		bucket     int
	}{
		{"checkout", "user-1", 60125},
		{"checkout", "user-2", 34753},
		{"new-search", "user-1", 962},
		{"new-search", "6f9619ff-8b86-d011-b42d-00c04fc964ff", 70852},
		{"", "", 636},
		{"checkout", "", 16748},
		{"", "user-1", 71954},
		{"x", "y", 90502},
		{"a:b", "c", 34505},
		{"a", "b:c", 54089},
		{"prix", "élodie", 76069},
		{"checkout", "1", 76426},
		{"checkout", "1234", 28045},
		{"checkout", "12345678", 53886},
		{"checkout", "0123456789abcdef0123456789abcdef", 26162},
		{"checkout", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefXYZ", 93998},
		{"checkout", "\x00\xff", 77151},
	}
	s := kv.New(nil)
	defer s.Close()
	// Neither prefix nor namespace matters.
	f := newFlags(t, s.Namespace("n"), &kv.FlagsOptions{Prefix: "p"})
	for _, v := range vectors {
		setFlag(t, f, v.name, thousandths(v.bucket))
		require.False(t, f.Enabled(v.name, v.unit), "%q %q at %s", v.name, v.unit, thousandths(v.bucket))
		setFlag(t, f, v.name, thousandths(v.bucket+1))
		require.True(t, f.Enabled(v.name, v.unit), "%q %q at %s", v.name, v.unit, thousandths(v.bucket+1))
	}
}

// thousandths returns n thousandths of a percent as a flag's value.
func thousandths(n int) string { return fmt.Sprintf("%d.%03d", n/1000, n%1000) }

func TestFlagUnitsKeepTheirAnswerWhileThePercentageGrows(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	const n = 2000
	var on [n]bool
	for percent := 0; percent <= 100_000; percent += 1250 {
		setFlag(t, f, "rollout", thousandths(percent))
		for i := range on {
			now := f.Enabled("rollout", fmt.Sprint("user-", i))
			require.False(t, on[i] && !now, "user-%d was on and is off at %s", i, thousandths(percent))
			on[i] = now
		}
	}
	require.NotContains(t, on[:], false)
}

// Kolmogorov and Smirnov's test, for three kinds of units and several flags.
func TestFlagSharesAreWhatThePercentageSays(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	const n = 10_000
	kinds := map[string]func(i int) string{
		"numbers": func(i int) string { return fmt.Sprint(i) },
		"users":   func(i int) string { return fmt.Sprintf("user-%08d", i) },
		"long":    func(i int) string { return fmt.Sprintf("%032x-%032x", i, i) },
	}
	for kind, unit := range kinds {
		var units [n]string
		for i := range units {
			units[i] = unit(i)
		}
		for _, name := range []string{"a", "b", "checkout", "a-much-longer-name-of-a-flag"} {
			for percent := 5; percent < 100; percent += 5 {
				setFlag(t, f, name, fmt.Sprint(percent))
				on := 0
				for _, unit := range units {
					if f.Enabled(name, unit) {
						on++
					}
				}
				// 1.95/sqrt(n): exceeded by chance once in a thousand samples, and these are fixed.
				require.InDelta(t, float64(percent)/100, float64(on)/n, 1.95/math.Sqrt(n), "%s of %s", kind, name)
			}
		}
	}
}

func TestFlagSmallSharesAreRightToo(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	const n = 100_000
	setFlag(t, f, "rare", "0.1")
	require.InDelta(t, n/1000, share(f, "rare", n), 5*math.Sqrt(n/1000))
	setFlag(t, f, "common", "99.9")
	require.InDelta(t, n/1000, n-share(f, "common", n), 5*math.Sqrt(n/1000))
}

func TestFlagsAreIndependentOfEachOther(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	const n, flags = 20_000, 12
	var on [flags][n]bool
	for i := range on {
		name := fmt.Sprint("flag-", i)
		setFlag(t, f, name, "20")
		for u := range n {
			on[i][u] = f.Enabled(name, fmt.Sprint("user-", u))
		}
	}
	for i := range on {
		for j := range i {
			both := 0
			for u := range n {
				if on[i][u] && on[j][u] {
					both++
				}
			}
			const p = 0.2 * 0.2
			require.InDelta(t, n*p, both, 5*math.Sqrt(n*p*(1-p)), "flags %d and %d", i, j)
		}
	}
}

func TestFlagEnabledAllocatesNothing(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	f := newFlags(t, s, nil)
	setFlag(t, f, "x", "30")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		f.Enabled("x", "6f9619ff-8b86-d011-b42d-00c04fc964ff")
		f.Enabled("unknown", "user-1")
	}))
}

func TestFlagsDefaultOnErrorIsSlog(t *testing.T) {
	log := captureLog(t)
	s := kv.New(nil)
	defer s.Close()
	require.NoError(t, s.Set(t.Context(), "feature:x", "garbage", kv.NoExpiry))
	newFlags(t, s, nil)
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "flag=x")
	require.NotContains(t, log.String(), "garbage")
}

// captureLog returns what slog.Default is told until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	logger, out, flags := slog.Default(), log.Writer(), log.Flags()
	t.Cleanup(func() {
		slog.SetDefault(logger)
		log.SetOutput(out)
		log.SetFlags(flags)
	})
	buf := new(bytes.Buffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(buf, nil)))
	return buf
}
