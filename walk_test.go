package kv_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// A scan that comes to keys that have not been sorted yet, in the middle of a
// batch, goes on behind the last key that it has collected, not at its start.
func TestScanAcrossUnsortedLeaves(t *testing.T) {
	for _, reverse := range []bool{false, true} {
		t.Run(fmt.Sprintf("reverse=%v", reverse), func(t *testing.T) {
			const n = 50_000 // several leaves, each with keys that nobody has sorted
			store := kv.New(nil)
			defer store.Close()
			want := make([]string, n)
			for i := range want {
				want[i] = fmt.Sprintf("%06d", i*7919%n) // 7919 is a prime: each number once
				require.NoError(t, store.Set(t.Context(), want[i], "", kv.NoExpiry))
			}
			slices.Sort(want)
			if reverse {
				slices.Reverse(want)
			}
			got := make([]string, 0, n)
			for e, err := range store.Scan(context.Background(), kv.Range{Reverse: reverse}) {
				require.NoError(t, err)
				require.Less(t, len(got), n, "the scan repeats itself, at %q", e.Key)
				got = append(got, e.Key)
			}
			require.True(t, slices.Equal(want, got), "%d keys, %d wanted", len(got), n)
		})
	}
}
