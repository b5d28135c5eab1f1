// Module verify checks kv with tools that its users need not have among their dependencies.
module github.com/kvrecipes/kv/verify

go 1.25.0

require github.com/kvrecipes/kv v0.0.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/tidwall/btree v1.8.2 // indirect
)

replace github.com/kvrecipes/kv => ../
