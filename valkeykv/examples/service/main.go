// Service runs two operating system processes against one server and proves
// that what kv promises holds between them: limits, locks, idempotency and
// guarded values.
//
//	go run ./examples/service                       # on a private server that it starts and stops
//	go run ./examples/service -addr localhost:6379  # on one that is there; it uses the prefix "kvservice"
//
// The summary checks itself: the exit status is 1 if a promise was broken.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
	"github.com/kvrecipes/kv/valkeykv/internal/server"
)

func main() {
	addr := flag.String("addr", "", "host:port of a server; empty: start a private one")
	processes := flag.Int("processes", 2, "how many processes")
	worker := flag.String("worker", "", "be one of the processes, in this namespace (the program starts itself so)")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := func() error { return conduct(ctx, *addr, *processes) }
	if *worker != "" {
		run = func() error { return work(ctx, *addr, *worker) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// conduct starts the processes, lets them go at the same time and checks what they did.
func conduct(ctx context.Context, addr string, processes int) error {
	if addr == "" {
		srv, err := server.Start()
		if err != nil {
			return err
		}
		defer srv.Stop()
		addr = srv.Addr
	}
	root, err := open(addr)
	if err != nil {
		return err
	}
	defer root.Close()
	namespace := kv.Key("kvservice", rand.Text())
	store := root.Namespace(namespace)
	fmt.Printf("%d processes, one server at %s\n\n", processes, addr)

	reports, err := startAll(ctx, store, addr, namespace, processes)
	if err != nil {
		return err
	}
	err = check(ctx, store, reports)
	_, cleanErr := store.DeletePrefix(ctx, "")
	return errors.Join(err, cleanErr)
}

func open(addr string) (*kv.Store, error) {
	return valkeykv.Open(valkey.ClientOption{InitAddress: []string{addr}}, nil)
}

// startAll runs the processes and returns what they report.
func startAll(ctx context.Context, store *kv.Store, addr, namespace string, processes int) ([]report, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ready, err := store.Watch(ctx, "ready")
	if err != nil {
		return nil, err
	}
	defer ready.Stop()
	out := make([]bytes.Buffer, processes)
	cmds := make([]*exec.Cmd, processes)
	for i := range cmds {
		cmds[i] = exec.CommandContext(ctx, program, "-addr", addr, "-worker", namespace)
		cmds[i].Stdout, cmds[i].Stderr = &out[i], os.Stderr
		if err := cmds[i].Start(); err != nil {
			return nil, err
		}
	}
	if err := awaitCount(ctx, ready, processes); err != nil {
		return nil, err
	}
	if err := store.Set(ctx, "go", "now", kv.NoExpiry); err != nil {
		return nil, err
	}
	reports := make([]report, processes)
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			return nil, fmt.Errorf("process %d: %w", i+1, err)
		}
		if err := json.Unmarshal(out[i].Bytes(), &reports[i]); err != nil {
			return nil, fmt.Errorf("process %d: %w", i+1, err)
		}
	}
	return reports, nil
}

// awaitCount returns when the watched counter has got as far as want.
func awaitCount(ctx context.Context, w *kv.Watcher, want int) error {
	for {
		select {
		case ev, ok := <-w.Events():
			if !ok {
				return fmt.Errorf("watch: %w", w.Err())
			}
			if n, _ := strconv.Atoi(ev.Entry.Value); n >= want {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
