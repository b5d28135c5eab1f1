//go:build !race

package kv_test

const underRace = false
