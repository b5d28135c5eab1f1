module github.com/kvrecipes/kv/valkeykv

go 1.25.0

require (
	github.com/kvrecipes/kv v0.0.0
	github.com/stretchr/testify v1.12.1
	github.com/valkey-io/valkey-go v1.0.79
)

require (
	github.com/tidwall/btree v1.8.2 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/kvrecipes/kv => ../
