// Webhook receives the events of a payment provider, which delivers each of them
// three times and again whenever the receiver fails. Two receivers stand side by side: one
// that marks an event and then handles it, and one that marks it when it has been handled.
//
//	go run ./examples/webhook
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/kvrecipes/kv"
)

const (
	events     = 30
	deliveries = 3  // of each event, at once
	attempts   = 50 // of each delivery, at most, until it is answered with 2xx
)

var errDatabase = errors.New("the database is busy")

// ledger is what handling an event changes. Every fifth event fails at first.
type ledger struct {
	mu     sync.Mutex
	failed map[string]bool
	booked map[string]int
}

func newLedger() *ledger {
	return &ledger{failed: map[string]bool{}, booked: map[string]int{}}
}

func (l *ledger) book(id string) error {
	time.Sleep(2 * time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int
	if _, err := fmt.Sscanf(id, "evt_%d", &n); err != nil {
		return err
	}
	if n%5 == 0 && !l.failed[id] {
		l.failed[id] = true
		return errDatabase
	}
	l.booked[id]++
	return nil
}

func (l *ledger) count() (lost, once, twice int) {
	for i := range events {
		switch l.booked[eventID(i)] {
		case 0:
			lost++
		case 1:
			once++
		default:
			twice++
		}
	}
	return lost, once, twice
}

func eventID(i int) string { return fmt.Sprintf("evt_%03d", i) }

// receiver answers 2xx for an event that needs no other delivery.
type receiver func(ctx context.Context, id string) (status int, answer string)

// markFirst handles an event unless it is marked. If that fails, the mark stays.
func markFirst(dedup *kv.Idempotency, l *ledger) receiver {
	return func(ctx context.Context, id string) (int, string) {
		seen, err := dedup.AlreadyProcessed(ctx, id)
		if err != nil {
			return http.StatusInternalServerError, err.Error()
		}
		if seen {
			return http.StatusOK, "duplicate"
		}
		if err := l.book(id); err != nil {
			return http.StatusInternalServerError, err.Error()
		}
		return http.StatusOK, "booked"
	}
}

// markAfter handles an event and marks it when that has succeeded.
func markAfter(dedup *kv.Idempotency, l *ledger) receiver {
	return func(ctx context.Context, id string) (int, string) {
		processed, err := dedup.Process(ctx, id, func(context.Context) error { return l.book(id) })
		switch {
		case errors.Is(err, kv.ErrInProgress):
			return http.StatusConflict, err.Error() // come again: it may yet fail
		case err != nil:
			return http.StatusInternalServerError, err.Error()
		case !processed:
			return http.StatusOK, "duplicate"
		}
		return http.StatusOK, "booked"
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}

func run() error {
	store := kv.New(nil)
	defer store.Close()
	first, after := newLedger(), newLedger()
	fmt.Printf("%d events, each delivered %d times at once and again until it is answered with 2xx;\nthe handler fails at first for %d of them.\n",
		events, deliveries, events/5)

	for _, side := range []struct {
		name     string
		ledger   *ledger
		receiver receiver
	}{
		{"AlreadyProcessed", first, markFirst(kv.NewIdempotency(store, &kv.IdempotencyOptions{Prefix: "first"}), first)},
		{"Process", after, markAfter(kv.NewIdempotency(store, &kv.IdempotencyOptions{Prefix: "after"}), after)},
	} {
		answers, err := deliverAll(side.receiver)
		if err != nil {
			return err
		}
		lost, once, twice := side.ledger.count()
		fmt.Printf("\n%s\n   booked once: %d, twice: %d, lost: %d\n", side.name, once, twice, lost)
		for _, a := range []string{"200 booked", "200 duplicate", "409", "500"} {
			fmt.Printf("   %-14s %3d\n", a, answers[a])
		}
	}
	if lost, once, twice := after.count(); lost+twice != 0 || once != events {
		return errors.New("an event was not handled exactly once by Process")
	}
	if lost, _, twice := first.count(); lost != events/5 || twice != 0 {
		return errors.New("no event was lost by AlreadyProcessed, or one was handled twice")
	}
	fmt.Println("\nAn event that is marked before it is handled is lost when its handler fails.")
	return nil
}

// deliverAll is the provider. It returns how often it got which answer.
func deliverAll(receive receiver) (map[string]int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, answer := receive(r.Context(), r.PathValue("id"))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	})}
	mux := http.NewServeMux()
	mux.Handle("POST /events/{id}", server.Handler)
	server.Handler = mux
	defer server.Close()
	go server.Serve(listener)

	p := &provider{url: "http://" + listener.Addr().String() + "/events/", answers: map[string]int{}}
	var all sync.WaitGroup
	for i := range events {
		for range deliveries {
			all.Go(func() { p.deliver(eventID(i)) })
		}
	}
	all.Wait()
	return p.answers, p.err
}

type provider struct {
	url string

	mu      sync.Mutex
	answers map[string]int // guarded by mu
	err     error          // guarded by mu
}

func (p *provider) deliver(id string) {
	for attempt := range attempts {
		time.Sleep(min(time.Duration(attempt)*10*time.Millisecond, time.Second)) // the provider's back-off
		resp, err := http.Post(p.url+id, "application/json", nil)
		if err != nil {
			p.note("", err)
			return
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		name := fmt.Sprint(resp.StatusCode)
		if resp.StatusCode == http.StatusOK {
			name += " " + string(answer)
		}
		p.note(name, err)
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	p.note("", fmt.Errorf("%s was never accepted", id))
}

func (p *provider) note(answer string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer != "" {
		p.answers[answer]++
	}
	p.err = errors.Join(p.err, err)
}
