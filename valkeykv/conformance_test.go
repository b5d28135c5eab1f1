package valkeykv_test

import (
	"testing"
	"time"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/kvtest"
)

// TestConformance runs the suite that every engine has to pass.
func TestConformance(t *testing.T) {
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			option := target.option(t)
			c := rawClient(t, option)
			kvtest.Run(t, kvtest.Harness{
				Open: func(t *testing.T) *kv.Store {
					flush(t, c)
					return openStore(t, option)
				},
				Peer:       func(t *testing.T, _ *kv.Store) *kv.Store { return openStore(t, option) },
				Resolution: time.Millisecond,
				Unordered:  true,
				OneSlot:    target.name == "cluster",
				BareEvents: true,
			})
		})
	}
}
