package kv_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func TestExecuteRenewsTheClaimWhileTheWorkRuns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{ClaimTTL: 30 * time.Second})
		go func() {
			_, _, err := i.Execute(t.Context(), "key", "fp", workFor(time.Hour, kv.Response{Status: 201}))
			require.NoError(t, err)
		}()
		synctest.Wait()
		for range 359 {
			time.Sleep(10 * time.Second)
			_, _, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
			require.ErrorIs(t, err, kv.ErrInProgress)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		resp, replay, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
		require.NoError(t, err)
		require.True(t, replay)
		require.Equal(t, 201, resp.Status)
	})
}

func TestExecuteCrashFreesTheKeyAfterClaimTTL(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		opts := &kv.IdempotencyOptions{ClaimTTL: 30 * time.Second, Wait: time.Hour}
		crashed := kv.NewIdempotency(p[0].Store, opts)
		go func() { _, _, _ = crashed.Execute(t.Context(), "key", "fp", workFor(time.Hour, kv.Response{})) }()
		synctest.Wait()
		p[0].cutOff()
		began := time.Now()
		resp, replay, err := kv.NewIdempotency(p[1].Store, opts).Execute(t.Context(), "key", "fp", respond("second"))
		require.NoError(t, err)
		require.False(t, replay)
		require.Equal(t, "second", string(resp.Body))
		require.Equal(t, 30*time.Second, time.Since(began), "neither later nor earlier")
		time.Sleep(time.Hour)
	})
}

func TestExecuteLostClaim(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		ctx := t.Context()
		first, second := kv.NewIdempotency(p[0].Store, nil), kv.NewIdempotency(p[1].Store, nil)
		for name, heeds := range map[string]bool{"heeds its context": true, "ignores its context": false} {
			p[0].engine.Heal()
			lost := make(chan error)
			go func() {
				_, replay, err := first.Execute(ctx, name, "fp", func(ctx context.Context) (kv.Response, error) {
					p[0].cutOff()
					<-ctx.Done()
					require.ErrorIs(t, context.Cause(ctx), kv.ErrLockLost)
					if heeds {
						return kv.Response{}, errBoom
					}
					time.Sleep(time.Minute)
					p[0].engine.Heal()
					return kv.Response{Body: []byte("first")}, nil
				})
				require.False(t, replay)
				lost <- err
			}()
			time.Sleep(30*time.Second + 1)
			_, replay, err := second.Execute(ctx, name, "fp", respond("second"))
			require.NoError(t, err)
			require.False(t, replay)
			err = <-lost
			require.ErrorIs(t, err, kv.ErrLockLost, name)
			if heeds {
				require.ErrorIs(t, err, errBoom, "f's error is not lost")
			}
			resp, replay, err := second.Execute(ctx, name, "fp", mustNotRun(t))
			require.NoError(t, err)
			require.True(t, replay)
			require.Equal(t, "second", string(resp.Body), "the successor's result stands")
		}
	})
}

func TestExecuteLostClaimLeavesTheSuccessorsAlone(t *testing.T) {
	for name, err := range map[string]error{"success": nil, "failure": errBoom} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				i := newIdem(t, nil)
				ctx := t.Context()
				_, _, got := i.Execute(ctx, "key", "fp", func(context.Context) (kv.Response, error) {
					_, delErr := i.store.Delete(ctx, "idempotency:key:key") // as if it had expired
					require.NoError(t, delErr)
					go func() {
						_, _, err := i.Execute(ctx, "key", "fp", workFor(time.Hour, kv.Response{Status: 2}))
						require.NoError(t, err)
					}()
					synctest.Wait()
					return kv.Response{Status: 1}, err
				})
				require.ErrorIs(t, got, kv.ErrLockLost)
				_, _, got = i.Execute(ctx, "key", "fp", mustNotRun(t))
				require.ErrorIs(t, got, kv.ErrInProgress)
				time.Sleep(time.Hour)
				synctest.Wait()
				resp, _, got := i.Execute(ctx, "key", "fp", mustNotRun(t))
				require.NoError(t, got)
				require.Equal(t, 2, resp.Status)
			})
		})
	}
}

func TestExecuteWhenItsCallerGoesAway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 1)[0] // whose calls obey ctx, as on a network
		p.engine.Inject(kvtest.Always(kvtest.Fault{Delay: time.Millisecond}))
		i := kv.NewIdempotency(p.Store, nil)
		type ctxKey struct{}

		ctx, goAway := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, "value"))
		_, _, err := i.Execute(ctx, "completes", "fp", func(ctx context.Context) (kv.Response, error) {
			require.Equal(t, "value", ctx.Value(ctxKey{}))
			goAway()
			return kv.Response{Status: 201}, nil
		})
		require.NoError(t, err)
		resp, replay, err := i.Execute(t.Context(), "completes", "fp", mustNotRun(t))
		require.NoError(t, err)
		require.True(t, replay)
		require.Equal(t, 201, resp.Status)

		ctx, goAway = context.WithCancel(t.Context())
		_, _, err = i.Execute(ctx, "releases", "fp", func(ctx context.Context) (kv.Response, error) {
			goAway()
			<-ctx.Done()
			return kv.Response{}, ctx.Err()
		})
		require.Equal(t, context.Canceled, err)
		_, replay, err = i.Execute(t.Context(), "releases", "fp", respond(""))
		require.NoError(t, err)
		require.False(t, replay)

		_, _, err = newIdem(t, nil).Execute(ctx, "new", "fp", mustNotRun(t))
		require.ErrorIs(t, err, context.Canceled, "one who has gone claims nothing")
	})
}

func TestExecuteWaitersGetTheResultByEvent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		opts := &kv.IdempotencyOptions{Wait: time.Hour}
		here, there := kv.NewIdempotency(p[0].Store, opts), kv.NewIdempotency(p[1].Store, opts)
		began := time.Now()
		go func() { _, _, _ = here.Execute(t.Context(), "key", "fp", workFor(1234567, kv.Response{Status: 201})) }()
		synctest.Wait()
		var wg sync.WaitGroup
		for n := range 100 {
			i := []*kv.Idempotency{here, there}[n%2]
			wg.Go(func() {
				resp, replay, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
				require.NoError(t, err)
				require.True(t, replay)
				require.Equal(t, 201, resp.Status)
				require.Equal(t, time.Duration(1234567), time.Since(began), "at the instant at which the work is done")
			})
		}
		wg.Wait()
	})
}

func TestExecuteWaitersRunOneAtATimeIfTheLeaderFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{Wait: time.Hour})
		var running, runs, replays, failures atomic.Int32
		f := func(context.Context) (kv.Response, error) {
			require.EqualValues(t, 1, running.Add(1))
			defer running.Add(-1)
			time.Sleep(time.Second)
			if runs.Add(1) < 5 {
				return kv.Response{}, errBoom
			}
			return kv.Response{Status: 201}, nil
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				resp, replay, err := i.Execute(t.Context(), "key", "fp", f)
				switch {
				case err != nil:
					require.Same(t, errBoom, err)
					failures.Add(1)
				case replay:
					replays.Add(1)
					fallthrough
				default:
					require.Equal(t, 201, resp.Status)
				}
			})
		}
		began := time.Now()
		wg.Wait()
		require.EqualValues(t, 5, runs.Load())
		require.EqualValues(t, 4, failures.Load())
		require.EqualValues(t, 45, replays.Load())
		require.Equal(t, 5*time.Second, time.Since(began), "the next begins when the one before has failed")
	})
}

func TestExecuteWaitsNoLongerThanWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{Wait: 100 * time.Second}) // over several renewals
		go func() { _, _, _ = i.Execute(t.Context(), "key", "fp", workFor(time.Hour, kv.Response{})) }()
		synctest.Wait()
		began := time.Now()
		_, _, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrInProgress)
		require.Equal(t, 100*time.Second, time.Since(began))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = i.Execute(ctx, "key", "fp", mustNotRun(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 101*time.Second, time.Since(began))
		time.Sleep(time.Hour)
	})
}

// Between the waiter's look at the claim and its question for how long, the claim ends.
func TestExecuteWaiterWhoseClaimEndsMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 1)[0]
		i := kv.NewIdempotency(p.Store, &kv.IdempotencyOptions{Wait: time.Hour})
		go func() { _, _, _ = i.Execute(t.Context(), "key", "fp", workFor(time.Second, kv.Response{Status: 201})) }()
		synctest.Wait()
		p.engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kv.ErrNotFound}, "TTL"))
		resp, replay, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
		require.NoError(t, err)
		require.True(t, replay)
		require.Equal(t, 201, resp.Status)
	})
}

func TestIdempotencyEndsWithTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{Wait: time.Hour})
		var wg sync.WaitGroup
		wg.Go(func() {
			resp, _, err := i.Execute(t.Context(), "key", "fp", workFor(time.Second, kv.Response{Status: 201}))
			require.ErrorIs(t, err, kv.ErrClosed)
			require.Equal(t, 201, resp.Status, "the work was done")
		})
		wg.Go(func() {
			_, _, err := i.Execute(t.Context(), "long", "fp", workFor(time.Hour, kv.Response{}))
			require.ErrorIs(t, err, kv.ErrLockLost)
		})
		synctest.Wait()
		began := time.Now()
		for range 10 {
			wg.Go(func() {
				_, _, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
				require.ErrorIs(t, err, kv.ErrClosed)
				require.Zero(t, time.Since(began))
			})
		}
		synctest.Wait()
		require.NoError(t, i.store.Close())
		wg.Wait() // the bubble fails if a goroutine is left
		_, err := i.AlreadyProcessed(t.Context(), "event")
		require.ErrorIs(t, err, kv.ErrClosed)
	})
}

// A write whose outcome is unknown, whether or not it has happened, leaves no
// doubt in what Execute says.
func TestExecuteResolvesUnknownOutcomes(t *testing.T) {
	for _, method := range []string{"SetNX", "CompareAndSwap", "CompareAndDelete"} {
		for _, applied := range []bool{true, false} {
			name := method + " applied"
			if !applied {
				name = method + " not applied"
			}
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := openProcesses(t, 1)[0]
					i := kv.NewIdempotency(p.Store, nil)
					ctx := t.Context()
					fault := func() {
						p.engine.Inject(kvtest.Times(1, kvtest.Fault{Err: kvtest.ErrUnknown, Applied: applied}, method))
					}
					fault()
					_, replay, err := i.Execute(ctx, "key", "fp", respond("1"))
					if method == "SetNX" && !applied {
						require.ErrorIs(t, err, kv.ErrUnknownOutcome)
						_, replay, err = i.Execute(ctx, "key", "fp", respond("1"))
					}
					require.NoError(t, err)
					require.False(t, replay)
					resp, replay, err := i.Execute(ctx, "key", "fp", mustNotRun(t))
					require.NoError(t, err)
					require.True(t, replay)
					require.Equal(t, "1", string(resp.Body))

					_, _, err = i.Execute(ctx, "failing", "fp", func(context.Context) (kv.Response, error) {
						fault()
						return kv.Response{}, errBoom
					})
					require.Equal(t, errBoom, err)
					p.engine.Heal()
					_, replay, err = i.Execute(ctx, "failing", "fp", respond("2"))
					require.NoError(t, err)
					require.False(t, replay)
				})
			})
		}
	}
}

func TestExecuteRecordsWhatWasDoneThoughTheStoreFailsForAWhile(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 2)
		ctx := t.Context()
		first, second := kv.NewIdempotency(p[0].Store, nil), kv.NewIdempotency(p[1].Store, nil)
		began := time.Now()
		resp, replay, err := first.Execute(ctx, "key", "fp", func(context.Context) (kv.Response, error) {
			p[0].cutOff()
			time.AfterFunc(20*time.Second, p[0].engine.Heal)
			return kv.Response{Status: 201}, nil
		})
		require.NoError(t, err)
		require.False(t, replay)
		require.Equal(t, 201, resp.Status)
		require.InDelta(t, 20*time.Second, time.Since(began), float64(time.Second))
		resp, replay, err = second.Execute(ctx, "key", "fp", mustNotRun(t))
		require.NoError(t, err)
		require.True(t, replay)
		require.Equal(t, 201, resp.Status)
	})
}

func TestExecuteReturnsWhatWasDoneThoughTheStoreFailsForGood(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 1)[0]
		i := kv.NewIdempotency(p.Store, nil)
		began := time.Now()
		resp, replay, err := i.Execute(t.Context(), "key", "fp", func(context.Context) (kv.Response, error) {
			p.cutOff()
			return kv.Response{Status: 201}, nil
		})
		require.ErrorIs(t, err, kvtest.ErrDown)
		require.False(t, replay)
		require.Equal(t, 201, resp.Status)
		require.LessOrEqual(t, time.Since(began), 30*time.Second, "it does not try for ever")
		_, _, err = i.Execute(t.Context(), "key", "fp", mustNotRun(t))
		require.ErrorIs(t, err, kvtest.ErrDown, "no store, no work")
	})
}

func TestExecuteRecordingEndsWithTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := openProcesses(t, 1)[0]
		began := time.Now()
		resp, _, err := kv.NewIdempotency(p.Store, nil).Execute(t.Context(), "key", "fp", func(context.Context) (kv.Response, error) {
			p.cutOff()
			time.AfterFunc(4321*time.Millisecond, func() { _ = p.Close() })
			return kv.Response{Status: 201}, nil
		})
		require.ErrorIs(t, err, kv.ErrClosed)
		require.Equal(t, 201, resp.Status)
		require.Equal(t, 4321*time.Millisecond, time.Since(began), "at once")
	})
}

// keyed is what the random test knows about one key.
type keyed struct {
	running   atomic.Int32
	successes atomic.Int32
	result    atomic.Int64
}

// Many calls of two processes, with work that succeeds, fails, panics and exits
// after random times, and callers that go away: per key one works at a time, one
// succeeds, and everybody gets what that one returned.
func TestExecuteRandomly(t *testing.T) {
	for seed := range uint64(20) {
		inBubble(t, func(t *testing.T) {
			p := openProcesses(t, 2)
			keys := make([]keyed, 5)
			var wg sync.WaitGroup
			for n := range 200 {
				r := rand.New(rand.NewPCG(seed, uint64(n)))
				wait := time.Duration(r.IntN(2)) * time.Hour
				i := kv.NewIdempotency(p[n%2].Store, &kv.IdempotencyOptions{Wait: wait, ClaimTTL: 10 * time.Second})
				wg.Go(func() {
					time.Sleep(time.Duration(r.IntN(5)) * time.Second)
					k := r.IntN(len(keys))
					executeRandomly(t, i, &keys[k], string(rune('a'+k)), r, wait)
				})
			}
			wg.Wait()
			for k := range keys {
				require.LessOrEqual(t, keys[k].successes.Load(), int32(1), "seed %d", seed)
			}
		})
	}
}

func executeRandomly(t *testing.T, i *kv.Idempotency, k *keyed, name string, r *rand.Rand, wait time.Duration) {
	work, fate, result := time.Duration(r.IntN(20_000))*time.Millisecond, r.IntN(6), int64(r.Uint32()>>1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+r.IntN(100))*time.Second)
	defer cancel()
	defer func() {
		if v := recover(); v != nil && v != any(errBoom) {
			panic(v)
		}
	}()
	exited := make(chan struct{})
	go func() { // for Goexit
		defer close(exited)
		defer func() {
			if v := recover(); v != nil {
				require.Same(t, errBoom, v)
			}
		}()
		resp, replay, err := i.Execute(ctx, name, "fp", func(context.Context) (kv.Response, error) {
			require.EqualValues(t, 1, k.running.Add(1), "two at a time")
			defer k.running.Add(-1)
			time.Sleep(work)
			switch fate {
			case 0:
				return kv.Response{}, errBoom
			case 1:
				panic(errBoom)
			case 2:
				runtime.Goexit()
			}
			k.successes.Add(1)
			k.result.Store(result)
			return kv.Response{Status: int(result)}, nil
		})
		switch {
		case err == nil:
			require.EqualValues(t, k.result.Load(), resp.Status)
			require.True(t, replay || int64(resp.Status) == result)
		case errors.Is(err, kv.ErrInProgress):
			require.Zero(t, wait)
		default:
			require.True(t, errors.Is(err, errBoom) || errors.Is(err, context.DeadlineExceeded), "%v", err)
		}
	}()
	<-exited
}
