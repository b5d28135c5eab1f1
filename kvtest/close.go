package kvtest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kvrecipes/kv"
)

var closeCases = []testCase{
	{
		name:     "Close",
		contract: "Close: idempotent, concurrent, waits for its goroutines; afterwards ErrClosed.",
		run: func(e *env) {
			e.set("key", "7", time.Hour)
			e.parallel(16, func(int) error { return e.root.Close() })
			e.NoError(e.root.Close())
			for _, s := range []*kv.Store{e.store, e.root, e.store.Namespace("app")} {
				for _, m := range slices.Concat(keyMethods, otherMethods) {
					err := m.call(e.ctx, s, "key")
					e.ErrorIs(err, kv.ErrClosed, m.name)
					e.Contains(err.Error(), m.name)
				}
			}
			e.Equal(kv.Stats{}, e.root.Stats())
		},
	},
	{
		name:     "Close/scan",
		contract: "Close: running scans end with ErrClosed.",
		run: func(e *env) {
			e.fill("key", 3000)
			n, last := 0, error(nil)
			for _, err := range e.store.Scan(e.ctx, kv.Range{}) {
				e.NoError(last, "an entry after the error")
				if last = err; err == nil {
					e.LessOrEqual(n, 1, "the scan goes on although the store is closed")
				}
				if n++; n == 1 {
					e.NoError(e.root.Close())
				}
			}
			e.ErrorIs(last, kv.ErrClosed)
		},
	},
	{
		name:     "Close/update",
		contract: "Close: afterwards ErrClosed.",
		run: func(e *env) {
			_, err := e.store.Update(e.ctx, "key", 0, func(string, bool) (string, error) {
				return "v", e.root.Close()
			})
			e.ErrorIs(err, kv.ErrClosed)
		},
	},
	{
		name:     "Close/under way",
		contract: "Close: idempotent, concurrent, waits for its goroutines; afterwards ErrClosed.",
		run: func(e *env) {
			e.fill("key", 500)
			writing := make(chan struct{})
			var once sync.Once
			e.parallel(9, func(i int) error {
				if i == 8 {
					<-writing
					return e.root.Close()
				}
				for n := 0; ; n++ {
					m := keyMethods[(n+i)%len(keyMethods)]
					if n%len(keyMethods) == 0 {
						m = otherMethods[(n+i)%len(otherMethods)]
					}
					if err := ignoreMiss(m.call(e.ctx, e.store, fmt.Sprint(n%100))); err != nil {
						return ignoreClosed(err)
					}
					if n == 100 {
						once.Do(func() { close(writing) })
					}
				}
			})
			_, err := e.store.Get(e.ctx, "key0000")
			e.ErrorIs(err, kv.ErrClosed)
		},
	},
}
