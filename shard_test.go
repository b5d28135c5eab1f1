package kv

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestReaderStartsAgain shows a reader a shard that was changed under it: what it found must not count.
func TestReaderStartsAgain(t *testing.T) {
	s := New(&Options{Shards: 1})
	defer s.Close()
	require.NoError(t, s.Set(t.Context(), "here", "v", NoExpiry))
	m := s.engine.(*memory)
	sh := &m.shards[0]
	for _, key := range []string{"here", "missing"} {
		seq := sh.seq.Load()
		_, got := sh.tryLookup(key, m.hash(key).slot(), seq)
		require.Equal(t, map[string]lookupResult{"here": lookupFound, "missing": lookupAbsent}[key], got)

		sh.mu.Lock()
		sh.beginLocked()
		_, got = sh.tryLookup(key, m.hash(key).slot(), seq)
		require.Equal(t, lookupChanged, got, "%s while a writer is at work", key)
		sh.endLocked()
		_, got = sh.tryLookup(key, m.hash(key).slot(), seq)
		require.Equal(t, lookupChanged, got, "%s after a writer was at work", key)
		sh.mu.Unlock()
	}
}

// TestWritersWarnReaders does what would mislead a reader, and sees that seq tells.
func TestWritersWarnReaders(t *testing.T) {
	s := New(&Options{Shards: 1})
	defer s.Close()
	sh := &s.engine.(*memory).shards[0]
	ctx := context.Background()
	warned := func(what string, f func()) {
		before := sh.seq.Load()
		f()
		require.NotEqual(t, before, sh.seq.Load(), what)
		require.Zero(t, sh.seq.Load()%2, what)
	}
	set := func(key string, n int) { require.NoError(t, s.Set(ctx, key, strings.Repeat("x", n), NoExpiry)) }

	warned("the table, the numbers and the chunks grow", func() { set("a", 1) })
	warned("a chunk of its own goes", func() {
		set("large", 2*ownChunkBytes)
		before := sh.seq.Load()
		set("large", 1)
		require.NotEqual(t, before, sh.seq.Load())
	})
	warned("a transaction", func() {
		_, _, err := s.Txn(ctx, nil, OpGet("a"))
		require.NoError(t, err)
	})
	quiet := sh.seq.Load()
	set("a", 2)
	require.Equal(t, quiet, sh.seq.Load(), "a replaced value keeps no reader waiting")
	_, err := s.Delete(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, quiet, sh.seq.Load(), "nor does a deleted key")
}

// TestGarbageIsBounded makes garbage in every way, of records of all sizes, and looks after each step.
func TestGarbageIsBounded(t *testing.T) {
	s := New(&Options{Shards: 1})
	defer s.Close()
	sh := &s.engine.(*memory).shards[0]
	r := rand.New(rand.NewPCG(1, 2))
	most := 0.0
	check := func() {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		require.NoError(t, sh.checkGarbage())
		if a := &sh.arena; a.live > 20*chunkBytes {
			most = max(most, float64(a.dead)/float64(a.live))
		}
	}
	const keys = 2000
	key := func() string { return strconv.Itoa(r.IntN(keys)) }
	sizes := []int{0, 10, 100, 1000, 7000, 20_000}
	for round := range 4 {
		for range 3 * keys {
			size := sizes[r.IntN(len(sizes)-1-round%2)] // and some rounds of small ones after large ones
			require.NoError(t, s.Set(t.Context(), key(), strings.Repeat("x", size), NoExpiry))
			check()
		}
		for range keys {
			_, err := s.Delete(t.Context(), key())
			require.NoError(t, err)
			check()
		}
	}
	require.NoError(t, CheckInvariants(s))
	require.Greater(t, most, 0.4, "the test made no garbage worth collecting")
	require.Less(t, most, 1.0)
}

// A line between two processors belongs to one shard, else writers of different shards would meet there.
func TestShardsShareNoCacheLine(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 {
		require.Zero(t, unsafe.Sizeof(shard{})%cacheLine)
	}
}

// TestNumbersRunOut gives a shard all the numbers that it can have.
func TestNumbersRunOut(t *testing.T) {
	s := New(&Options{Shards: 1 << 16})
	defer s.Close()
	m := s.engine.(*memory)
	require.NoError(t, s.Set(t.Context(), "here", "v", NoExpiry))
	for i := range m.shards {
		m.shards[i].nextID = 1<<(keyIDBits-m.bits) - 1
	}
	require.ErrorIs(t, s.Set(t.Context(), "new", "v", NoExpiry), ErrTooLarge)
	_, err := s.Get(t.Context(), "new")
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, s.Set(t.Context(), "here", "w", NoExpiry), "a key that is there has its number")
	_, err = s.Delete(t.Context(), "here")
	require.NoError(t, err)
	require.NoError(t, s.Set(t.Context(), "here", "x", NoExpiry), "and a number that is free again serves")
}
