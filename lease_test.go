package kv

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errDown = errors.New("the engine is down")

// errUnknown is what an engine returns for a write that may or may not have happened.
var errUnknown = errors.Join(ErrUnknownOutcome, errDown)

// scripted is the engine in memory with calls that a test replaces; each gets the call as it would have been.
type scripted struct {
	Engine
	mu     sync.Mutex
	script // guarded by mu
}

type script struct {
	setNX func(do func() (bool, error)) (bool, error)
	swap  func(ctx context.Context, ttl time.Duration, do func() (bool, error)) (bool, error)
	del   func(do func() (bool, error)) (bool, error)
	get   func(do func() (string, error)) (string, error)
}

// now makes next what happens from now on.
func (e *scripted) now(next script) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.script = next
}

func (e *scripted) current() script {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.script
}

func newScripted(t *testing.T) (*scripted, *Store) {
	var o *Options
	e := &scripted{Engine: newMemory(o.withDefaults())}
	s := NewWithEngine(e, nil)
	t.Cleanup(func() { _ = s.Close() })
	return e, s
}

func (e *scripted) SetNX(ctx context.Context, key, value string, ttl time.Duration) (bool, error) {
	do := func() (bool, error) { return e.Engine.SetNX(ctx, key, value, ttl) }
	f := e.current().setNX
	if f == nil {
		return do()
	}
	return f(do)
}

func (e *scripted) CompareAndSwap(ctx context.Context, key, old, new string, ttl time.Duration) (bool, error) {
	do := func() (bool, error) { return e.Engine.CompareAndSwap(ctx, key, old, new, ttl) }
	f := e.current().swap
	if f == nil {
		return do()
	}
	return f(ctx, ttl, do)
}

func (e *scripted) CompareAndDelete(ctx context.Context, key, old string) (bool, error) {
	do := func() (bool, error) { return e.Engine.CompareAndDelete(ctx, key, old) }
	f := e.current().del
	if f == nil {
		return do()
	}
	return f(do)
}

func (e *scripted) Get(ctx context.Context, key string) (string, error) {
	do := func() (string, error) { return e.Engine.Get(ctx, key) }
	f := e.current().get
	if f == nil {
		return do()
	}
	return f(do)
}

// takeTestLease takes and holds a lease on key "claim".
func takeTestLease(t *testing.T, s *Store, o leaseOptions) *lease {
	t.Helper()
	value := newToken()
	taken, began, err := takeLease(t.Context(), s, "claim", value, o.ttl)
	require.NoError(t, err)
	require.True(t, taken)
	l := holdLease(t.Context(), s, "claim", value, began, o)
	t.Cleanup(l.abandon)
	return l
}

// remaining returns what remains of the life of the key "claim", -1 if it is gone.
func remaining(t *testing.T, s *Store) time.Duration {
	t.Helper()
	ttl, err := s.TTL(t.Context(), "claim")
	if errors.Is(err, ErrNotFound) {
		return -1
	}
	require.NoError(t, err)
	return ttl
}

const leaseTTL = time.Minute

func TestTokensAreLongAndDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for range 10_000 {
		token := newToken()
		require.GreaterOrEqual(t, len(token)*5, 128, "base 32 has 5 bits a character")
		require.Empty(t, strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
		require.False(t, seen[token])
		seen[token] = true
	}
}

func TestLeaseIsRenewedAtAThirdOfItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		for range 100 {
			time.Sleep(leaseTTL/3 - 1)
			synctest.Wait()
			require.Equal(t, leaseTTL-leaseTTL/3+1, remaining(t, s), "not before a third has passed")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			require.Equal(t, leaseTTL, remaining(t, s), "then with the whole ttl")
			require.NoError(t, l.context().Err())
		}
	})
}

// A write whose outcome is unknown may land late, after others: the lease must not trust a longer ttl then.
func TestLeaseDistrustsLongerTTLAfterAWriteOfUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		var late func() (bool, error)
		e.now(script{swap: func(_ context.Context, _ time.Duration, do func() (bool, error)) (bool, error) {
			late = do
			return false, errUnknown
		}})
		require.ErrorIs(t, l.extend(t.Context(), leaseTTL/10), ErrUnknownOutcome)
		e.now(script{})
		require.NoError(t, l.extend(t.Context(), 10*leaseTTL))
		swapped, err := late() // the short ttl arrives after the long one
		require.NoError(t, err)
		require.True(t, swapped)
		require.Equal(t, leaseTTL/10, remaining(t, s))
		e.now(script{swap: func(context.Context, time.Duration, func() (bool, error)) (bool, error) { return false, errDown }})
		<-l.context().Done()
		require.Positive(t, remaining(t, s), "the lease ended before its key")
		require.ErrorIs(t, context.Cause(l.context()), ErrLockLost)
	})
}

// An unknown Extend to a shorter ttl may have happened: the local deadline must not stay behind it.
func TestLeaseShortensAfterAnUnknownShorterExtend(t *testing.T) {
	for name, applied := range map[string]bool{"applied": true, "not applied": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, s := newScripted(t)
				l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL, noRenew: true})
				e.now(script{swap: func(_ context.Context, _ time.Duration, do func() (bool, error)) (bool, error) {
					if applied {
						_, _ = do()
					}
					return false, errUnknown
				}})
				began := time.Now()
				require.ErrorIs(t, l.extend(t.Context(), time.Second), ErrUnknownOutcome)
				<-l.context().Done()
				require.Equal(t, time.Second-leaseMargin(time.Second), time.Since(began))
			})
		})
	}
}

// An Extend that certainly did not happen leaves the lease as it was.
func TestLeaseIsAsItWasAfterAFailedExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		began := time.Now()
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL, noRenew: true})
		e.now(script{swap: func(context.Context, time.Duration, func() (bool, error)) (bool, error) { return false, errDown }})
		require.ErrorIs(t, l.extend(t.Context(), time.Second), errDown)
		require.ErrorIs(t, l.extend(t.Context(), time.Hour), errDown)
		<-l.context().Done()
		require.Equal(t, leaseTTL-leaseMargin(leaseTTL), time.Since(began))
	})
}

// A timer that has fired already may find the lease in any state.
func TestLeaseRenewsOnlyWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		due := func(l *lease) bool {
			_, due := l.startRenewal()
			return due
		}
		fixed := takeTestLease(t, s, leaseOptions{ttl: leaseTTL, noRenew: true})
		time.Sleep(leaseTTL / 2)
		require.False(t, due(fixed), "never")
		require.NoError(t, fixed.release(t.Context()))
		require.False(t, fixed.timer.Stop(), "what has ended leaves no timer")

		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		require.False(t, due(l), "too early")
		require.NoError(t, l.startWrite(t.Context()))
		time.Sleep(leaseTTL / 2)
		require.False(t, due(l), "another write is under way")
	})
}

func TestLeaseRenewalEndsWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		began := time.Now()
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		require.NoError(t, s.Close())
		time.Sleep(leaseTTL / 3)
		synctest.Wait()
		l.mu.Lock()
		next := l.nextLocked()
		l.mu.Unlock()
		require.Equal(t, leaseTTL-leaseMargin(leaseTTL), next.Sub(began), "nothing is left to do but to end in time")
		<-l.context().Done()
		require.ErrorIs(t, context.Cause(l.context()), ErrLockLost)
	})
}

// Two writes of one lease could reach the store in either order, so there is never more than one.
func TestLeaseWritesOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		var under, most atomic.Int32
		e.now(script{swap: func(_ context.Context, _ time.Duration, do func() (bool, error)) (bool, error) {
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			time.Sleep(leaseTTL / 10)
			return do()
		}})
		time.Sleep(leaseTTL / 3) // a renewal begins
		synctest.Wait()
		require.EqualValues(t, 1, under.Load())
		ctx, cancel := context.WithTimeout(t.Context(), leaseTTL/20)
		defer cancel()
		require.ErrorIs(t, l.extend(ctx, leaseTTL), context.DeadlineExceeded, "waiting for its turn obeys ctx")
		for range 3 {
			require.NoError(t, l.extend(t.Context(), leaseTTL))
		}
		require.EqualValues(t, 1, most.Load())
	})
}

func TestLeaseExtendEndsWithTheLeaseWhileARenewalHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		e.now(script{swap: func(context.Context, time.Duration, func() (bool, error)) (bool, error) {
			time.Sleep(time.Hour) // an engine that ignores ctx
			return false, errDown
		}})
		began := time.Now()
		time.Sleep(leaseTTL / 3)
		synctest.Wait()
		require.ErrorIs(t, l.extend(t.Context(), leaseTTL), ErrLockLost)
		require.Equal(t, leaseTTL-leaseMargin(leaseTTL), time.Since(began), "a renewal that hangs doesn't hold the loss up")
		time.Sleep(2 * time.Hour)
	})
}

// Without dropping it, a renewal that succeeds too late would block the key for one more ttl.
func TestLeaseDropsTheKeyAfterALateRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		e.now(script{swap: func(_ context.Context, _ time.Duration, do func() (bool, error)) (bool, error) {
			time.Sleep(leaseTTL*2/3 - 1) // until just before the store's deadline
			return do()
		}})
		time.Sleep(leaseTTL - 1)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(l.context()), ErrLockLost)
		require.EqualValues(t, -1, remaining(t, s))
	})
}

func TestLeaseCompleteLeavesTheValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		e.now(script{swap: func(ctx context.Context, _ time.Duration, do func() (bool, error)) (bool, error) {
			if err := ctx.Err(); err != nil { // as an engine on a network does
				return false, err
			}
			return do()
		}})
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, l.complete(ctx, "result", time.Hour), "a caller who went away completes all the same")
		require.ErrorIs(t, context.Cause(l.context()), context.Canceled)
		require.Equal(t, time.Hour, remaining(t, s))
		value, err := s.Get(t.Context(), "claim")
		require.NoError(t, err)
		require.Equal(t, "result", value)
		require.ErrorIs(t, l.complete(ctx, "other", time.Hour), ErrLockLost)
		require.ErrorIs(t, l.release(ctx), ErrLockLost)
		require.ErrorIs(t, l.extend(t.Context(), time.Hour), ErrLockLost)
		time.Sleep(time.Hour - 1)
		require.EqualValues(t, 1, remaining(t, s), "no renewal touches it any more")
	})
}

func TestLeaseCompleteNeverOverwritesASuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		first := takeTestLease(t, s, leaseOptions{ttl: leaseTTL, noRenew: true})
		time.Sleep(leaseTTL)
		second := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		require.ErrorIs(t, first.complete(t.Context(), "result", NoExpiry), ErrLockLost)
		require.ErrorIs(t, first.release(t.Context()), ErrLockLost)
		require.True(t, second.alive())
		require.NoError(t, second.complete(t.Context(), "result", NoExpiry))
	})
}

// twice is a write whose outcome is unknown the first time.
func twice(applied bool) func(do func() (bool, error)) (bool, error) {
	first := true
	return func(do func() (bool, error)) (bool, error) {
		if !first {
			return do()
		}
		first = false
		if applied {
			_, _ = do()
		}
		return false, errUnknown
	}
}

func TestLeaseFinishesThroughAnUnknownOutcome(t *testing.T) {
	for name, applied := range map[string]bool{"applied": true, "not applied": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, s := newScripted(t)
				l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
				once := twice(applied)
				e.now(script{swap: func(_ context.Context, _ time.Duration, do func() (bool, error)) (bool, error) { return once(do) }})
				require.NoError(t, l.complete(t.Context(), "result", time.Hour))
				require.Equal(t, time.Hour, remaining(t, s))

				_, err := s.Delete(t.Context(), "claim")
				require.NoError(t, err)
				l = takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
				e.now(script{del: twice(applied)})
				require.NoError(t, l.release(t.Context()))
				require.EqualValues(t, -1, remaining(t, s))
				require.ErrorIs(t, l.release(t.Context()), ErrLockLost)
			})
		})
	}
}

// Somebody else may have had the key since: an unknown outcome must not be taken for success.
func TestLeaseUnknownOutcomeThenASuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL, noRenew: true})
		time.Sleep(leaseTTL)
		second := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		e.now(script{del: twice(false)})
		require.ErrorIs(t, l.release(t.Context()), ErrLockLost)
		require.True(t, second.alive())
		require.Equal(t, leaseTTL, remaining(t, s))
		once := twice(false)
		e.now(script{swap: func(_ context.Context, _ time.Duration, do func() (bool, error)) (bool, error) { return once(do) }})
		require.NoError(t, s.Set(t.Context(), "claim", "another's", leaseTTL))
		require.ErrorIs(t, second.complete(t.Context(), "result", time.Hour), ErrLockLost)
		require.Equal(t, leaseTTL, remaining(t, s))
	})
}

func TestLeaseFinishMayBeTriedAgainAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		e.now(script{del: func(func() (bool, error)) (bool, error) { return false, errDown }})
		require.ErrorIs(t, l.release(t.Context()), errDown)
		require.ErrorIs(t, context.Cause(l.context()), context.Canceled, "the context ends even so")
		e.now(script{})
		require.NoError(t, l.release(t.Context()))
		require.EqualValues(t, -1, remaining(t, s))
		require.ErrorIs(t, l.release(t.Context()), ErrLockLost)
	})
}

func TestLeaseAbandonWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL})
		l.abandon()
		require.False(t, l.alive())
		require.ErrorIs(t, context.Cause(l.context()), context.Canceled)
		time.Sleep(leaseTTL - 1)
		require.EqualValues(t, 1, remaining(t, s))
	})
}

func TestTakeLeaseLooksAfterAnUnknownOutcome(t *testing.T) {
	down := func(func() (string, error)) (string, error) { return "", errDown }
	cases := map[string]struct {
		applied bool
		other   bool                                            // somebody else has the key
		get     func(do func() (string, error)) (string, error) // nil: it works
		gone    bool                                            // ctx ends during the call
		taken   bool
		err     error
	}{
		"ours":                     {applied: true, taken: true},
		"another's":                {other: true},
		"not there":                {err: ErrUnknownOutcome},
		"ours, but unreadable":     {applied: true, get: down, err: ErrUnknownOutcome},
		"ours, but ctx has ended":  {applied: true, gone: true, err: ErrUnknownOutcome},
		"not there, ctx has ended": {gone: true, err: ErrUnknownOutcome},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e, s := newScripted(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.other {
				require.NoError(t, s.Set(ctx, "claim", "another", leaseTTL))
			}
			e.now(script{get: c.get, setNX: func(do func() (bool, error)) (bool, error) {
				if c.applied {
					_, _ = do()
				}
				if c.gone {
					cancel()
				}
				return false, errUnknown
			}})
			taken, _, err := takeLease(ctx, s, "claim", "token", leaseTTL)
			require.Equal(t, c.taken, taken)
			require.ErrorIs(t, err, c.err)
			e.now(script{})
			if !c.taken && !c.other {
				require.EqualValues(t, -1, remaining(t, s), "nobody is blocked by what nobody holds")
			}
		})
	}
}

// A timer that comes late must not make a lost lease look held.
func TestLeaseContextLooksAtTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: leaseTTL, noRenew: true})
		ctx := l.context()
		l.mu.Lock()
		l.timer.Stop() // as if it never came
		l.mu.Unlock()
		time.Sleep(leaseTTL - leaseMargin(leaseTTL) - 1)
		require.NoError(t, ctx.Err())
		time.Sleep(time.Nanosecond)
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		require.ErrorIs(t, context.Cause(ctx), ErrLockLost)
	})
}

func TestLeaseOfTheLongestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newScripted(t)
		l := takeTestLease(t, s, leaseOptions{ttl: 1<<63 - 1, maxHold: 1<<63 - 1})
		time.Sleep(24 * time.Hour)
		require.True(t, l.alive())
		require.NoError(t, l.extend(t.Context(), 1<<63-1))
		time.Sleep(24 * time.Hour)
		require.True(t, l.alive())
		require.NoError(t, l.release(t.Context()))
	})
}
