//go:build (amd64 || arm64) && !purego

package kv

// prefetch asks the processor to bring the cache line at an address closer,
// without waiting for it. It is a hint: the address need not be valid, and nothing else happens.
//
// An engine with a million keys mostly waits for memory, one miss after the
// other; where the next addresses are known, this gets many under way at a time. Go offers the instruction
// to its runtime only, hence the assembly; elsewhere, and with the tag purego, prefetch does nothing.
//
//go:noescape
func prefetch(address uintptr)
