package valkeykv_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// ordeal runs recipes on two stores while somebody breaks the servers, and
// checks what they promise at every step. Errors are no failure of a recipe; a broken promise is.
type ordeal struct {
	t      *testing.T
	stores []*kv.Store

	mu       sync.Mutex
	broken   []string          // guarded by mu
	holder   *kv.Lock          // guarded by mu; who has the lock and has not begun to unlock
	fence    int64             // guarded by mu
	locked   int               // guarded by mu
	allowed  map[string]int64  // guarded by mu; by limiter
	results  map[string]string // guarded by mu; what a key's first successful caller got
	executed map[string]int    // guarded by mu; runs of a key that have ended well
	answered int               // guarded by mu
	errs     map[string]int    // guarded by mu
}

const (
	ordealTTL   = 1500 * time.Millisecond // of the lock
	ordealLimit = 25
)

func newOrdeal(t *testing.T, stores ...*kv.Store) *ordeal {
	return &ordeal{t: t, stores: stores, allowed: map[string]int64{}, results: map[string]string{},
		executed: map[string]int{}, errs: map[string]int{}}
}

func (o *ordeal) breaks(format string, args ...any) {
	o.broken = append(o.broken, fmt.Sprintf(format, args...))
}

// run works until trouble returns, and a little longer, and checks that everything works in the end.
func (o *ordeal) run(trouble func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, s := range o.stores {
		locker := kv.NewLocker(s, &kv.LockerOptions{TTL: ordealTTL})
		idempotency := kv.NewIdempotency(s, &kv.IdempotencyOptions{Wait: time.Second, ClaimTTL: time.Second})
		limits := o.limiters(s)
		for range 2 {
			all.Go(func() { o.repeat(ctx, "lock", func(ctx context.Context) error { return o.lock(ctx, locker) }) })
			all.Go(func() { o.repeat(ctx, "limit", func(ctx context.Context) error { return o.limit(ctx, limits) }) })
			all.Go(func() {
				o.repeat(ctx, "execute", func(ctx context.Context) error { return o.execute(ctx, idempotency) })
			})
		}
	}
	trouble()
	cancel()
	all.Wait()
	o.t.Logf("%d locks, %d answers, allowed %v, errors %v", o.locked, o.answered, o.allowed, o.errs)
	require.Empty(o.t, o.broken)
	require.NotZero(o.t, o.locked)
	require.NotZero(o.t, o.answered)
	for _, s := range o.stores {
		eventually(o.t, func(ctx context.Context) error { return o.lock(ctx, kv.NewLocker(s, nil)) })
	}
}

// repeat calls f until ctx ends; each call has little time.
func (o *ordeal) repeat(ctx context.Context, what string, f func(ctx context.Context) error) {
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := f(short)
		cancel()
		if err == nil || ctx.Err() != nil {
			continue
		}
		o.mu.Lock()
		o.errs[what]++
		o.mu.Unlock()
		select { // a server that is down refuses at once
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lock takes the lock: nobody else whose context is live may have it, and fences only grow.
func (o *ordeal) lock(ctx context.Context, l *kv.Locker) error {
	k, err := l.Lock(ctx, "ordeal")
	if err != nil {
		return err
	}
	o.mu.Lock()
	if o.holder != nil && o.holder.Context().Err() == nil {
		o.breaks("the lock is held twice by live contexts: %s and %s", o.holder.Token(), k.Token())
	}
	if k.Fence() <= o.fence {
		o.breaks("fence %d after %d", k.Fence(), o.fence)
	}
	o.holder, o.fence = k, k.Fence()
	o.locked++
	o.mu.Unlock()
	select {
	case <-k.Context().Done():
	case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
	}
	o.mu.Lock()
	if o.holder == k {
		o.holder = nil
	}
	o.mu.Unlock()
	return k.Unlock(ctx)
}

func (o *ordeal) limiters(s *kv.Store) map[string]*kv.RateLimiter {
	limits := map[string]*kv.RateLimiter{}
	for _, a := range []kv.Algorithm{kv.FixedWindow, kv.SlidingWindow, kv.TokenBucket} {
		name := fmt.Sprint("algorithm ", a)
		r, err := kv.NewRateLimiter(s, kv.Limit{Requests: ordealLimit, Window: 24 * time.Hour, Algorithm: a}, &kv.RateLimiterOptions{Prefix: name})
		require.NoError(o.t, err)
		limits[name] = r
	}
	return limits
}

// limit asks for one more: not more may be let through than the limit.
func (o *ordeal) limit(ctx context.Context, limits map[string]*kv.RateLimiter) error {
	for name, r := range limits {
		result, err := r.Allow(ctx, "ordeal")
		if err != nil {
			return err
		}
		o.mu.Lock()
		if result.Allowed {
			o.allowed[name]++
		}
		if o.allowed[name] > ordealLimit {
			o.breaks("%s let %d of %d through", name, o.allowed[name], ordealLimit)
		}
		o.mu.Unlock()
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
	}
	return nil
}

// execute does work under a key of a few: once somebody has got a result, everybody gets the same, and nobody does the work again.
func (o *ordeal) execute(ctx context.Context, i *kv.Idempotency) error {
	o.mu.Lock()
	key := fmt.Sprint("key", o.answered/20)
	o.mu.Unlock()
	r, _, err := i.Execute(ctx, key, "", func(ctx context.Context) (kv.Response, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if first, known := o.results[key]; known {
			o.breaks("%s is done again after somebody got %s", key, first)
		}
		o.executed[key]++
		return kv.Response{Body: fmt.Appendf(nil, "%s run %d", key, o.executed[key])}, nil
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answered++
	if first, known := o.results[key]; known && first != string(r.Body) {
		o.breaks("%s gave %s and %s", key, first, r.Body)
	}
	o.results[key] = string(r.Body)
	return nil
}

// durable are arguments of a server that loses nothing when it is killed.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

func TestRecipesWhileTheServerCrashes(t *testing.T) {
	t.Parallel()
	srv, a, _ := ownServer(t, durable...)
	b := openStore(t, valkey.ClientOption{InitAddress: []string{srv.Addr}})
	newOrdeal(t, a, b).run(func() {
		for range 4 {
			time.Sleep(300 * time.Millisecond) // let them work
			require.NoError(t, srv.Kill())
			time.Sleep(100 * time.Millisecond)
			require.NoError(t, srv.Restart())
		}
		time.Sleep(500 * time.Millisecond)
	})
}

// The last silence is longer than the lock lives: its holder has to give up by itself.
func TestRecipesWhileTheServerIsSilent(t *testing.T) {
	t.Parallel()
	srv, a, _ := ownServer(t)
	b := openStore(t, valkey.ClientOption{InitAddress: []string{srv.Addr}})
	newOrdeal(t, a, b).run(func() {
		for _, silence := range []time.Duration{200 * time.Millisecond, 700 * time.Millisecond, 2 * time.Second} {
			time.Sleep(300 * time.Millisecond)
			require.NoError(t, srv.Pause())
			time.Sleep(silence)
			require.NoError(t, srv.Resume())
		}
		time.Sleep(500 * time.Millisecond)
	})
}

// A failover that is asked for waits until the replica has everything: nothing is lost.
func TestRecipesDuringFailovers(t *testing.T) {
	t.Parallel()
	cl, a, _ := ownCluster(t)
	b := openStore(t, valkey.ClientOption{InitAddress: cl.Addrs()})
	newOrdeal(t, a, b).run(func() {
		for i := range 3 {
			require.NoError(t, cl.Failover(longer(t), 3+i, false))
		}
		time.Sleep(300 * time.Millisecond)
	})
}

func TestRecipesWhileSlotsMove(t *testing.T) {
	t.Parallel()
	cl, a, c := ownCluster(t)
	b := openStore(t, valkey.ClientOption{InitAddress: cl.Addrs()})
	newOrdeal(t, a, b).run(func() {
		for range 2 {
			for _, key := range []string{"lock:ordeal", fmt.Sprint("algorithm ", kv.FixedWindow, ":ordeal"), fmt.Sprint("algorithm ", kv.TokenBucket, ":ordeal")} {
				cmd := c.B().Get().Key(key).Build()
				require.NoError(t, cl.MoveSlot(longer(t), int(cmd.Slot())))
			}
		}
	})
}

// The holder's context ends before the server lets anybody else have the lock.
func TestLockEndsBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	srv, s, c := ownServer(t)
	k, err := kv.NewLocker(s, &kv.LockerOptions{TTL: ordealTTL}).Lock(soon(t), "x")
	require.NoError(t, err)
	left, err := c.Do(soon(t), c.B().Pttl().Key("lock:x").Build()).AsInt64()
	require.NoError(t, err)
	begun := time.Now()
	require.NoError(t, srv.Pause())
	t.Cleanup(func() { _ = srv.Resume() })
	select {
	case <-k.Context().Done():
	case <-time.After(5 * time.Second):
		require.Fail(t, "the context does not end")
	}
	require.Less(t, time.Since(begun), ordealTTL)
	require.ErrorIs(t, context.Cause(k.Context()), kv.ErrLockLost)
	require.Positive(t, left)
}

func longer(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
