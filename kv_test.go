package kv_test

import (
	"testing"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

func open(opts *kv.Options) func(*testing.T) *kv.Store {
	return func(*testing.T) *kv.Store { return kv.New(opts) }
}

// TestConformance runs the suite that every engine has to pass.
func TestConformance(t *testing.T) {
	for name, h := range map[string]kvtest.Harness{
		"memory":    {Open: open(nil), Virtual: true},
		"one shard": {Open: open(&kv.Options{Shards: 1}), Virtual: true},
		"namespace": {Open: open(nil), Virtual: true, Namespace: "name:space"},
		"real time": {Open: open(nil)},
	} {
		t.Run(name, func(t *testing.T) { kvtest.Run(t, h) })
	}
}
