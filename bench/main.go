// Command bench measures kv side by side with the stores that Go programs use today.
//
//	go run .                                   everything, with a results file and charts
//	go run . -engines kv,xsync -work get,insert -n 1000000 -runs 3
//
// See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	if text := os.Getenv(jobVariable); text != "" {
		exit(runChild(text))
	}
	exit(run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run() error {
	var (
		engines = flag.String("engines", "", "comma-separated engines; empty: all ("+peerNames()+")")
		work    = flag.String("work", "", "comma-separated workloads or groups of them; empty: all ("+workNames()+")")
		n       = flag.Int("n", 1_000_000, "entries")
		ops     = flag.Int("ops", 2_000_000, "most operations of one figure")
		limit   = flag.Duration("time", 300*time.Millisecond, "most time of one figure")
		size    = flag.Int("value", 64, "bytes of a value")
		runs    = flag.Int("runs", 5, "repetitions of kv and of the engines that a target names, at most")
		others  = flag.Int("others", 2, "repetitions of the rest")
		budget  = flag.Duration("budget", 0, "begin nothing later than this, and do with fewer repetitions; 0: no bound")
		redis   = flag.String("redis", "auto", "address of a Redis for the libraries that need one; auto: start redis-server if it is installed; off: leave them out")
		out     = flag.String("out", "", "folder for results.md, results.json and charts; empty: results/ if everything is run, else none")
		short   = flag.Bool("short", false, "a smoke run: tiny, once, in seconds; its figures mean nothing")
	)
	flag.Parse()
	p := plan{
		scale:  scale{Entries: *n, Ops: *ops, Time: *limit, ValueSize: *size},
		runs:   *runs,
		others: min(*others, *runs),
		budget: *budget,
	}
	if *short {
		p.scale, p.runs, p.others = shortScale, 1, 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if strings.Contains(*work, "recipes") || *work == "" {
		server := p.findRedis(ctx, *redis, os.Stderr)
		defer server.stop()
	}
	if err := p.choose(split(*engines), split(*work)); err != nil {
		return err
	}
	began, where, watch := time.Now(), thisMachine(), startLoad()
	f, failed := p.run(ctx, os.Stderr)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	foreign := watch.foreign()
	printFigures(os.Stdout, f)
	r := results{Date: began, Command: strings.Join(append([]string{"go run ."}, os.Args[1:]...), " "), Took: time.Since(began),
		Machine: where, Foreign: foreign, Scale: p.scale, LeftOut: p.left, Verdicts: judge(f), Figures: f.list}
	writeVerdicts(os.Stdout, r.Verdicts)
	if *out == "" && *engines == "" && *work == "" && !*short {
		*out = "results"
	}
	if *out == "" {
		return failed
	}
	return errors.Join(r.save(*out, f), failed)
}

func split(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}

func peerNames() string {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	return strings.Join(names, " ")
}

func workNames() string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name+": "+strings.Join(g.works, " "))
	}
	return strings.Join(names, "; ")
}
