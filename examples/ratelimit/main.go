// Ratelimit puts an HTTP handler behind each of the three algorithms, sends the
// same requests to all of them, and draws which ones passed.
//
//	go run ./examples/ratelimit
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kvrecipes/kv"
)

const (
	requests = 10 // in each window
	window   = time.Second
	tick     = 50 * time.Millisecond // between two requests: twice what the limit admits
)

var algorithms = []kv.Algorithm{kv.FixedWindow, kv.SlidingWindow, kv.TokenBucket}

func main() {
	store := kv.New(nil)
	defer store.Close()
	api := &api{store: store}
	if err := api.show(); err != nil {
		fmt.Fprintln(os.Stderr, "ratelimit:", err)
		os.Exit(1)
	}
}

// api is a server whose path says which limiter stands before it: "/0" is the fixed window.
type api struct {
	store  *kv.Store
	server *httptest.Server
}

func (a *api) show() error {
	mux := http.NewServeMux()
	for _, algorithm := range algorithms {
		limiter, err := kv.NewRateLimiter(a.store, kv.Limit{Requests: requests, Window: window, Algorithm: algorithm},
			&kv.RateLimiterOptions{Prefix: "api:" + algorithm.String()})
		if err != nil {
			return err
		}
		mux.Handle(path(algorithm), limited(limiter, http.HandlerFunc(hello)))
	}
	a.server = httptest.NewServer(mux)
	defer a.server.Close()
	for _, part := range []func() error{a.draw, a.flood, a.comeBack, a.pace} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func path(algorithm kv.Algorithm) string { return fmt.Sprintf("/%d", algorithm) }

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }

// limited answers 429 for a user who asks too often. The headers are those of the IETF's draft
// ratelimit-headers and of RFC 9110, which has whole seconds: rounded up, as too early is too often.
func limited(limiter *kv.RateLimiter, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result, err := limiter.Allow(r.Context(), r.Header.Get("User"))
		if err != nil { // the store is down; this service rather has no limit than no users
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("RateLimit-Policy", fmt.Sprintf(`"user";q=%d;w=%.0f`, result.Limit, window.Seconds()))
		w.Header().Set("RateLimit", fmt.Sprintf(`"user";r=%d;t=%s`, result.Remaining, seconds(result.ResetAfter)))
		if !result.Allowed {
			w.Header().Set("Retry-After", seconds(result.RetryAfter))
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

// get sends a request of a user, and says whether it passed.
func (a *api) get(algorithm kv.Algorithm, user string) (passed bool, header http.Header, err error) {
	request, err := http.NewRequest(http.MethodGet, a.server.URL+path(algorithm), nil)
	if err != nil {
		return false, nil, err
	}
	request.Header.Set("User", user)
	response, err := a.server.Client().Do(request)
	if err != nil {
		return false, nil, err
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK, response.Header, nil
}

// draw sends 20 requests in each of three seconds where 10 are admitted.
func (a *api) draw() error {
	fmt.Printf("Ann sends a request every %s; %d in %s are allowed. Which ones pass?\n\n", tick, requests, window)
	fmt.Printf("%16s 0s%18s1s%18s2s\n", "", "", "")
	lines := make([]strings.Builder, len(algorithms))
	began := time.Now()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for range 3 * window / tick {
		for _, algorithm := range algorithms {
			passed, _, err := a.get(algorithm, "ann")
			if err != nil {
				return err
			}
			lines[algorithm].WriteString(map[bool]string{true: "#", false: "."}[passed])
		}
		<-ticker.C
	}
	for _, algorithm := range algorithms {
		line := lines[algorithm].String()
		passed := strings.Count(line, "#")
		fmt.Printf("%16s %s  %d passed\n", algorithm, line, passed)
		if passed < 2*requests || passed > most(time.Since(began)) {
			return fmt.Errorf("%s: %d requests passed", algorithm, passed)
		}
	}
	return nil
}

// most is what a fixed window, the coarsest of the three, may admit in so long.
func most(d time.Duration) int { return requests * (1 + int(math.Ceil(d.Seconds()/window.Seconds()))) }

// flood sends many requests at once.
func (a *api) flood() error {
	const many = 200
	var passed atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range many {
		all.Go(func() {
			if ok, _, err := a.get(kv.FixedWindow, "bob"); err == nil && ok {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	fmt.Printf("\nBob sends %d at once: %d pass.\n", many, passed.Load())
	if passed.Load() < requests || passed.Load() > int64(most(time.Since(began))) {
		return fmt.Errorf("%d of bob's requests passed", passed.Load())
	}
	return nil
}

// comeBack shows a denied answer, and that waiting for Retry-After is enough.
func (a *api) comeBack() error {
	header, err := a.denied("cleo")
	if err != nil {
		return err
	}
	fmt.Print("\nCleo is told no, and when to come back:\n\n")
	for _, name := range []string{"RateLimit-Policy", "RateLimit", "Retry-After"} {
		fmt.Printf("   %s: %s\n", name, header.Get(name))
	}
	wait, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(wait) * time.Second)
	passed, _, err := a.get(kv.FixedWindow, "cleo")
	fmt.Printf("\nShe does, %d s later: passed=%t.\n", wait, passed)
	if !passed && err == nil {
		err = errors.New("cleo was denied after Retry-After")
	}
	return err
}

// denied sends requests until one is denied, and returns the header of that.
func (a *api) denied(user string) (http.Header, error) {
	for range 1000 {
		passed, header, err := a.get(kv.FixedWindow, user)
		if !passed {
			return header, err
		}
	}
	return nil, errors.New("nothing is ever denied")
}

// pace lets a worker wait for its turn instead of being denied.
func (a *api) pace() error {
	limiter, err := kv.NewRateLimiter(a.store, kv.Limit{Requests: requests, Window: window, Algorithm: kv.TokenBucket, Burst: 1},
		&kv.RateLimiterOptions{Prefix: "mail"})
	if err != nil {
		return err
	}
	fmt.Println("\nDan's worker waits instead, and sends a mail every 100 ms:")
	began := time.Now()
	for i := range 5 {
		if err := limiter.Wait(context.Background(), "dan"); err != nil {
			return err
		}
		sent := time.Since(began)
		fmt.Printf("   mail %d after %3d ms\n", i+1, sent.Milliseconds())
		if due := time.Duration(i) * window / requests; sent < due-time.Millisecond {
			return fmt.Errorf("mail %d was sent after %s, before %s", i+1, sent, due)
		}
	}
	return nil
}
