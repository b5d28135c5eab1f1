package main

import (
	"fmt"
	"slices"
)

// A group is workloads that share a store, and so a child process.
type group struct {
	name  string
	works []string // as -work knows them, beside the group's name
	title string
	rival []string // engines that a target names: they run as often as kv
	once  bool     // the rest of the engines run once: their figures hardly vary, or the work takes long
	last  bool     // takes long and has no rival: after all rounds of the others
	most  int      // repetitions that are enough even for kv; 0: no bound
	peers []peer   // who takes part; nil: the stores
	fit   func(peer) bool
	run   func(*bench)
}

func anyPeer(peer) bool { return true }

var groups = []group{
	{name: "point", works: []string{"insert", "get", "mix", "overwrite", "incr"}, title: "a store without deadlines",
		rival: []string{"xsync", "buntdb", "otter", "btree", "go-cache"}, fit: anyPeer, run: runPoint},
	{name: "ttl", works: []string{"insert-ttl", "get-ttl", "expire", "lock"}, title: "a store whose entries have a deadline",
		rival: []string{"otter"}, fit: func(p peer) bool { return p.ttl }, run: runTTL},
	{name: "scan", works: []string{"scan-first", "scan-100", "scan-all"}, title: "keys in order",
		rival: []string{"btree"}, fit: among("kv", "btree", "buntdb"), run: runScan},
	{name: "memory", once: true, works: []string{"memory", "memory-ttl", "gc"}, title: "memory and its collection", fit: anyPeer, run: runMemory},
	{name: "expiry", works: []string{"expiry"}, title: "all keys due within one second",
		fit: func(p peer) bool { return p.reaps }, run: runExpiry},
	{name: "stalls", most: 3, works: []string{"stalls"}, title: "the slowest calls under load",
		fit: among("kv", "buntdb", "map", "sync.Map", "xsync", "otter", "freecache"), run: runStalls},
	{name: "growth", last: true, most: 1, works: []string{"growth", "growth-10x"}, title: "more entries", fit: among("kv", "btree", "xsync", "otter"), run: runGrowth},
	{name: "values", last: true, most: 2, works: []string{"values"}, title: "larger values", fit: among("kv", "xsync", "otter", "freecache"), run: runValues},
	{name: "recipes", works: []string{"recipes"}, title: "recipes", peers: recipePeers, fit: anyPeer, run: runRecipes},
	{name: "heap", last: true, once: true, works: []string{"gc-5x"}, title: "five times the entries", fit: anyPeer, run: runHeap},
}

func among(names ...string) func(peer) bool {
	return func(p peer) bool { return slices.Contains(names, p.name) }
}

// members returns who takes part in the group.
func (g group) members() []peer {
	if g.peers == nil {
		return peers
	}
	return g.peers
}

// findGroups returns the groups that contain the workloads asked for, and for each which of them; nil for all.
func findGroups(works []string) ([]group, []map[string]bool, error) {
	var found []group
	var wanted []map[string]bool
	unknown := map[string]bool{}
	for _, w := range works {
		unknown[w] = true
	}
	for _, g := range groups {
		want := map[string]bool{}
		whole := len(works) == 0
		for _, w := range works {
			if w == g.name {
				whole = true
			} else if slices.Contains(g.works, w) {
				want[w] = true
			} else {
				continue
			}
			delete(unknown, w)
		}
		switch {
		case whole:
			found, wanted = append(found, g), append(wanted, nil)
		case len(want) > 0:
			found, wanted = append(found, g), append(wanted, want)
		}
	}
	for w := range unknown {
		return nil, nil, fmt.Errorf("no workload called %q", w)
	}
	return found, wanted, nil
}
