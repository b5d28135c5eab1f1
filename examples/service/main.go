// Service is a checkout API that uses every recipe of kv, and a crowd of
// customers that tries to break it:
//
//	go run ./examples/service                       # serve, drive, check, print
//	go run ./examples/service -addr localhost:8080  # serve only, for curl
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/examples/service/drive"
	"github.com/kvrecipes/kv/examples/service/outside"
	"github.com/kvrecipes/kv/examples/service/shop"
)

const perMinute = 60 // requests of one user

func main() {
	addr := flag.String("addr", "", "serve on this address instead of running the customers")
	verbose := flag.Bool("v", false, "log what goes wrong on purpose, too")
	flag.Parse()
	if !*verbose && *addr == "" {
		slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	store := kv.New(nil) // the line to change for a store that several machines share
	run := demonstrate
	if *addr != "" {
		run = func(ctx context.Context, store *kv.Store) error { return serve(ctx, store, *addr) }
	}
	if err := errors.Join(run(ctx, store), store.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// demonstrate runs two shops on one store, sends the customers and prints what came of it.
func demonstrate(ctx context.Context, store *kv.Store) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	world, secret := outside.NewWorld(), rand.Text()
	out, err := listen("127.0.0.1:0", world)
	if err != nil {
		return err
	}
	defer out.Close()

	var urls []string
	for range 2 {
		s, err := shop.New(store, shop.Options{Outside: out.url, Secret: secret, PerMinute: perMinute})
		if err != nil {
			return err
		}
		defer s.Close()
		server, err := listen("127.0.0.1:0", s)
		if err != nil {
			return err
		}
		defer server.Close()
		urls = append(urls, server.url)
	}
	fmt.Printf("Two shops on one store: %s and %s\n\n", urls[0], urls[1])

	begun := time.Now()
	result, err := drive.Run(ctx, drive.Config{Shops: urls, World: world, Secret: secret, PerMinute: perMinute})
	if err != nil {
		return err
	}
	return report(result, time.Since(begun))
}

// report prints the checks, and returns an error if one of them doesn't hold.
func report(result drive.Result, took time.Duration) error {
	for _, c := range result.Checks {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		fmt.Printf("%s  %s\n      %s\n", mark, c.Did, c.Got)
	}
	if !result.OK() {
		return errors.New("the shop did something wrong")
	}
	fmt.Printf("\nAll of it is true: %d checks, %d requests, %.1f s\n", len(result.Checks), result.Requests, took.Seconds())
	return nil
}

// serve runs one shop until it is interrupted.
func serve(ctx context.Context, store *kv.Store, addr string) error {
	out, err := listen("127.0.0.1:0", outside.NewWorld())
	if err != nil {
		return err
	}
	defer out.Close()
	s, err := shop.New(store, shop.Options{Outside: out.url, Secret: "swordfish", PerMinute: perMinute})
	if err != nil {
		return err
	}
	defer s.Close()
	server, err := listen(addr, s)
	if err != nil {
		return err
	}
	fmt.Printf("The shop is open on %s. Ctrl-C closes it.\n", server.url)
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(ctx) // lets those finish who are in the shop
}

// server is an HTTP server that is listening.
type server struct {
	*http.Server
	url string
}

func listen(addr string, h http.Handler) (*server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, "http://" + l.Addr().String()}
	go s.Serve(l) // ends with Close or Shutdown, which are ours to call
	return s, nil
}
