package kv

import (
	"testing"

	"github.com/stretchr/testify/require"
)

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
	require.Zero(t, table.gone)

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
