package kv

import "context"

// CheckInvariants returns an error unless the parts of the engine of s, one in
// memory that nobody uses meanwhile, tell the same story.
func CheckInvariants(s *Store) error { return s.engine.(*memory).check() }

// Take is what the rate limiters use.
func Take(ctx context.Context, s *Store, key string, q Quota, n int64, dry bool) (Usage, error) {
	return s.take(ctx, key, q, n, dry)
}
