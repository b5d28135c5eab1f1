package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/examples/service/drive"
	"github.com/kvrecipes/kv/examples/service/outside"
	"github.com/kvrecipes/kv/examples/service/shop"
)

// The demonstration under the race detector.
func TestDemonstration(t *testing.T) {
	store := kv.New(nil)
	defer store.Close()
	require.NoError(t, demonstrate(t.Context(), store))
}

// A shop that lets one request too many pass does not go unnoticed.
func TestCustomersNoticeWhatIsWrong(t *testing.T) {
	store := kv.New(nil)
	defer store.Close()
	world := outside.NewWorld()
	out, err := listen("127.0.0.1:0", world)
	require.NoError(t, err)
	defer out.Close()
	s, err := shop.New(store, shop.Options{Outside: out.url, Secret: "theirs", PerMinute: perMinute + 1})
	require.NoError(t, err)
	defer s.Close()
	server, err := listen("127.0.0.1:0", s)
	require.NoError(t, err)
	defer server.Close()

	result, err := drive.Run(t.Context(), drive.Config{Shops: []string{server.url}, World: world, Secret: "theirs", PerMinute: perMinute})
	require.NoError(t, err)
	require.False(t, result.OK())
	require.Error(t, report(result, 0))
}
