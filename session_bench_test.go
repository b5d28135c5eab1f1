package kv_test

import (
	"testing"
	"time"

	"github.com/kvrecipes/kv"
)

// benchSessions returns sessions among 100,000 others, and the id of one of them.
func benchSessions(b *testing.B, maxAge time.Duration) (*kv.Sessions[login], string) {
	s := kv.New(nil)
	b.Cleanup(func() { _ = s.Close() })
	m := kv.NewSessions(s, &kv.SessionOptions[login]{MaxAge: maxAge})
	others := 100_000
	if testing.Short() {
		others = 100
	}
	var id string
	for range others {
		id = createSession(b, m)
	}
	b.ReportAllocs()
	b.ResetTimer()
	return m, id
}

func createSession(b *testing.B, m *kv.Sessions[login]) string {
	id, err := m.Create(b.Context(), login{User: "ada"})
	if err != nil {
		b.Fatal(err)
	}
	return id
}

func BenchmarkSessionCreate(b *testing.B) {
	m, _ := benchSessions(b, 0)
	for b.Loop() {
		createSession(b, m)
	}
}

func BenchmarkSessionGet(b *testing.B) {
	for name, maxAge := range map[string]time.Duration{"idle": 0, "maxage": time.Hour} {
		b.Run(name, func(b *testing.B) {
			m, id := benchSessions(b, maxAge)
			for b.Loop() {
				if _, err := m.Get(b.Context(), id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSessionMiss(b *testing.B) {
	m, id := benchSessions(b, 0)
	unknown := id[1:] + id[:1]
	for b.Loop() {
		if _, err := m.Get(b.Context(), unknown); err == nil {
			b.Fatal("found")
		}
	}
}

func BenchmarkSessionUpdate(b *testing.B) {
	for name, maxAge := range map[string]time.Duration{"idle": 0, "maxage": time.Hour} {
		b.Run(name, func(b *testing.B) {
			m, id := benchSessions(b, maxAge)
			for b.Loop() {
				if _, err := m.Update(b.Context(), id, visit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSessionRotate(b *testing.B) {
	m, id := benchSessions(b, 0)
	for b.Loop() {
		var err error
		if id, err = m.Rotate(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}
