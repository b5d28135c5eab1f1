package kv_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

var errBoom = errors.New("boom")

// idem is an Idempotency in a bubble of virtual time.
type idem struct {
	*kv.Idempotency
	store *kv.Store
}

func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func newIdem(t *testing.T, opts *kv.IdempotencyOptions) idem {
	s := kv.New(nil)
	t.Cleanup(func() { _ = s.Close() })
	return idem{kv.NewIdempotency(s, opts), s}
}

func respond(body string) func(context.Context) (kv.Response, error) {
	return func(context.Context) (kv.Response, error) {
		return kv.Response{Status: 201, Body: []byte(body)}, nil
	}
}

func mustNotRun(t *testing.T) func(context.Context) (kv.Response, error) {
	return func(context.Context) (kv.Response, error) {
		t.Error("the work was done again")
		return kv.Response{}, nil
	}
}

// workFor returns work that takes d and ends with its context.
func workFor(d time.Duration, resp kv.Response) func(context.Context) (kv.Response, error) {
	return func(ctx context.Context) (kv.Response, error) {
		select {
		case <-time.After(d):
			return resp, nil
		case <-ctx.Done():
			return kv.Response{}, context.Cause(ctx)
		}
	}
}

func TestExecuteReplaysByteForByte(t *testing.T) {
	bytes := string([]byte{0, 1, 0xff, 0xfe, '\n', 0x80})
	for name, want := range map[string]kv.Response{
		"zero":         {},
		"empty":        {Header: map[string][]string{}, Body: []byte{}},
		"usual":        {Status: 201, Header: map[string][]string{"Content-Type": {"text/plain"}, "Set-Cookie": {"b=2", "a=1", "b=2"}}, Body: []byte("hello")},
		"odd values":   {Status: math.MinInt, Header: map[string][]string{"": nil, "Empty": {}, "One": {""}, bytes: {bytes, ""}}, Body: []byte(bytes)},
		"status alone": {Status: math.MaxInt},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIdem(t, nil)
			got, replay, err := i.Execute(t.Context(), "key", "fp", func(context.Context) (kv.Response, error) { return want, nil })
			require.NoError(t, err)
			require.False(t, replay)
			require.Equal(t, want, got)
			for range 2 {
				got, replay, err = i.Execute(t.Context(), "key", "fp", mustNotRun(t))
				require.NoError(t, err)
				require.True(t, replay)
				require.Equal(t, want, got) // tells nil from empty
			}
		})
	}
}

func TestExecuteSharesNoMemory(t *testing.T) {
	i := newIdem(t, nil)
	spoil := func(r kv.Response) { r.Body[0], r.Header["A"][0], r.Header["B"] = 'X', "X", nil }
	first, _, err := i.Execute(t.Context(), "key", "", func(context.Context) (kv.Response, error) {
		return kv.Response{Header: map[string][]string{"A": {"1"}}, Body: []byte("body")}, nil
	})
	require.NoError(t, err)
	spoil(first)
	for range 2 {
		got, _, err := i.Execute(t.Context(), "key", "", mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, kv.Response{Header: map[string][]string{"A": {"1"}}, Body: []byte("body")}, got)
		spoil(got)
	}
}

func TestExecuteComparesTheFingerprintOnEveryPath(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{Wait: time.Hour})
		ctx := t.Context()
		mismatch := func(when string) {
			_, replay, err := i.Execute(ctx, "key", "other", mustNotRun(t))
			require.ErrorIs(t, err, kv.ErrMismatch, when)
			require.False(t, replay)
		}
		go func() {
			_, _, err := i.Execute(ctx, "key", "fp", workFor(time.Minute, kv.Response{}))
			require.NoError(t, err)
		}()
		synctest.Wait()
		began := time.Now()
		mismatch("in flight")
		require.Zero(t, time.Since(began), "a mismatch waits for nothing")
		time.Sleep(time.Minute)
		synctest.Wait()
		mismatch("replayed")
		_, _, err := i.Execute(ctx, "key", "", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrMismatch, "no fingerprint is one, too")
	})
}

func TestExecuteComparesTheFingerprintAfterWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, &kv.IdempotencyOptions{Wait: time.Hour})
		ctx := t.Context()
		leader := make(chan error)
		go func() {
			_, _, _ = i.Execute(ctx, "key", "fp", func(context.Context) (kv.Response, error) {
				return kv.Response{}, <-leader
			})
		}()
		synctest.Wait()
		waiter := make(chan error)
		go func() {
			_, _, err := i.Execute(ctx, "key", "fp", mustNotRun(t))
			waiter <- err
		}()
		synctest.Wait()
		// The leader's claim ends, and the key is used for other work.
		_, _, err := i.Execute(ctx, "template", "other", respond(""))
		require.NoError(t, err)
		other, err := i.store.Get(ctx, "idempotency:key:template")
		require.NoError(t, err)
		require.NoError(t, i.store.Set(ctx, "idempotency:key:key", other, 0))
		require.ErrorIs(t, <-waiter, kv.ErrMismatch)
		leader <- errBoom
	})
}

func TestExecuteFailureReleasesTheClaim(t *testing.T) {
	fail := map[string]func(context.Context) (kv.Response, error){
		"error":  func(context.Context) (kv.Response, error) { return kv.Response{Status: 500}, errBoom },
		"panic":  func(context.Context) (kv.Response, error) { panic(errBoom) },
		"goexit": func(context.Context) (kv.Response, error) { runtime.Goexit(); return kv.Response{}, nil },
	}
	for name, f := range fail {
		t.Run(name, func(t *testing.T) {
			i := newIdem(t, nil)
			var (
				err       error
				recovered any
				returned  bool
			)
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { recovered = recover() }()
				_, _, err = i.Execute(t.Context(), "key", "fp", f)
				returned = true
			}()
			<-done
			require.Equal(t, name == "error", returned)
			if name == "error" {
				require.Same(t, errBoom, err, "f's error is returned as it is")
			}
			if name == "panic" {
				require.Same(t, errBoom, recovered, "the panic goes on")
			}
			n, err := i.store.Count(t.Context(), "")
			require.NoError(t, err)
			require.Zero(t, n, "nothing is kept")
			resp, replay, err := i.Execute(t.Context(), "key", "other fingerprint", respond("2"))
			require.NoError(t, err)
			require.False(t, replay)
			require.Equal(t, "2", string(resp.Body))
		})
	}
}

func TestExecuteInProgressAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, nil)
		go func() { _, _, _ = i.Execute(t.Context(), "key", "fp", workFor(time.Minute, kv.Response{})) }()
		synctest.Wait()
		began := time.Now()
		_, replay, err := i.Execute(t.Context(), "key", "fp", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrInProgress)
		require.False(t, replay)
		require.Zero(t, time.Since(began))
		var e *kv.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "execute", e.Op)
		require.Equal(t, "key", e.Key)
		time.Sleep(time.Minute)
	})
}

func TestExecuteTTLCountsFromCompletion(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		i := newIdem(t, nil)
		ctx := t.Context()
		_, _, err := i.Execute(ctx, "key", "fp", workFor(time.Hour, kv.Response{}))
		require.NoError(t, err)
		time.Sleep(24*time.Hour - 1)
		_, replay, err := i.Execute(ctx, "key", "fp", mustNotRun(t))
		require.NoError(t, err)
		require.True(t, replay)
		time.Sleep(time.Nanosecond)
		_, replay, err = i.Execute(ctx, "key", "fp", respond(""))
		require.NoError(t, err)
		require.False(t, replay)
	})
}

// process is the store of one process on shared data. Cut off, it can't reach the data any more.
type process struct {
	*kv.Store
	engine *kvtest.Faulty
}

func openProcesses(t *testing.T, n int) []process {
	shared := kv.New(nil)
	t.Cleanup(func() { _ = shared.Close() })
	processes := make([]process, n)
	for i := range processes {
		// Through the shared store of a namespace: closing one process leaves the data alone.
		engine := kvtest.NewFaulty(shared.Namespace("data"))
		processes[i] = process{kv.NewWithEngine(engine, nil), engine}
		t.Cleanup(func() { _ = processes[i].Close() })
	}
	return processes
}

func (p process) cutOff() { p.engine.Inject(kvtest.Always(kvtest.Fault{Err: kvtest.ErrDown})) }

func TestExecuteTooLargeIsNeverRunAgain(t *testing.T) {
	s := kv.New(&kv.Options{MaxValueBytes: 300})
	defer s.Close()
	i := kv.NewIdempotency(s, nil)
	large := strings.Repeat("x", 300)
	small := map[string][]string{"Location": {"/1"}}
	for name, c := range map[string]struct{ given, kept kv.Response }{
		"body":   {kv.Response{Status: 201, Header: small, Body: []byte(large)}, kv.Response{Status: 201, Header: small}},
		"header": {kv.Response{Status: 201, Header: map[string][]string{"Large": {large}}, Body: []byte("x")}, kv.Response{Status: 201}},
	} {
		got, replay, err := i.Execute(t.Context(), name, "fp", func(context.Context) (kv.Response, error) { return c.given, nil })
		require.NoError(t, err)
		require.False(t, replay)
		require.Equal(t, c.given, got)
		for range 2 {
			got, replay, err = i.Execute(t.Context(), name, "fp", mustNotRun(t))
			require.ErrorIs(t, err, kv.ErrTooLarge)
			require.True(t, replay)
			require.Equal(t, c.kept, got)
		}
		_, _, err = i.Execute(t.Context(), name, "other", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrMismatch)
	}
	_, _, err := i.Execute(t.Context(), "fingerprint", large, mustNotRun(t))
	require.ErrorIs(t, err, kv.ErrTooLarge, "what can't even be claimed is not run")
}

func TestExecuteRefusesForeignValues(t *testing.T) {
	i := newIdem(t, nil)
	ctx := t.Context()
	for _, raw := range []string{"", "x", "kvi1", "kvi1R", "kvi1X\x00", "kvi1R\x00\xff", "kvi1E\x00token", "kvi1R\x00\x20\x00"} {
		require.NoError(t, i.store.Set(ctx, "idempotency:key:key", raw, 0))
		_, _, err := i.Execute(ctx, "key", "", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrWrongType, "%q", raw)
	}
	for _, raw := range []string{"", "x", "kvi1R\x00\x00\x00", "kvi1E\xff"} {
		require.NoError(t, i.store.Set(ctx, "idempotency:event:key", raw, 0))
		_, err := i.AlreadyProcessed(ctx, "key")
		require.ErrorIs(t, err, kv.ErrWrongType, "%q", raw)
		_, err = i.Process(ctx, "key", func(context.Context) error { return errBoom })
		require.ErrorIs(t, err, kv.ErrWrongType, "%q", raw)
	}
}

func TestIdempotencyOptions(t *testing.T) {
	ctx := t.Context()
	i := newIdem(t, &kv.IdempotencyOptions{Prefix: "p:q"})
	_, _, err := i.Execute(ctx, "a:b", "fp", respond(""))
	require.NoError(t, err)
	ttl, err := i.store.TTL(ctx, kv.Key("p:q", "key", "a:b"))
	require.NoError(t, err)
	require.InDelta(t, 24*time.Hour, ttl, float64(time.Minute))

	for _, opts := range []kv.IdempotencyOptions{{TTL: -1}, {ClaimTTL: -1}} {
		i := newIdem(t, &opts)
		_, _, err := i.Execute(ctx, "key", "fp", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
		_, err = i.AlreadyProcessed(ctx, "key")
		require.ErrorIs(t, err, kv.ErrInvalidTTL)
	}
	_, _, err = i.Execute(ctx, strings.Repeat("k", 513), "fp", mustNotRun(t))
	require.ErrorIs(t, err, kv.ErrInvalidKey)
}

func TestOnce(t *testing.T) {
	type order struct {
		ID    int64
		Items []string
		Note  *string
	}
	i := newIdem(t, nil)
	ctx := t.Context()
	want := order{ID: 1 << 60, Items: []string{"a"}}
	for n := range 3 {
		got, replay, err := kv.Once(ctx, i.Idempotency, "order", "fp", func(context.Context) (order, error) {
			require.Zero(t, n, "again")
			return want, nil
		})
		require.NoError(t, err)
		require.Equal(t, n > 0, replay)
		require.Equal(t, want, got)
	}
	got, replay, err := kv.Once(ctx, i.Idempotency, "order", "other", func(context.Context) (order, error) { return want, nil })
	require.ErrorIs(t, err, kv.ErrMismatch)
	require.False(t, replay)
	require.Zero(t, got)

	_, _, err = kv.Once(ctx, i.Idempotency, "fails", "fp", func(context.Context) (order, error) { return want, errBoom })
	require.Same(t, errBoom, err)
	zero, replay, err := kv.Once(ctx, i.Idempotency, "fails", "fp", func(context.Context) (*order, error) { return nil, nil })
	require.NoError(t, err)
	require.False(t, replay)
	require.Nil(t, zero)
	zero, replay, err = kv.Once(ctx, i.Idempotency, "fails", "fp", func(context.Context) (*order, error) { return &want, nil })
	require.NoError(t, err)
	require.True(t, replay)
	require.Nil(t, zero)

	_, _, err = kv.Once(ctx, i.Idempotency, "order", "fp", func(context.Context) (int, error) { return 0, nil })
	require.Error(t, err, "a result of another type")
}

func TestOnceResultThatCannotBeKeptIsNeverRunAgain(t *testing.T) {
	s := kv.New(&kv.Options{MaxValueBytes: 200})
	defer s.Close()
	i := kv.NewIdempotency(s, nil)
	ctx := t.Context()
	large := strings.Repeat("x", 300)
	for n := range 3 {
		got, replay, err := kv.Once(ctx, i, "large", "fp", func(context.Context) (string, error) {
			require.Zero(t, n, "again")
			return large, nil
		})
		require.Equal(t, n > 0, replay)
		if n == 0 {
			require.NoError(t, err)
			require.Equal(t, large, got)
		} else {
			require.ErrorIs(t, err, kv.ErrTooLarge)
		}
	}
	for n := range 3 {
		got, replay, err := kv.Once(ctx, i, "unreadable", "fp", func(context.Context) (float64, error) {
			require.Zero(t, n, "again")
			return math.Inf(1), nil
		})
		require.Error(t, err)
		require.NotErrorIs(t, err, kv.ErrTooLarge)
		require.Equal(t, n > 0, replay)
		if n == 0 {
			require.Equal(t, math.Inf(1), got)
		} else {
			require.ErrorContains(t, err, "could not be encoded")
		}
	}
}
