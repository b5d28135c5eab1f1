package kv

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGuardedGetLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(nil)
		defer func() { _ = s.Close() }()
		count := func() int {
			shared.mu.Lock()
			defer shared.mu.Unlock()
			return len(shared.places)
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				ns := s.Namespace(string(rune('a' + i%4)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Second)
				defer cancel()
				_, _ = GuardedGet(ctx, ns, "key", time.Hour, func(context.Context) (string, error) {
					time.Sleep(10 * time.Second)
					return "", errors.New("failed")
				})
			})
		}
		synctest.Wait()
		require.Equal(t, 4, count())
		wg.Wait()
		require.Zero(t, count())
	})
}
