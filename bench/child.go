package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// A job is what one child process does.
type job struct {
	Engine string   `json:"engine"`
	Group  string   `json:"group"`
	Works  []string `json:"works"` // empty: all of the group
	Repeat int      `json:"repeat"`
	Scale  scale    `json:"scale"`
	Redis  string   `json:"redis"` // address of a server; "" without
}

// jobVariable carries a job to a child, which is this program again.
const jobVariable = "KVBENCH_JOB"

// runChild does the job that the environment describes and prints its samples.
func runChild(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	samples, err := j.do()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(samples)
}

// do does a job in this process.
func (j job) do() ([]sample, error) {
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == j.Group })
	if i < 0 {
		return nil, fmt.Errorf("no group called %q", j.Group)
	}
	p, err := findPeer(groups[i].members(), j.Engine)
	if err != nil {
		return nil, err
	}
	b := &bench{scale: j.Scale, peer: p, redis: j.Redis}
	if len(j.Works) > 0 {
		b.works = make(map[string]bool)
		for _, w := range j.Works {
			b.works[w] = true
		}
	}
	groups[i].run(b)
	return b.samples, nil
}

// spawn does a job in a process of its own.
func (j job) spawn(ctx context.Context, program string) ([]sample, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", j.Engine, j.Group, err, errs.String())
	}
	var samples []sample
	if err := json.Unmarshal(out.Bytes(), &samples); err != nil {
		return nil, fmt.Errorf("%s %s: %w", j.Engine, j.Group, err)
	}
	return samples, nil
}
