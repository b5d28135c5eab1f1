// Guarded puts a cache before a slow catalogue, and shows what else would bring
// the catalogue down: a thousand who ask at once, a value that ends while everybody wants it, a
// price that changes while it is being looked up.
//
//	go run ./examples/guarded
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
	lookup = 150 * time.Millisecond // how long the catalogue takes
	fresh  = time.Second            // TTL of a product
)

type product struct {
	Name  string
	Cents int64
}

// catalogue is the slow source.
type catalogue struct {
	cents   atomic.Int64
	down    atomic.Bool
	lookups atomic.Int64
	busy    sync.Mutex // held while it answers nobody
}

func (c *catalogue) find(ctx context.Context) (product, error) {
	c.lookups.Add(1)
	p := product{"lamp", c.cents.Load()}
	select {
	case <-time.After(lookup):
	case <-ctx.Done():
		return product{}, ctx.Err()
	}
	c.busy.Lock()
	defer c.busy.Unlock()
	if c.down.Load() {
		return product{}, errors.New("catalogue is down")
	}
	return p, nil
}

// demo is the catalogue and two servers that cache it in one store. Two Guarded
// behave like those of two processes.
type demo struct {
	catalogue catalogue
	servers   [2]*kv.Guarded[product]
}

func main() {
	store := kv.New(nil)
	defer store.Close()
	d := &demo{}
	for i := range d.servers {
		d.servers[i] = kv.NewGuarded(store, &kv.GuardedOptions[product]{TTL: fresh, StaleFor: time.Minute})
	}
	for _, step := range []func(context.Context) error{d.stampede, d.stale, d.outage, d.invalidate} {
		if err := step(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "guarded:", err)
			os.Exit(1)
		}
	}
}

// get is what a handler calls.
func (d *demo) get(ctx context.Context, server int) (product, error) {
	return d.servers[server].Get(ctx, "lamp", d.catalogue.find)
}

func (d *demo) stampede(ctx context.Context) error {
	const callers = 1000
	d.catalogue.cents.Store(4900)
	fmt.Printf("%d ask two servers for the lamp at once. The catalogue takes %s.\n", callers, lookup)
	began := time.Now()
	var all sync.WaitGroup
	var wrong atomic.Int64
	for i := range callers {
		all.Go(func() {
			if p, err := d.get(ctx, i%2); err != nil || p.Cents != 4900 {
				wrong.Add(1)
			}
		})
	}
	all.Wait()
	fmt.Printf("   all have it after %s; lookups: %d\n\n", since(began), d.catalogue.lookups.Load())
	return expect(wrong.Load() == 0 && d.catalogue.lookups.Load() == 1, "more than one lookup")
}

func (d *demo) stale(ctx context.Context) error {
	fmt.Printf("It is fresh for %s. Then the price changes, the catalogue is busy, and 100 ask again.\n", fresh)
	d.catalogue.cents.Store(5900)
	time.Sleep(fresh)
	d.catalogue.busy.Lock()
	began := time.Now()
	for i := range 100 {
		if p, err := d.get(ctx, i%2); err != nil || p.Cents != 4900 {
			d.catalogue.busy.Unlock()
			return fmt.Errorf("got %v, %v instead of the old value", p, err)
		}
	}
	fmt.Printf("   all get the old price at once, in %s\n", since(began))
	d.catalogue.busy.Unlock()
	p, err := d.eventually(ctx, 5900)
	if err != nil {
		return err
	}
	fmt.Printf("   a lookup behind them later it is %d; lookups: %d\n\n", p.Cents, d.catalogue.lookups.Load())
	return expect(d.catalogue.lookups.Load() == 2, "more than one refresh")
}

func (d *demo) outage(ctx context.Context) error {
	fmt.Println("The catalogue goes down, and the value ends.")
	d.catalogue.down.Store(true)
	time.Sleep(fresh)
	for range 3 {
		p, err := d.get(ctx, 0)
		if err != nil {
			return err
		}
		fmt.Printf("   the old price is still there: %d; lookups: %d\n", p.Cents, d.catalogue.lookups.Load())
		time.Sleep(2 * lookup)
	}
	d.catalogue.down.Store(false)
	fmt.Println()
	return nil
}

// invalidate changes the price while a lookup is running that has read the old one.
func (d *demo) invalidate(ctx context.Context) error {
	fmt.Println("While a lookup is running, the price changes, and the shop says so on the other server.")
	if err := d.servers[0].Invalidate(ctx, "lamp"); err != nil {
		return err
	}
	read, before := make(chan struct{}), make(chan product)
	go func() {
		p, _ := d.servers[0].Get(ctx, "lamp", func(ctx context.Context) (product, error) {
			old := product{"lamp", d.catalogue.cents.Load()}
			close(read)
			_, err := d.catalogue.find(ctx)
			return old, err
		})
		before <- p
	}()
	<-read
	d.catalogue.cents.Store(6900)
	if err := d.servers[1].Invalidate(ctx, "lamp"); err != nil {
		return err
	}
	after, err := d.get(ctx, 0)
	if err != nil {
		return err
	}
	old := <-before
	fmt.Printf("   who asked before gets    %d\n   who asks afterwards gets %d, on the same server\n", old.Cents, after.Cents)
	kept, err := d.get(ctx, 1)
	if err != nil {
		return err
	}
	fmt.Printf("   and that is what stays:  %d\n", kept.Cents)
	return expect(old.Cents == 5900 && after.Cents == 6900 && kept.Cents == 6900, "an old price came after the Invalidate")
}

// eventually asks until the price is there that a refresh behind the callers brings.
func (d *demo) eventually(ctx context.Context, cents int64) (product, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		p, err := d.get(ctx, 0)
		if err != nil || p.Cents == cents {
			return p, err
		}
		select {
		case <-time.After(lookup / 10):
		case <-ctx.Done():
			return p, errors.New("the refresh never came")
		}
	}
}

func expect(ok bool, otherwise string) error {
	if !ok {
		return errors.New(otherwise)
	}
	return nil
}

func since(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Microsecond) }
