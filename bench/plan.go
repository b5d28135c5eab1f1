package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"
)

// A plan is what to run, and how often.
type plan struct {
	scale
	runs, others int
	budget       time.Duration // no child begins later than this; 0: no bound
	redis        string        // address of a server; "": leave out what needs one
	left         []string      // what was left out, and why
	jobs         []job
}

var shortScale = scale{Entries: 2000, Ops: 4000, Time: 2 * time.Millisecond, ValueSize: 64, Short: true}

// choose lists the jobs: repetition by repetition, and in each one engine after the
// other, so that a slow minute of the machine hits all of them.
func (p *plan) choose(engines, works []string) error {
	for _, name := range engines {
		if _, err := findPeer(slices.Concat(peers, recipePeers), name); err != nil {
			return err
		}
	}
	chosen, wanted, err := findGroups(works)
	if err != nil {
		return err
	}
	for _, last := range []bool{false, true} {
		for repeat := range max(p.runs, p.others) {
			for i, g := range chosen {
				if g.last == last {
					p.addJobs(g, wanted[i], engines, repeat)
				}
			}
		}
	}
	return nil
}

// addJobs lists the jobs of one group in one round.
func (p *plan) addJobs(g group, wanted map[string]bool, engines []string, repeat int) {
	for _, e := range g.members() {
		if !p.takesPart(g, e) || len(engines) > 0 && !slices.Contains(engines, e.name) || repeat >= p.repeats(g, e) {
			continue
		}
		works := slices.Sorted(maps.Keys(wanted))
		p.jobs = append(p.jobs, job{Engine: e.name, Group: g.name, Works: works, Repeat: repeat, Scale: p.scale, Redis: p.redis})
	}
}

func (p *plan) takesPart(g group, e peer) bool {
	switch {
	case e.redis && p.redis == "":
		return false
	case p.Short && e.lazy && g.name == "expiry":
		return false
	default:
		return g.fit(e)
	}
}

// repeats returns how often e does the work of g.
func (p *plan) repeats(g group, e peer) int {
	n := p.others
	switch {
	case e.name == "kv" || slices.Contains(g.rival, e.name):
		n = p.runs
	case g.once:
		n = min(n, 1)
	}
	if g.most > 0 {
		n = min(n, g.most)
	}
	return n
}

// childLimit ends a child that hangs. None takes a quarter of it.
const childLimit = 4 * time.Minute

// run runs the jobs one after the other, each in a process of its own. What a child that fails should have
// measured is missing from the figures, and its error is among those returned.
func (p *plan) run(ctx context.Context, progress io.Writer) (*figures, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := new(figures)
	began := time.Now()
	var failed []error
	for i, j := range p.jobs {
		if ctx.Err() != nil {
			return f, ctx.Err()
		}
		if p.budget > 0 && time.Since(began) > p.budget {
			p.left = append(p.left, fmt.Sprintf("the last %d of %d child processes, for want of time: the later rounds", len(p.jobs)-i, len(p.jobs)))
			break
		}
		start := time.Now()
		samples, err := p.runChild(ctx, j, program)
		if err != nil {
			failed = append(failed, err)
			fmt.Fprintln(progress, err)
		}
		f.add(j.Engine, samples)
		fmt.Fprintf(progress, "[%d/%d] run %d %-9s %-8s %4.1f s, %s in all\n",
			i+1, len(p.jobs), j.Repeat+1, j.Engine, j.Group, time.Since(start).Seconds(), time.Since(began).Round(time.Second))
	}
	return f, errors.Join(failed...)
}

func (p *plan) runChild(ctx context.Context, j job, program string) ([]sample, error) {
	ctx, cancel := context.WithTimeout(ctx, childLimit)
	defer cancel()
	samples, err := j.spawn(ctx, program)
	if err != nil {
		p.left = append(p.left, fmt.Sprintf("run %d of %s for %s, which failed", j.Repeat+1, j.Engine, j.Group))
	}
	return samples, err
}

// findRedis sees to a server for the libraries that need one.
func (p *plan) findRedis(ctx context.Context, address string, progress io.Writer) *server {
	switch address {
	case "off":
		p.left = append(p.left, "what needs a Redis: switched off")
		return nil
	case "auto":
		s, err := startRedis(ctx)
		if err != nil {
			p.left = append(p.left, "what needs a Redis: "+err.Error())
			fmt.Fprintln(progress, "left out", p.left[len(p.left)-1])
			return nil
		}
		p.redis = s.addr
		return s
	default:
		p.redis = address
		return nil
	}
}
