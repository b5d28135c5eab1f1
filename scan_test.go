package kv_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv"
)

// inParallel runs the functions at the same time and returns their errors.
func inParallel(fs ...func() error) error {
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	var all error
	for range fs {
		all = errors.Join(all, <-errs)
	}
	return all
}

// TestScanOfManyKeys inserts keys in random order, in waves between scans, and compares scans with a sorted slice.
func TestScanOfManyKeys(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	r := rand.New(rand.NewPCG(1, 2))
	keys := map[string]bool{}
	for wave := range 6 {
		for range scaled(30_000) {
			key := strconv.FormatUint(r.Uint64()>>(r.IntN(50)), 36)
			if r.IntN(4) == 0 {
				_, err := s.Delete(ctx, key)
				require.NoError(t, err)
				delete(keys, key)
			} else {
				require.NoError(t, s.Set(ctx, key, key, kv.NoExpiry))
				keys[key] = true
			}
		}
		want := make([]string, 0, len(keys))
		for key := range keys {
			want = append(want, key)
		}
		slices.Sort(want)
		requireScan(t, s, kv.Range{}, want)
		from, to := strconv.Itoa(wave), "k"+strconv.Itoa(wave)
		i, _ := slices.BinarySearch(want, from)
		j, _ := slices.BinarySearch(want, to)
		requireScan(t, s, kv.Range{From: from, To: to}, want[i:j])
	}
}

// requireScan checks that a scan of r, forwards and backwards, yields keys.
func requireScan(t *testing.T, s *kv.Store, r kv.Range, want []string) {
	for range 2 {
		i := 0
		for e, err := range s.Scan(t.Context(), r) {
			require.NoError(t, err)
			if i >= len(want) || e.Key != want[i] || e.Value != want[i] {
				t.Fatalf("key %d of a scan of %+v is %q with value %q", i, r, e.Key, e.Value)
			}
			i++
		}
		require.Equal(t, len(want), i)
		r.Reverse = true
		want = slices.Clone(want)
		slices.Reverse(want)
	}
}

// TestScanWhileKeysComeAndGo: the tree splits and shrinks beneath the scans, and no key that stays is missed.
func TestScanWhileKeysComeAndGo(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	var stay []string
	for i := range scaled(20_000) {
		stay = append(stay, fmt.Sprintf("%08d", i*37))
		require.NoError(t, s.Set(ctx, stay[i], "stays", kv.NoExpiry))
	}
	var stop atomic.Bool
	write := func(seed uint64) func() error {
		return func() error {
			r := rand.New(rand.NewPCG(seed, 0))
			for !stop.Load() {
				begin := r.IntN(20_000 * 37)
				for i := begin; i < begin+2000; i++ {
					if err := s.Set(ctx, fmt.Sprintf("%08d.%d", i, seed), "goes", kv.NoExpiry); err != nil {
						return err
					}
				}
				for i := begin; i < begin+2000; i++ {
					if _, err := s.Delete(ctx, fmt.Sprintf("%08d.%d", i, seed)); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	scan := func(reverse bool) func() error {
		return func() error {
			if reverse {
				defer stop.Store(true)
			}
			for range 20 {
				if err := scanStaying(s, reverse, stay); err != nil {
					return err
				}
			}
			return nil
		}
	}
	require.NoError(t, inParallel(write(1), write(2), scan(false), scan(true)))
}

// scanStaying returns an error unless a scan yields every key of stay, each once, in order.
func scanStaying(s *kv.Store, reverse bool, stay []string) error {
	last := ""
	seen := 0
	//lint:ignore SA1012 a nil ctx is promised to work
	for e, err := range s.Scan(nil, kv.Range{Reverse: reverse, KeysOnly: seen%2 == 0}) {
		if err != nil {
			return err
		}
		if last != "" && (e.Key > last) == reverse || e.Key == last {
			return fmt.Errorf("%q comes after %q", e.Key, last)
		}
		if last = e.Key; strings.Contains(e.Key, ".") {
			continue
		}
		i := seen
		if reverse {
			i = len(stay) - 1 - seen
		}
		if seen++; e.Key != stay[i] {
			return fmt.Errorf("%q comes where %q is due", e.Key, stay[i])
		}
	}
	if seen != len(stay) {
		return fmt.Errorf("%d keys of %d", seen, len(stay))
	}
	return nil
}

// TestPagesWhileKeysComeAndGo is the same for pages, whose cursor's key may be gone by the next one.
func TestPagesWhileKeysComeAndGo(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	var stay []string
	for i := range 3000 {
		stay = append(stay, fmt.Sprintf("%08d", i*10))
		require.NoError(t, s.Set(ctx, stay[i], "stays", kv.NoExpiry))
		require.NoError(t, s.Set(ctx, fmt.Sprintf("%08d.", i*10), "goes", kv.NoExpiry))
	}
	var seen []string
	cursor := ""
	for {
		entries, next, err := s.Page(ctx, kv.Range{}, cursor, 7)
		require.NoError(t, err)
		for _, e := range entries {
			if !strings.Contains(e.Key, ".") {
				seen = append(seen, e.Key)
				continue
			}
			_, err := s.Delete(ctx, e.Key)
			require.NoError(t, err)
		}
		if cursor = next; next == "" {
			break
		}
	}
	require.Equal(t, stay, seen)
}

// TestNestedScans: the body of a scan may scan, to any depth.
func TestNestedScans(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	for i := range 30 {
		require.NoError(t, s.Set(ctx, fmt.Sprintf("%02d", i), "v", kv.NoExpiry))
	}
	n := 0
	for a, err := range s.Scan(ctx, kv.Range{}) {
		require.NoError(t, err)
		for b, err := range s.Scan(ctx, kv.Range{From: a.Key, Reverse: true}) {
			require.NoError(t, err)
			for _, err := range s.Scan(ctx, kv.Range{From: a.Key, To: b.Key, KeysOnly: true}) {
				require.NoError(t, err)
				n++
			}
		}
	}
	require.Equal(t, 30*29*31/6, n)
}

func TestDeletePrefixWhileKeysCome(t *testing.T) {
	s := newStore(t, nil)
	ctx := t.Context()
	for i := range 5000 {
		require.NoError(t, s.Set(ctx, fmt.Sprintf("old:%d", i), "v", kv.NoExpiry))
	}
	var deleted int
	err := inParallel(func() (err error) {
		deleted, err = s.DeletePrefix(ctx, "old:")
		return err
	}, func() error {
		for i := range 5000 {
			if err := s.Set(ctx, fmt.Sprintf("new:%d", i), "v", kv.NoExpiry); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 5000, deleted)
	n, err := s.Count(ctx, "")
	require.NoError(t, err)
	require.Equal(t, 5000, n)
}
