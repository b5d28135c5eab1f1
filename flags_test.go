package kv_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvrecipes/kv"
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
