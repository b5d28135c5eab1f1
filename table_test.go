package kv

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTableWithoutEmptyCounters looks for a missing key where every bucket has been passed by some key.
func TestTableWithoutEmptyCounters(t *testing.T) {
	s := New(&Options{Shards: 1})
	defer s.Close()
	sh := &s.engine.(*memory).shards[0]
	sh.view.Store(&view{table: makeTable(2)})
	for b := range 2 {
		sh.view.Load().buckets[b].set(0, 1) // one key passed, which the search can't know to be elsewhere
	}
	_, found := sh.lookup("missing", 1<<31)
	require.False(t, found)
	_, _, found = sh.locateLocked("missing", 1)
	require.False(t, found)
}

// TestTableAgainstSet adds and removes slots at random at the highest load.
func TestTableAgainstSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, buckets := range []int{1, 2, 3, 50} {
		table := makeTable(buckets)
		model := make(map[uint64]bool)
		for range 20_000 {
			if !table.full(len(model)) && rng.IntN(2) == 0 {
				slot := slotOf(rng.Uint32()<<uint(rng.IntN(32)), ref(len(model)+1)<<8|ref(rng.IntN(256)))
				if !model[slot] {
					table.add(slot)
					model[slot] = true
				}
				continue
			}
			for slot := range model { // any one
				table.remove(table.find(slot))
				delete(model, slot)
				break
			}
		}
		got := make(map[uint64]bool)
		table.each(func(i slotAt, slot uint64) {
			require.Equal(t, i, table.find(slot))
			got[slot] = true
		})
		require.Equal(t, model, got)
		for slot := range model {
			table.remove(table.find(slot))
		}
		for i := range table.buckets {
			require.Zero(t, table.buckets[i].tags(), "an empty table has neither tags nor counters")
		}
	}
}
