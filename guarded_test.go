package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

// rawCodec keeps strings as they are.
type rawCodec struct{}

func (rawCodec) Encode(s string) (string, error) { return s, nil }

func (rawCodec) Decode(s string) (string, error) { return s, nil }

func newGuarded(t *testing.T, opts *kv.GuardedOptions[string]) (*kv.Guarded[string], *kv.Store) {
	s := kv.New(nil)
	t.Cleanup(func() { _ = s.Close() })
	return kv.NewGuarded(s, opts), s
}

// computing returns a compute that takes d, heeds its context and counts its calls.
func computing(d time.Duration, value string, calls *atomic.Int32) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		calls.Add(1)
		select {
		case <-time.After(d):
			return value, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

func constant(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return value, nil }
}

func failing(err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return "", err }
}

func noCompute(t *testing.T) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		t.Error("computed again")
		return "again", nil
	}
}

// got is what one Get returned, and when.
type got struct {
	value string
	err   error
	after time.Duration
}

// getting calls Get in a goroutine.
func getting(ctx context.Context, g *kv.Guarded[string], key string, compute func(context.Context) (string, error)) <-chan got {
	c := make(chan got, 1)
	began := time.Now()
	go func() {
		v, err := g.Get(ctx, key, compute)
		c <- got{v, err, time.Since(began)}
	}()
	return c
}

func TestGuardedStampedeComputesOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		processes := []*kv.Guarded[map[string]int]{
			kv.NewGuarded(s, &kv.GuardedOptions[map[string]int]{TTL: time.Hour}),
			kv.NewGuarded(s, &kv.GuardedOptions[map[string]int]{TTL: time.Hour}),
		}
		var calls atomic.Int32
		var wg sync.WaitGroup
		began := time.Now()
		for i := range 1000 {
			wg.Go(func() {
				v, err := processes[i%2].Get(t.Context(), "key", func(context.Context) (map[string]int, error) {
					calls.Add(1)
					time.Sleep(1234567)
					return map[string]int{"answer": 42}, nil
				})
				require.NoError(t, err)
				require.Equal(t, map[string]int{"answer": 42}, v)
				require.Equal(t, time.Duration(1234567), time.Since(began), "by event")
				v["answer"] = i // everyone's own copy: the race detector would tell
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, calls.Load())
	})
}

func TestGuardedHitCostsOneGet(t *testing.T) {
	for name, opts := range map[string]kv.GuardedOptions[string]{
		"plain": {TTL: time.Hour},
		"aging": {TTL: time.Hour, StaleFor: time.Hour, Beta: 1, Jitter: 0.1, NegativeTTL: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			p := openProcesses(t, 1)[0]
			g := kv.NewGuarded(p.Store, &opts)
			for _, compute := range []func(context.Context) (string, error){constant("v"), noCompute(t)} {
				v, err := g.Get(t.Context(), "key", compute)
				require.NoError(t, err)
				require.Equal(t, "v", v)
			}
			calls, gets := p.engine.Count(), p.engine.Count("Get")
			for range 100 {
				_, err := g.Get(t.Context(), "key", noCompute(t))
				require.NoError(t, err)
			}
			require.Equal(t, calls+100, p.engine.Count(), "one call a hit")
			require.Equal(t, gets+100, p.engine.Count("Get"), "which is a Get")
		})
	}
}

func TestGuardedTTL(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, s := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Hour, Prefix: "p:q"})
		_, err := g.Get(t.Context(), "a:b", constant("1"))
		require.NoError(t, err)
		ttl, err := s.TTL(t.Context(), kv.Key("p:q", "a:b"))
		require.NoError(t, err)
		require.Equal(t, time.Hour, ttl)
		time.Sleep(time.Hour - 1)
		v, err := g.Get(t.Context(), "a:b", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "1", v)
		time.Sleep(time.Nanosecond)
		v, err = g.Get(t.Context(), "a:b", constant("2"))
		require.NoError(t, err)
		require.Equal(t, "2", v)

		g = kv.NewGuarded[string](s, nil)
		_, err = g.Get(t.Context(), "key", constant("for ever"))
		require.NoError(t, err)
		time.Sleep(1000 * time.Hour)
		_, err = g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.NoError(t, g.Invalidate(t.Context(), "key"))
		v, err = g.Get(t.Context(), "key", constant("new"))
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

func TestGuardedJitterSpreadsDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, s := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Hour, Jitter: 0.25})
		different := map[time.Duration]bool{}
		for i := range 200 {
			key := fmt.Sprint(i)
			_, err := g.Get(t.Context(), key, constant("v"))
			require.NoError(t, err)
			ttl, err := s.TTL(t.Context(), "guarded:"+key)
			require.NoError(t, err)
			require.LessOrEqual(t, ttl, time.Hour)
			require.GreaterOrEqual(t, ttl, 45*time.Minute)
			different[ttl] = true
		}
		require.Greater(t, len(different), 190)
	})
}

func TestGuardedErrorReachesWaitersAndIsNotStored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, s := newGuarded(t, nil)
		var calls atomic.Int32
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				v, err := g.Get(t.Context(), "key", func(context.Context) (string, error) {
					calls.Add(1)
					time.Sleep(time.Second)
					return "half", errBoom
				})
				require.Same(t, errBoom, err, "as it is")
				require.Empty(t, v)
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, calls.Load(), "none recomputes because of it")
		n, err := s.Count(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, n)
		v, err := g.Get(t.Context(), "key", constant("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

func TestGuardedErrNotFoundIsRememberedIfAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		notFound := fmt.Errorf("product 7: %w", kv.ErrNotFound)
		g, _ := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Hour, NegativeTTL: time.Minute})
		_, err := g.Get(t.Context(), "key", failing(notFound))
		require.Same(t, notFound, err)
		time.Sleep(time.Minute - 1)
		v, err := g.Get(t.Context(), "key", noCompute(t))
		require.ErrorIs(t, err, kv.ErrNotFound)
		require.Empty(t, v)
		time.Sleep(time.Nanosecond)
		v, err = g.Get(t.Context(), "key", constant("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)

		_, err = g.Get(t.Context(), "other", failing(errBoom))
		require.Same(t, errBoom, err)
		_, err = g.Get(t.Context(), "other", constant("v"))
		require.NoError(t, err, "no other error is remembered")

		_, err = g.Get(t.Context(), "invalidated", failing(notFound))
		require.Same(t, notFound, err)
		require.NoError(t, g.Invalidate(t.Context(), "invalidated"))
		_, err = g.Get(t.Context(), "invalidated", constant("v"))
		require.NoError(t, err)

		g, _ = newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Hour})
		_, err = g.Get(t.Context(), "key", failing(notFound))
		require.Same(t, notFound, err)
		_, err = g.Get(t.Context(), "key", constant("v"))
		require.NoError(t, err, "not unless asked")
	})
}

// What is stored says which computation it comes from, so that nothing is taken
// for a value that equals it in all else.
func TestGuardedStoredValuesDiffer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g, s := newGuarded(t, &kv.GuardedOptions[string]{TTL: time.Hour, StaleFor: time.Hour})
		stored := map[string]bool{}
		for range 100 {
			_, err := g.Get(t.Context(), "key", constant("v"))
			require.NoError(t, err)
			raw, err := s.Get(t.Context(), "guarded:key")
			require.NoError(t, err)
			stored[raw] = true
			require.NoError(t, g.Invalidate(t.Context(), "key"))
		}
		require.Len(t, stored, 100)
	})
}

func TestGuardedRefusesForeignValues(t *testing.T) {
	g, s := newGuarded(t, nil)
	for _, raw := range []string{"", "x", `"json"`, "kvg1", "kvg1V", "kvg1Lshort", "kvi1P\x00"} {
		require.NoError(t, s.Set(t.Context(), "guarded:key", raw, 0))
		_, err := g.Get(t.Context(), "key", noCompute(t))
		require.ErrorIs(t, err, kv.ErrWrongType, "%q", raw)
		_, err = kv.GuardedGet(t.Context(), s, "key", 0, noCompute(t))
		require.ErrorIs(t, err, kv.ErrWrongType, "%q", raw)
	}
	require.NoError(t, g.Invalidate(t.Context(), "key"))
	_, err := g.Get(t.Context(), "key", constant("v"))
	require.NoError(t, err)
}

func TestGuardedCodecErrors(t *testing.T) {
	s := kv.New(nil)
	defer s.Close()
	floats := kv.NewGuarded[float64](s, nil)
	_, err := floats.Get(t.Context(), "key", func(context.Context) (float64, error) { return math.NaN(), nil })
	require.Error(t, err, "can't be encoded")
	v, err := floats.Get(t.Context(), "key", func(context.Context) (float64, error) { return 1.5, nil })
	require.NoError(t, err)
	require.Equal(t, 1.5, v)
	_, err = kv.NewGuarded[[]int](s, nil).Get(t.Context(), "key", func(context.Context) ([]int, error) { return nil, nil })
	require.Error(t, err, "can't be decoded")
	var e *kv.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "key", e.Key)
}

func TestGuardedValueOverTheLimitIsReturnedAndNotKept(t *testing.T) {
	s := kv.New(&kv.Options{MaxValueBytes: 200})
	defer s.Close()
	g := kv.NewGuarded[string](s, nil)
	large := strings.Repeat("x", 200)
	for range 2 {
		v, err := g.Get(t.Context(), "key", constant(large))
		require.NoError(t, err)
		require.Equal(t, large, v)
		n, err := s.Count(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, n, "nor is the lease")
	}
}

func TestGuardedOptionsInvalid(t *testing.T) {
	for _, opts := range []kv.GuardedOptions[string]{{TTL: -2}, {StaleFor: -1}, {LockTTL: -1}, {Timeout: -1}, {NegativeTTL: -1}} {
		g, s := newGuarded(t, &opts)
		_, err := g.Get(t.Context(), "key", noCompute(t))
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
		_, err = kv.GuardedGet(t.Context(), s, "key", -2, noCompute(t))
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
		_, err = kv.NewGuarded[string](s, nil).Get(t.Context(), strings.Repeat("k", 513), noCompute(t))
		require.ErrorIs(t, err, kv.ErrInvalidKey)
	}
}

func TestGuardedStoreErrors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 1)[0]
		g := kv.NewGuarded(p.Store, &kv.GuardedOptions[string]{TTL: time.Hour, StaleFor: time.Hour})
		down := kvtest.Fault{Err: kvtest.ErrDown}

		p.engine.Inject(kvtest.Always(down, "Get"))
		_, err := g.Get(t.Context(), "key", noCompute(t))
		require.ErrorIs(t, err, kvtest.ErrDown, "nothing is computed unguarded")
		p.engine.Inject(kvtest.Always(down, "SetNX"))
		_, err = g.Get(t.Context(), "key", noCompute(t))
		require.ErrorIs(t, err, kvtest.ErrDown)

		p.engine.Inject(kvtest.Always(down, "CompareAndSwap"))
		v, err := g.Get(t.Context(), "key", constant("1"))
		require.NoError(t, err, "what was computed is returned, kept or not")
		require.Equal(t, "1", v)
		p.engine.Heal()
		began := time.Now()
		v, err = g.Get(t.Context(), "key", constant("2"))
		require.NoError(t, err)
		require.Equal(t, "2", v)
		require.Equal(t, 2*time.Second, time.Since(began), "the lease was left to end by itself")

		p.engine.Inject(kvtest.Always(down, "Now"))
		v, err = g.Get(t.Context(), "no clock", constant("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
		p.engine.Heal()
		ttl, err := p.TTL(t.Context(), "guarded:no clock")
		require.NoError(t, err)
		require.Equal(t, time.Hour, ttl, "without its age it can't be served stale")
	})
}

func TestGuardedResolvesUnknownOutcomes(t *testing.T) {
	for _, method := range []string{"SetNX", "CompareAndSwap", "CompareAndDelete"} {
		for _, applied := range []bool{true, false} {
			t.Run(fmt.Sprint(method, " applied ", applied), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := openProcesses(t, 1)[0]
					g := kv.NewGuarded[string](p.Store, nil)
					fault := func() {
						p.engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: applied}, method))
					}
					fault()
					v, err := g.Get(t.Context(), "key", constant("v"))
					if method == "SetNX" && !applied {
						require.ErrorIs(t, err, kv.ErrUnknownOutcome)
						v, err = g.Get(t.Context(), "key", constant("v"))
					}
					require.NoError(t, err)
					require.Equal(t, "v", v)
					_, err = g.Get(t.Context(), "key", noCompute(t))
					require.NoError(t, err, "kept")

					_, err = g.Get(t.Context(), "failing", func(context.Context) (string, error) {
						fault()
						return "", errBoom
					})
					require.Same(t, errBoom, err)
					p.engine.Heal()
					began := time.Now()
					_, err = g.Get(t.Context(), "failing", constant("v"))
					require.NoError(t, err)
					require.Zero(t, time.Since(began), "the lease was released")
				})
			})
		}
	}
}

func TestGuardedGet(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := kv.New(nil)
		defer s.Close()
		value := "any\x00bytes\xff"
		var calls atomic.Int32
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				v, err := kv.GuardedGet(t.Context(), s, "key", time.Hour, computing(time.Second, value, &calls))
				require.NoError(t, err)
				require.Equal(t, value, v)
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, calls.Load())
		time.Sleep(time.Hour - 1)
		v, err := kv.GuardedGet(t.Context(), s, "key", time.Hour, noCompute(t))
		require.NoError(t, err)
		require.Equal(t, value, v)
		time.Sleep(time.Nanosecond)
		v, err = kv.GuardedGet(t.Context(), s, "key", kv.NoExpiry, constant("2"))
		require.NoError(t, err)
		require.Equal(t, "2", v)

		ns := s.Namespace("ns")
		v, err = kv.GuardedGet(t.Context(), ns, "key", 0, constant("in the namespace"))
		require.NoError(t, err)
		require.Equal(t, "in the namespace", v)

		g := kv.NewGuarded(s, &kv.GuardedOptions[string]{Codec: rawCodec{}})
		v, err = g.Get(t.Context(), "key", noCompute(t))
		require.NoError(t, err)
		require.Equal(t, "2", v, "the same key as a Guarded's")
		require.NoError(t, g.Invalidate(t.Context(), "key"))
		v, err = kv.GuardedGet(t.Context(), s, "key", 0, func(context.Context) (string, error) { return "half", errBoom })
		require.Same(t, errBoom, err)
		require.Empty(t, v)
	})
}

func TestGuardedGetSharesFlightsOfANamespaceOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		for i := range p { // so that all callers come before the first flight begins to compute
			p[i].engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Second}, "SetNX"))
		}
		a, b := p[0].Store, p[1].Namespace("z")
		var calls atomic.Int32
		var wg sync.WaitGroup
		for i, s := range []*kv.Store{a, a.Namespace("x"), a.Namespace("y"), b, a, a.Namespace("x"), a.Namespace("y"), b} {
			wg.Go(func() {
				want := fmt.Sprint(i % 4)
				v, err := kv.GuardedGet(t.Context(), s, "key", time.Hour, computing(time.Second, want, &calls))
				require.NoError(t, err)
				require.Equal(t, want, v)
			})
		}
		wg.Wait()
		require.EqualValues(t, 4, calls.Load())
	})
}

func TestGuardedEndsWithTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := kv.New(nil)
		opts := &kv.GuardedOptions[string]{TTL: time.Minute, StaleFor: time.Hour}
		here, there := kv.NewGuarded(s, opts), kv.NewGuarded(s, opts)
		_, err := here.Get(t.Context(), "stale", constant("v"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		var calls atomic.Int32
		compute := computing(time.Hour, "never", &calls)
		_, err = here.Get(t.Context(), "stale", compute)
		require.NoError(t, err)
		var results []<-chan got
		for range 10 {
			results = append(results, getting(t.Context(), here, "key", compute), getting(t.Context(), there, "key", compute))
			synctest.Wait()
		}
		require.NoError(t, s.Close())
		for _, r := range results {
			r := <-r
			require.ErrorIs(t, r.err, kv.ErrClosed)
			require.Zero(t, r.after)
		}
		synctest.Wait() // the bubble fails if a goroutine is left: computes were told to end
		require.EqualValues(t, 2, calls.Load())
	})
}

// guardedSource is a source of truth that changes, for one key.
type guardedSource struct {
	version atomic.Int64
	floor   atomic.Int64 // the version that was there when the last successful Invalidate began
}

// Whoever asks after an Invalidate has returned sees nothing from before it, with
// whatever options, in whatever process, while computes fail, panic, take longer than the lease and
// are cancelled, and the store answers with errors and unknown outcomes.
func TestGuardedRandomly(t *testing.T) {
	for seed := range uint64(12) {
		inBubble(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			opts := &kv.GuardedOptions[int64]{
				TTL:         time.Duration(r.IntN(2000)) * time.Millisecond,
				StaleFor:    time.Duration(r.IntN(2)*r.IntN(5000)) * time.Millisecond,
				LockTTL:     time.Duration(50+r.IntN(300)) * time.Millisecond,
				Timeout:     time.Duration(r.IntN(2)*r.IntN(500)) * time.Millisecond,
				Jitter:      float64(r.IntN(2)) * 0.5,
				Beta:        float64(r.IntN(3)),
				NegativeTTL: time.Duration(r.IntN(2)*r.IntN(1000)) * time.Millisecond,
			}
			faults := r.IntN(2) * 20
			p := openProcesses(t, 3)
			var processes []*kv.Guarded[int64]
			for i := range p {
				p[i].engine.Inject(faultyNetwork(seed, uint64(i), faults))
				processes = append(processes, kv.NewGuarded(p[i].Store, opts))
			}
			sources := make([]guardedSource, 3)
			var wg sync.WaitGroup
			for n := range 60 {
				r := rand.New(rand.NewPCG(seed, uint64(n+1)))
				wg.Go(func() {
					for range 30 {
						time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
						process, k := r.IntN(3), r.IntN(len(sources))
						useGuardedRandomly(t, processes[process], &sources[k], fmt.Sprint(k), r, faults > 0)
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				t.Logf("seed %d, %+v", seed, opts)
			}
		})
	}
}

func faultyNetwork(seed, process uint64, perThousand int) kvtest.Plan {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, process+1000))
	return func(c kvtest.Call) kvtest.Fault {
		mu.Lock()
		defer mu.Unlock()
		fault := kvtest.Fault{Delay: time.Duration(r.IntN(3)) * time.Millisecond, Applied: r.IntN(2) == 0}
		if r.IntN(1000) < perThousand {
			fault.Err = kvtest.ErrDown
			if c.Method != "Get" && c.Method != "Now" && c.Method != "Watch" {
				fault.Err = kvtest.ErrUnknown
			}
		}
		return fault
	}
}

func useGuardedRandomly(t *testing.T, g *kv.Guarded[int64], source *guardedSource, key string, r *rand.Rand, faulty bool) {
	if r.IntN(6) == 0 {
		now := source.version.Add(1)
		if err := g.Invalidate(t.Context(), key); err != nil {
			require.True(t, faulty, "%v", err)
			return
		}
		for {
			floor := source.floor.Load()
			if floor >= now || source.floor.CompareAndSwap(floor, now) {
				return
			}
		}
	}
	takes, fate := time.Duration(r.IntN(600))*time.Millisecond, r.IntN(12)
	ctx := t.Context()
	if r.IntN(4) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(500))*time.Millisecond)
		defer cancel()
	}
	floor := source.floor.Load()
	v, err := g.Get(ctx, key, func(ctx context.Context) (int64, error) {
		version := source.version.Load()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			if fate != 3 { // which ignores it and returns a value too late
				return 0, ctx.Err()
			}
		}
		switch fate {
		case 0:
			return 0, errBoom
		case 1:
			panic(errBoom)
		case 2:
			return 0, kv.ErrNotFound
		}
		return version, nil
	})
	var panicked *kv.PanicError
	switch {
	case err == nil:
		require.GreaterOrEqual(t, v, floor, "a value from before an Invalidate that had returned")
	case errors.Is(err, errBoom), errors.Is(err, kv.ErrNotFound), errors.As(err, &panicked),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
	default:
		require.True(t, faulty && errors.Is(err, kvtest.ErrDown), "%v", err)
	}
}
