package kv

// CheckInvariants returns an error unless the parts of the engine of s, one in
// memory that nobody uses meanwhile, tell the same story.
func CheckInvariants(s *Store) error { return s.engine.(*memory).check() }
