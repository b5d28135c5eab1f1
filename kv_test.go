package kv_test

import (
	"testing"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func open(opts *kv.Options) func(*testing.T) *kv.Store {
	return func(*testing.T) *kv.Store { return kv.New(opts) }
}

func openFaulty(*testing.T) *kv.Store {
	return kv.NewWithEngine(kvtest.NewFaulty(kv.New(nil)), nil)
}

// TestConformance runs the suite that every engine has to pass.
func TestConformance(t *testing.T) {
	for name, h := range map[string]kvtest.Harness{
		"memory":      {Open: open(nil), Virtual: true},
		"one shard":   {Open: open(&kv.Options{Shards: 1}), Virtual: true},
		"late reaper": {Open: open(&kv.Options{ReapInterval: 30 * time.Minute}), Virtual: true},
		"namespace":   {Open: open(nil), Virtual: true, Namespace: "name:space"},
		"real time":   {Open: open(nil), Resolution: time.Millisecond}, // to which the wall clock may be corrected
		"faulty":      {Open: openFaulty, Virtual: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kvtest.Run(t, h)
		})
	}
}
