package valkeykv_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv/valkeykv"
)

func TestParseSelf(t *testing.T) {
	const text = `07c37df 127.0.0.1:30004@31004,host slave e7d1eec 0 1426238317239 4 connected
e7d1eec 127.0.0.1:30001@31001 myself,master - 0 0 7 connected 0-5460 5462 5464-5500 [5461->-07c37df]
`
	id, epoch, ranges, moving := valkeykv.ParseSelf(text)
	require.Equal(t, "e7d1eec", id)
	require.EqualValues(t, 7, epoch)
	require.Equal(t, [][2]int{{0, 5460}, {5462, 5462}, {5464, 5500}}, ranges)
	require.True(t, moving)

	_, _, ranges, moving = valkeykv.ParseSelf("a 127.0.0.1:1@2 myself,slave b 0 0 7 connected\n")
	require.Empty(t, ranges)
	require.False(t, moving)
}

func FuzzParseSelf(f *testing.F) {
	f.Add("a h:1@2 myself,master - 0 0 7 connected 0-5 7 [8-<-x]")
	f.Add("a h:1@2 myself,master - 0 0 7 connected 5--3 70000 9-1 -4")
	f.Fuzz(func(t *testing.T, text string) {
		_, _, ranges, _ := valkeykv.ParseSelf(text)
		for _, r := range ranges {
			require.True(t, 0 <= r[0] && r[0] <= r[1] && r[1] < 16384, "%v of %q", r, text)
		}
	})
}

// A master that was replaced while it was away still claims its slots for a moment.
func TestTheHigherEpochIsRight(t *testing.T) {
	type claim = valkeykv.Claim
	old, fresh, other := claim{"old", 1, 0, 8000}, claim{"new", 7, 0, 8000}, claim{"other", 2, 8001, 16383}
	for _, claims := range [][]claim{{old, fresh, other}, {fresh, old, other}, {other, old, fresh}, {other, fresh, old, fresh, other}} {
		ids, gap := valkeykv.Believe(claims...)
		require.Equal(t, []string{"new", "other"}, ids)
		require.Negative(t, gap)
	}
	ids, gap := valkeykv.Believe(claim{"replica", 9, 0, 0}, other)
	require.Equal(t, []string{"other"}, ids)
	require.Zero(t, gap)
	_, gap = valkeykv.Believe(old)
	require.Equal(t, 8001, gap)
}
