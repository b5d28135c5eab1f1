//go:build !(amd64 || arm64) || purego

package kv

func prefetch(uintptr) {}
