package kv

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Vectors of https://github.com/cespare/xxhash v2.3.0.
func TestXXH64(t *testing.T) {
	vectors := []struct {
		s    string
		seed uint64
		want uint64
	}{
		{"", 0, 0xef46db3751d8e999},
		{"", 0x9e3779b97f4a7c15, 0xc4349fc93c010000},
		{"a", 0, 0xd24ec4f1a98c6e5b},
		{"abc", 0, 0x44bc2cf5ad770999},
		{"xxhash", 0, 0x32dd38952c4bc720},
		{"xxhash", 20141025, 0xb559b98d844e0635},
		{"Nobody inspects the spammish repetition", 0, 0xfbcea83c8a378bf1},
	}
	for _, v := range vectors {
		require.Equal(t, v.want, xxh64(v.s, v.seed), "%q, seed %d", v.s, v.seed)
	}
}

// A changed value must cost the same among ten thousand flags as among ten, and
// removed flags must give their memory back.
func TestFlagTableCopiesForNewNamesAlone(t *testing.T) {
	var table flagTable
	table.byName.Store(new(map[string]*flag))
	const n = 10_000
	name := func(i int) string { return "flag-" + string(rune(i)) }
	for i := range n {
		table.put(name(i), "on")
	}
	table.publish()
	known := table.byName.Load()
	require.Len(t, *known, n)

	for i := range n {
		table.put(name(i), "30")
		table.publish()
	}
	for i := range n / 2 {
		table.remove(name(i))
		table.remove(name(i))
		table.publish()
	}
	for i := range n / 2 {
		table.put(name(i), "on")
		table.publish()
	}
	require.True(t, known == table.byName.Load(), "the map was copied without need")

	copies := 0
	for i := range n {
		table.remove(name(i))
		before := table.byName.Load()
		table.publish()
		if table.byName.Load() != before {
			copies++
		}
	}
	require.Empty(t, *table.byName.Load())
	require.Less(t, copies, 20)
	require.Zero(t, table.gone)
}
