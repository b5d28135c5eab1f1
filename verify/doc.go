// Package verify has tests alone: it checks, with a tool that the users of kv
// need not have among their dependencies, that what happens to a store that many goroutines
// use at the same time could also have happened in some order, one operation after the other.
//
// The tool is porcupine (github.com/anishathalye/porcupine), which searches a
// recorded history for such an order (linearizability: Herlihy and Wing, 1990).
// Each test runs for -soak (2 s); a longer one finds more:
//
//	go test ./... -soak 10m
//
// Every round prints its seed when it fails; -seed runs that round's programs again and again.
package verify
