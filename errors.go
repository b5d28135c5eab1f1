package kv

import (
	"errors"
	"fmt"
)

// The errors of the package. They are sentinels for [errors.Is]; what methods
// return wraps them in an [*Error] that names the operation and the key.
var (
	ErrNotFound        = errors.New("not found")
	ErrClosed          = errors.New("store is closed")
	ErrInvalidKey      = errors.New("invalid key: empty, too long, \".\" or \"..\"")
	ErrInvalidTTL      = errors.New("invalid ttl: neither positive nor NoExpiry nor KeepTTL")
	ErrInvalidMetadata = errors.New("invalid metadata: not JSON")
	ErrTooLarge        = errors.New("too large")
	ErrNotInteger      = errors.New("value is not a base-10 int64")
	ErrOverflow        = errors.New("int64 overflow")
	ErrWrongType       = errors.New("value is not of the kind that the operation works on")
	ErrCursor          = errors.New("invalid cursor")
	ErrLagged          = errors.New("watcher fell behind and was closed")
	ErrUnsupported     = errors.New("not supported by this engine")
	ErrCrossSlot       = errors.New("keys of one transaction lie in different hash slots")
	ErrUnknownOutcome  = errors.New("outcome of the write is unknown")

	ErrLocked       = errors.New("locked by another holder")
	ErrLockLost     = errors.New("lock lost")
	ErrInvalidLimit = errors.New("invalid limit")
	ErrCost         = errors.New("cost is below 1 or over the limit's capacity")
	ErrInProgress   = errors.New("the same work is in progress")
	ErrMismatch     = errors.New("key was used before with another fingerprint")
	ErrInvalidFlag  = errors.New("invalid flag value: want \"on\", \"off\" or a percentage with up to three decimals")
)

// Error says which operation failed on which key. Match its cause with
// [errors.Is] and [errors.As].
type Error struct {
	Op  string // the method in lower case, "set"
	Key string // as the caller gave it, without the prefix of a namespace; "" if the error is not about one key
	Err error
}

// Error names the operation and the key, quoted and cut at 64 bytes. It never
// contains a value.
func (e *Error) Error() string {
	if e.Key == "" {
		return "kv: " + e.Op + ": " + e.Err.Error()
	}
	return "kv: " + e.Op + " " + quoteKey(e.Key) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

const maxKeyInError = 64

func quoteKey(key string) string {
	if len(key) > maxKeyInError {
		return fmt.Sprintf("%q...", key[:maxKeyInError])
	}
	return fmt.Sprintf("%q", key)
}

// wrap returns err as an *Error of op on key, and nil as nil.
func wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Key: key, Err: err}
}
