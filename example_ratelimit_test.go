package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/kvrecipes/kv"
)

func ExampleRateLimiter_Allow() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: 2, Window: time.Hour}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		result, err := limiter.Allow(ctx, "ada")
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(result.Allowed, result.Remaining, result.RetryAfter.Round(time.Minute))
	}
	// Output:
	// true 1 0s
	// true 0 0s
	// false 0 1h0m0s
}

// A middleware that answers 429 to those who ask too often.
func ExampleRateLimiter_middleware() {
	store := kv.New(nil)
	defer store.Close()
	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: 100, Window: time.Minute, Algorithm: kv.TokenBucket, Burst: 2}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	limited := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			result, err := limiter.Allow(r.Context(), r.Header.Get("X-User"))
			if err == nil && !result.Allowed {
				// Retry-After has whole seconds. Rounded up, for too early is too often.
				w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(result.RetryAfter.Seconds()))))
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r) // also if the store is down: rather no limit than no service
		})
	}
	handler := limited(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))

	for range 3 {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header.Set("X-User", "ada")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		fmt.Printf("%d %q\n", answer.Code, answer.Header().Get("Retry-After"))
	}
	// Output:
	// 200 ""
	// 200 ""
	// 429 "1"
}

// Requests need not cost the same, and what was not done after all need not count.
func ExampleRateLimiter_AllowN() {
	ctx := context.Background()
	store := kv.New(nil)
	defer store.Close()
	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: 1000, Window: 24 * time.Hour}, &kv.RateLimiterOptions{Prefix: "mail"})
	if err != nil {
		fmt.Println(err)
		return
	}
	send := func(recipients int64) {
		result, err := limiter.AllowN(ctx, "ada", recipients)
		fmt.Println(result.Allowed, result.Remaining, err)
	}
	send(700)
	send(400) // all or nothing
	if err := limiter.Refund(ctx, "ada", 700); err != nil {
		fmt.Println(err)
	}
	send(400)
	send(1001) // would never be allowed
	// Output:
	// true 300 <nil>
	// false 300 <nil>
	// true 600 <nil>
	// false 0 kv: allown "ada": cost is below 1 or over the limit's capacity
}

// A worker that waits for its turn instead of being denied, and that knows at once when it is no use to wait.
func ExampleRateLimiter_Wait() {
	store := kv.New(nil)
	defer store.Close()
	limiter, err := kv.NewRateLimiter(store, kv.Limit{Requests: 1, Window: time.Hour}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(limiter.Wait(ctx, "report"))
	err = limiter.Wait(ctx, "report") // not before an hour: returns at once
	fmt.Println(errors.Is(err, context.DeadlineExceeded), ctx.Err())
	// Output:
	// <nil>
	// true <nil>
}
