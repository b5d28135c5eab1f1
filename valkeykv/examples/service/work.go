package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kvrecipes/kv"
)

const (
	limit    = 60 // requests of one user in an hour, of all processes together
	attempts = 80 // of each process
	sales    = 50 // of each process, from one stock
	orders   = 40 // that every process tries to charge
	prices   = 10 // that every process wants, each dear to compute
	at       = 4  // goroutines of each process
)

// report is what one process has done.
type report struct {
	PID      int
	Allowed  int            // requests
	Sold     int            // items, under the lock
	Receipts map[int]string // by order
	Replayed int            // receipts that somebody else's charge gave
	Prices   map[int]string
}

// work is one of the processes: it waits for the signal, does everything at once and writes its report.
func work(ctx context.Context, addr, namespace string) error {
	root, err := open(addr)
	if err != nil {
		return err
	}
	defer root.Close()
	s := root.Namespace(namespace)
	signal, err := s.Watch(ctx, "go")
	if err != nil {
		return err
	}
	if _, err := s.Incr(ctx, "ready", 1, kv.NoExpiry); err != nil {
		return err
	}
	if err := awaitSignal(ctx, signal); err != nil {
		return err
	}
	r := &report{PID: os.Getpid(), Receipts: map[int]string{}, Prices: map[int]string{}}
	var mu sync.Mutex // guards r
	tasks := []func(ctx context.Context, s *kv.Store, r *report, mu *sync.Mutex) error{request, sell, charge, price}
	errs := make(chan error, len(tasks))
	for _, task := range tasks {
		go func() { errs <- task(ctx, s, r, &mu) }()
	}
	for range tasks {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func awaitSignal(ctx context.Context, w *kv.Watcher) error {
	defer w.Stop()
	select {
	case <-w.Events():
		return w.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each calls f(0) to f(n-1) from several goroutines.
func each(n int, f func(i int) error) error {
	errs := make(chan error, at)
	for g := range at {
		go func() {
			var err error
			for i := g; i < n && err == nil; i += at {
				err = f(i)
			}
			errs <- err
		}()
	}
	var err error
	for range at {
		err = errors.Join(err, <-errs)
	}
	return err
}

// request asks for more than the limit of one user allows.
func request(ctx context.Context, s *kv.Store, r *report, mu *sync.Mutex) error {
	limiter, err := kv.NewRateLimiter(s, kv.Limit{Requests: limit, Window: time.Hour, Algorithm: kv.TokenBucket}, nil)
	if err != nil {
		return err
	}
	return each(attempts, func(int) error {
		result, err := limiter.Allow(ctx, "ada")
		mu.Lock()
		defer mu.Unlock()
		if result.Allowed {
			r.Allowed++
		}
		return err
	})
}

// sell takes items from a stock by reading and writing it in two steps, which only the lock makes one.
func sell(ctx context.Context, s *kv.Store, r *report, mu *sync.Mutex) error {
	locker := kv.NewLocker(s, nil)
	return each(sales, func(int) error {
		return locker.Do(ctx, "stock", func(ctx context.Context) error {
			text, err := s.Get(ctx, "sold")
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				return err
			}
			sold, _ := strconv.Atoi(text)
			if err := s.Set(ctx, "sold", strconv.Itoa(sold+1), kv.NoExpiry); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			r.Sold++
			return nil
		})
	})
}

// charge charges every order, as the other processes do: a customer clicks twice, and the clicks go to different machines.
func charge(ctx context.Context, s *kv.Store, r *report, mu *sync.Mutex) error {
	payments := kv.NewIdempotency(s, &kv.IdempotencyOptions{Wait: 30 * time.Second})
	return each(orders, func(order int) error {
		receipt, replay, err := kv.Once(ctx, payments, kv.Key("order", strconv.Itoa(order)), "", func(ctx context.Context) (string, error) {
			n, err := s.Incr(ctx, kv.Key("charged", strconv.Itoa(order)), 1, kv.NoExpiry)
			return fmt.Sprintf("receipt %d of order %d from process %d", n, order, os.Getpid()), err
		})
		mu.Lock()
		defer mu.Unlock()
		r.Receipts[order] = receipt
		if replay {
			r.Replayed++
		}
		return err
	})
}

// price wants prices that take long to compute.
func price(ctx context.Context, s *kv.Store, r *report, mu *sync.Mutex) error {
	guarded := kv.NewGuarded[string](s, nil)
	return each(at*prices, func(i int) error {
		article := i / at // at goroutines want the same at the same time
		v, err := guarded.Get(ctx, strconv.Itoa(article), func(ctx context.Context) (string, error) {
			n, err := s.Incr(ctx, kv.Key("computed", strconv.Itoa(article)), 1, kv.NoExpiry)
			time.Sleep(10 * time.Millisecond) // the work
			return fmt.Sprintf("price %d from process %d", n, os.Getpid()), err
		})
		mu.Lock()
		defer mu.Unlock()
		r.Prices[article] = v
		return err
	})
}
