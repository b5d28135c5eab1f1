// Lock lets the clerks of a warehouse compete for the one label printer. They
// are served in order of arrival; one of them dies with the printer in hand,
// and comes back when somebody else has it.
//
//	go run ./examples/lock
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

const (
	ttl     = 600 * time.Millisecond // how long a dead clerk blocks the printer
	job     = 120 * time.Millisecond // how long a label takes
	arrival = 30 * time.Millisecond  // the next clerk comes
)

// warehouse is what the clerks share.
type warehouse struct {
	store *kv.Store
	began time.Time
	locks *kv.Locker
	inUse atomic.Int32 // clerks at the printer
}

func main() {
	store := kv.New(nil)
	defer store.Close()
	w := &warehouse{store: store, began: time.Now(), locks: kv.NewLocker(store, &kv.LockerOptions{TTL: ttl})}
	if err := w.day(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "lock:", err)
		os.Exit(1)
	}
}

func (w *warehouse) day(ctx context.Context) error {
	w.say("Five clerks want the printer, %s apart; a label takes %s.", arrival, job)
	if err := w.rush(ctx, "ann", "bob", "cleo", "dan", "eve"); err != nil {
		return err
	}
	w.say("")
	w.say("Zoe takes the printer and dies. Nobody renews her lock, which ends after %s.", ttl)
	zoe, err := w.die(ctx)
	if err != nil {
		return err
	}
	w.say("")
	w.say("While Ann has the printer, Zoe comes back and goes on where she was.")
	return w.locks.Do(ctx, "printer", func(ctx context.Context) error { return w.late(ctx, zoe) })
}

// rush lets the clerks compete. Do gives the printer back however print ends.
func (w *warehouse) rush(ctx context.Context, clerks ...string) error {
	errs := make([]error, len(clerks))
	var all sync.WaitGroup
	for i, clerk := range clerks {
		all.Go(func() {
			w.say("   %-4s comes", clerk)
			errs[i] = w.locks.Do(ctx, "printer", func(context.Context) error { return w.print(clerk) })
		})
		time.Sleep(arrival)
	}
	_, err := w.locks.TryLock(ctx, "printer")
	w.say("   fay  asks whether it is free, and doesn't wait: %v", err)
	all.Wait()
	return errors.Join(errs...)
}

// print fails if somebody else is at the printer.
func (w *warehouse) print(clerk string) error {
	if w.inUse.Add(1) != 1 {
		return fmt.Errorf("%s and somebody else are at the printer", clerk)
	}
	defer w.inUse.Add(-1)
	w.say("   %-4s has the printer", clerk)
	time.Sleep(job)
	return nil
}

// die takes the lock as a process does that crashes: it neither renews nor unlocks it.
func (w *warehouse) die(ctx context.Context) (*kv.Lock, error) {
	doomed := kv.NewLocker(w.store, &kv.LockerOptions{TTL: ttl, NoRenew: true})
	zoe, err := doomed.Lock(ctx, "printer")
	if err != nil {
		return nil, err
	}
	w.say("   zoe  has the printer, fence %d", zoe.Fence())
	began := time.Now()
	<-zoe.Context().Done()
	w.say("   zoe  would know by now: %v", context.Cause(zoe.Context()))
	next, err := w.locks.Lock(ctx, "printer")
	if err != nil {
		return nil, err
	}
	waited := time.Since(began)
	w.say("   ann  has the printer, fence %d, after %s", next.Fence(), waited.Round(time.Millisecond))
	if next.Fence() <= zoe.Fence() || waited < ttl*9/10 {
		return nil, fmt.Errorf("ann had the printer too early: fences %d and %d, %s", zoe.Fence(), next.Fence(), waited)
	}
	return zoe, next.Unlock(ctx)
}

// late shows what stops a holder that was paused while its lock expired: no
// lease can, but a write that names the lock can't come too late.
func (w *warehouse) late(ctx context.Context, zoe *kv.Lock) error {
	holder, err := w.locks.Holder(ctx, "printer")
	if err != nil {
		return err
	}
	w.say("   the holder's token is %.6s..., Zoe's was %.6s...", holder.Token, zoe.Token())
	written, _, err := w.store.Txn(ctx, []kv.Cond{zoe.Held()}, kv.OpSet("label:7", "zoe", kv.NoExpiry))
	w.say("   zoe  writes only while she holds the lock: written=%t", written)
	if err != nil || written {
		return errors.Join(errors.New("zoe wrote without holding the lock"), err)
	}
	err = zoe.Unlock(ctx)
	w.say("   zoe  unlocks: %v", err)
	if !errors.Is(err, kv.ErrLockLost) {
		return errors.Join(errors.New("zoe unlocked what was not hers"), err)
	}
	_, err = w.locks.TryLock(ctx, "printer")
	w.say("   ann  still has it; another clerk is told: %v", err)
	if !errors.Is(err, kv.ErrLocked) {
		return errors.Join(errors.New("ann has lost the printer"), err)
	}
	return nil
}

func (w *warehouse) say(format string, args ...any) {
	if format == "" {
		fmt.Println()
		return
	}
	fmt.Printf("%5d ms  %s\n", time.Since(w.began).Milliseconds(), fmt.Sprintf(format, args...))
}
