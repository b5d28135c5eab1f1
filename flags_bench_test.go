package kv_test

import (
	"fmt"
	"testing"

	"github.com/kvrecipes/kv"
)

// benchFlags returns 10,000 flags at 30 %.
func benchFlags(b *testing.B) (*kv.Flags, []string) {
	s := kv.New(nil)
	b.Cleanup(func() { _ = s.Close() })
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("team-%d-flag-%d", i%17, i)
		if err := s.Set(b.Context(), kv.Key("feature", names[i]), "30", kv.NoExpiry); err != nil {
			b.Fatal(err)
		}
	}
	f, err := kv.NewFlags(s, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	return f, names
}

func BenchmarkFlagsEnabled(b *testing.B) {
	f, names := benchFlags(b)
	for _, unit := range []string{"user-42", "6f9619ff-8b86-d011-b42d-00c04fc964ff"} {
		b.Run(fmt.Sprintf("one-flag/unit-of-%d", len(unit)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Enabled(names[0], unit)
			}
		})
		b.Run(fmt.Sprintf("10000-flags/unit-of-%d", len(unit)), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				f.Enabled(names[i], unit)
				if i++; i == len(names) {
					i = 0
				}
			}
		})
	}
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f.Enabled("unknown", "user-42")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				f.Enabled(names[0], "user-42")
			}
		})
	})
}

// BenchmarkFlagsSet is a change among 10,000 flags, until Enabled knows it.
func BenchmarkFlagsSet(b *testing.B) {
	f, names := benchFlags(b)
	i := 0
	for b.Loop() {
		if err := f.Set(b.Context(), names[i%len(names)], []string{"on", "30"}[i%2]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkFlagsStart is a process's start with 10,000 flags in the store.
func BenchmarkFlagsStart(b *testing.B) {
	s := kv.New(nil)
	defer s.Close()
	for i := range 10_000 {
		if err := s.Set(b.Context(), fmt.Sprint("feature:flag-", i), "30", kv.NoExpiry); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		f, err := kv.NewFlags(s, nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}
