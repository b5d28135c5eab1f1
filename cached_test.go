package kv

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCachedSurvives(t *testing.T) {
	taker := newTaker()
	for _, want := range []cached{
		{kind: cachedValue, version: taker[:versionLen]},
		{kind: cachedValue, version: taker[:versionLen], freshUntil: 1 << 62, cost: time.Hour, takers: newTaker() + newTaker(), payload: "any\x00\xffbytes"},
		{kind: cachedAbsent, version: taker[:versionLen], freshUntil: 1, cost: 1, takers: newTaker()},
		{kind: cachedLease, takers: newTaker() + newTaker()},
	} {
		want.raw = want.encode()
		var got cached
		require.True(t, got.parse(want.raw))
		require.Equal(t, want, got)
		require.Equal(t, want.kind != cachedLease, got.servable())
	}
}

func TestCachedTakers(t *testing.T) {
	var c cached
	var takers []string
	for range 2 * maxTakers {
		takers = append(takers, newTaker())
		raw := c.leaseWith(takers[len(takers)-1])
		c = cached{}
		require.True(t, c.parse(raw))
		require.Equal(t, raw, c.encode())
		require.True(t, c.lists(takers[len(takers)-1]))
	}
	for i, taker := range takers {
		require.Equal(t, i >= maxTakers, c.lists(taker), "the last takers are kept")
		if i >= maxTakers {
			require.Equal(t, strings.Join(takers[i+1:], ""), c.takersAfter(taker))
		}
	}
	require.False(t, c.lists(newTaker()))
	require.False(t, c.lists(c.takers[1:takerLen+1]), "only whole takers count")
}

func TestCachedRefusesWhatIsForeign(t *testing.T) {
	value := (&cached{kind: cachedValue, version: newTaker()[:versionLen], takers: newTaker()}).encode()
	absent := (&cached{kind: cachedAbsent, version: newTaker()[:versionLen]}).encode()
	for _, raw := range []string{
		"", "x", "kvg", "kvg1", "kvg1X", "kvi1P\x00", "kvg1L", "kvg1Lshort", "kvg1V", "kvg2" + value[4:],
		value[:len(value)-1], absent[:len(absent)-1], absent + "payload",
		value[:len(cachedMagic)+1+versionLen] + "\xff" + value[len(cachedMagic)+2+versionLen:],    // freshUntil below 0
		value[:len(cachedMagic)+1+versionLen+8] + "\xff" + value[len(cachedMagic)+10+versionLen:], // cost below 0
	} {
		require.False(t, new(cached).parse(raw), "%q", raw)
	}
}

// What is under a key may come from anyone; no input panics, and what is accepted is understood whole.
func FuzzCached(f *testing.F) {
	f.Add("")
	f.Add("kvg1L" + newTaker())
	f.Add((&cached{kind: cachedValue, version: newTaker()[:versionLen], takers: newTaker(), payload: "x"}).encode())
	f.Add((&cached{kind: cachedAbsent, version: newTaker()[:versionLen]}).encode())
	f.Fuzz(func(t *testing.T, raw string) {
		var c, lease cached
		if !c.parse(raw) {
			return
		}
		require.Equal(t, raw, c.encode())
		require.Zero(t, len(c.takers)%takerLen)
		c.lists(newTaker())
		require.True(t, lease.parse(c.leaseWith(newTaker())))
		require.LessOrEqual(t, len(lease.takers), maxTakers*takerLen)
	})
}
