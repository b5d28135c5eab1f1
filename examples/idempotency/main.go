// Idempotency is a shop whose customers are impatient: every order is sent
// several times at once, a handler crashes, a client gives up and comes back. Each
// customer is charged once, and every repetition gets the same answer.
//
//	go run ./examples/idempotency
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

const (
	copies   = 4                      // of every request
	charging = 100 * time.Millisecond // how long the bank takes
)

type shop struct {
	once    *kv.Idempotency
	charges atomic.Int64
	crashes atomic.Int64  // that are still to come
	begun   chan struct{} // has room for one signal that a charge has begun
}

func main() {
	store := kv.New(nil)
	defer store.Close()
	s := &shop{
		once:  kv.NewIdempotency(store, &kv.IdempotencyOptions{Wait: 30 * time.Second}),
		begun: make(chan struct{}, 1),
	}
	if err := s.open(); err != nil {
		fmt.Fprintln(os.Stderr, "idempotency:", err)
		os.Exit(1)
	}
}

// order is the handler. Its key comes from the client, who sends the same one
// again when it does not know what became of a request.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	hash := sha256.Sum256(body)
	ctx := context.WithoutCancel(r.Context()) // what was begun is finished, though the client has gone
	resp, replay, err := s.once.Execute(ctx, r.Header.Get("Idempotency-Key"), hex.EncodeToString(hash[:]),
		func(context.Context) (kv.Response, error) { return s.charge(string(body)) })
	switch {
	case errors.Is(err, kv.ErrMismatch):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case errors.Is(err, kv.ErrInProgress):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.Header().Set("X-Replay", fmt.Sprint(replay))
		w.WriteHeader(resp.Status)
		_, _ = w.Write(resp.Body)
	}
}

// charge is the work that must not be done twice.
func (s *shop) charge(amount string) (kv.Response, error) {
	if s.crashes.Add(-1) >= 0 {
		panic(http.ErrAbortHandler) // net/http breaks the connection off
	}
	select {
	case s.begun <- struct{}{}:
	default:
	}
	time.Sleep(charging)
	n := s.charges.Add(1)
	return kv.Response{
		Status: http.StatusCreated,
		Header: map[string][]string{"Location": {fmt.Sprintf("/orders/%d", n)}},
		Body:   fmt.Appendf(nil, "order %d: %s charged", n, amount),
	}, nil
}

// open serves the shop on loopback, lets the customers in and compares the
// charges with what they ordered.
func (s *shop) open() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(s.order), ErrorLog: log.New(io.Discard, "", 0)}
	defer server.Close()
	go server.Serve(listener)
	c := &client{url: "http://" + listener.Addr().String()}

	fmt.Printf("Each order is sent %d times at once; the bank takes %s.\n", copies, charging)
	for _, amount := range []string{"12 EUR", "30 EUR", "7 EUR"} {
		if err := c.impatient("key of "+amount, amount); err != nil {
			return err
		}
	}
	fmt.Println("\nThe next handler crashes half-way. One of the copies that waited for it does the work. The client")
	fmt.Println("whose connection broke sends its copy again: Go's does so by itself if the header has the key.")
	s.crashes.Store(1)
	if err := c.impatient("crash", "99 EUR"); err != nil {
		return err
	}
	fmt.Println("\nA client gives up before the bank has answered, and asks again later.")
	if err := c.givesUp(s.begun, "gives up", "5 EUR"); err != nil {
		return err
	}
	fmt.Println("\nA client uses a key again, for another order.")
	r := c.send(context.Background(), "crash", "1 EUR")
	fmt.Printf("   %s\n", r)
	if r.status != http.StatusUnprocessableEntity {
		return errors.New("another order with the key of an old one was accepted")
	}
	fmt.Printf("\nCharged %d times for 5 orders.\n", s.charges.Load())
	if s.charges.Load() != 5 {
		return errors.New("somebody was not charged exactly once")
	}
	return nil
}

// client is a browser.
type client struct{ url string }

type reply struct {
	status         int
	replay         string
	location, body string
	err            error
}

func (r reply) String() string {
	if r.err != nil {
		return "no answer: the connection broke"
	}
	return fmt.Sprintf("%d  %-28q replay: %s", r.status, r.body, r.replay)
}

func (c *client) send(ctx context.Context, key, body string) reply {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader([]byte(body)))
	if err != nil {
		return reply{err: err}
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header.Get("X-Replay"), resp.Header.Get("Location"), string(bytes.TrimSpace(text)), err}
}

// impatient sends an order in several copies, and once more if it had no answer.
func (c *client) impatient(key, body string) error {
	replies := make([]reply, copies)
	var all sync.WaitGroup
	for i := range replies {
		all.Go(func() { replies[i] = c.send(context.Background(), key, body) })
	}
	all.Wait()
	worked := 0
	var first reply
	for _, r := range replies {
		fmt.Printf("   %s\n", r)
		if r.err != nil {
			r = c.send(context.Background(), key, body)
			fmt.Printf("      again: %s\n", r)
		}
		if r.replay == "false" {
			worked++
		}
		if first.body == "" {
			first = r
		}
		if r.status != http.StatusCreated || r.body != first.body || r.location != first.location {
			return fmt.Errorf("answers to one order differ: %v and %v", first, r)
		}
	}
	if worked != 1 {
		return fmt.Errorf("the work was done %d times", worked)
	}
	return nil
}

// givesUp sends an order, leaves when its charge has begun, and sends it again.
func (c *client) givesUp(begun <-chan struct{}, key, body string) error {
	<-begun // of earlier charges
	ctx, leave := context.WithCancel(context.Background())
	go func() {
		<-begun
		leave()
	}()
	if r := c.send(ctx, key, body); !errors.Is(r.err, context.Canceled) {
		return fmt.Errorf("who had left was answered: %v", r)
	}
	fmt.Println("   left while the bank was charging")
	r := c.send(context.Background(), key, body)
	fmt.Printf("   %s\n", r)
	if r.status != http.StatusCreated || r.replay != "true" {
		return errors.New("the order of a client that had left was not finished")
	}
	return nil
}
