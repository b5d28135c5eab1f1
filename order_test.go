package kv

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLeavesAreSplit lets a leaf grow far too large before the background work may look at it.
func TestLeavesAreSplit(t *testing.T) {
	for _, alive := range []int{0, 1, 2, 100, maxLeaf, 5 * maxLeaf} {
		t.Run(fmt.Sprint(alive), func(t *testing.T) {
			s := New(nil)
			defer s.Close()
			m := s.engine.(*memory)
			resume := m.pause()
			for i := range 5 * maxLeaf {
				require.NoError(t, s.Set(t.Context(), fmt.Sprintf("key:%06d", i*7919%(5*maxLeaf)), "v", NoExpiry))
			}
			m.order.handOut()
			require.Len(t, m.order.leaves(), 1)
			for i := alive; i < 5*maxLeaf; i++ {
				_, err := s.Delete(t.Context(), fmt.Sprintf("key:%06d", i))
				require.NoError(t, err)
			}
			m.order.splitAll()
			for _, leaf := range m.order.leaves() {
				require.LessOrEqual(t, leaf.size(), maxLeaf)
			}
			require.Equal(t, alive > maxLeaf, len(m.order.leaves()) > 1)
			resume()
			require.NoError(t, m.check())
			n := 0
			for e, err := range s.Scan(t.Context(), Range{}) {
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf("key:%06d", n), e.Key)
				n++
			}
			require.Equal(t, alive, n)
			require.NoError(t, m.check())
		})
	}
}
