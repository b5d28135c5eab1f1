package kv

import (
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// NoExpiry as a ttl: the key has no deadline.
	NoExpiry time.Duration = 0
	// KeepTTL as a ttl: the key keeps the deadline that it has. A key that is created gets none.
	KeepTTL time.Duration = -1
)

// Options of a [Store]. The zero value of each field is its default.
type Options struct {
	Shards           int           // parallelism of writers of the in-memory engine, rounded up to a power of two; 0: chosen from GOMAXPROCS
	MaxKeyBytes      int           // longest key, its namespace included; 0: 512
	MaxValueBytes    int           // longest value; 0: 25 MiB
	MaxMetadataBytes int           // longest metadata; 0: 1024
	MaxBatch         int           // most keys or operations of one call; 0: 10,000
	ReapInterval     time.Duration // how late memory of expired keys may be reclaimed; 0: 100 ms
}

// The limits that apply where [Options] has zero.
const (
	DefaultMaxKeyBytes      = 512
	DefaultMaxValueBytes    = 25 << 20
	DefaultMaxMetadataBytes = 1024
	DefaultMaxBatch         = 10_000
	DefaultReapInterval     = 100 * time.Millisecond
)

// withDefaults returns a copy of o, which may be nil, with every field set but Shards.
func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	setDefault(&d.MaxKeyBytes, DefaultMaxKeyBytes)
	setDefault(&d.MaxValueBytes, DefaultMaxValueBytes)
	setDefault(&d.MaxMetadataBytes, DefaultMaxMetadataBytes)
	setDefault(&d.MaxBatch, DefaultMaxBatch)
	setDefault(&d.ReapInterval, DefaultReapInterval)
	return d
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Entry is a key with all that a [Store] keeps of it.
type Entry struct {
	Key, Value string
	Metadata   string    // JSON; "" for none
	ExpiresAt  time.Time // wall-clock time of the deadline; zero: no deadline
}

// Range selects keys for [Store.Scan] and [Store.Page]. The zero Range is all keys.
type Range struct {
	Prefix   string
	From, To string // whole keys: From <= key < To in byte order, within Prefix; "" is open
	Reverse  bool   // from the last key to the first
	KeysOnly bool   // entries come without value and metadata
}

// Stats are counts of a whole store, all its namespaces together.
type Stats struct {
	Keys    int64 // including expired ones whose memory is not reclaimed yet
	Bytes   int64 // of keys, values and metadata
	Expired int64 // total of keys that expired and were reclaimed, by whomever
}

// Key joins parts to a key, with ":" between them:
//
//	Key("session", id) // "session:" + id
//
// It escapes "%", ":" and "{" in the parts as "%25", "%3A" and "%7B", so that
// different parts never make the same key and no part chooses a hash slot of a
// cluster. One or more parts always make a valid key, length aside: Key("") is
// "%", Key(".") is "%2E" and Key("..") is "%2E.".
func Key(parts ...string) string {
	if len(parts) == 1 {
		switch parts[0] {
		case "":
			return "%"
		case ".":
			return "%2E"
		case "..":
			return "%2E."
		}
	}
	if !slices.ContainsFunc(parts, needsEscape) {
		return strings.Join(parts, ":")
	}
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = keyEscaper.Replace(part)
	}
	return strings.Join(escaped, ":")
}

var keyEscaper = strings.NewReplacer("%", "%25", ":", "%3A", "{", "%7B")

// needsEscape does not ask [strings.ContainsAny], which takes longer than the whole rest of [Key].
func needsEscape(part string) bool {
	for i := range len(part) {
		if c := part[i]; c == '%' || c == ':' || c == '{' {
			return true
		}
	}
	return false
}

// keyIn is Key(prefix, part) for the "<prefix>:" that Key(prefix, "") returns, in one allocation.
func keyIn(prefix, part string) string {
	if needsEscape(part) {
		part = keyEscaper.Replace(part)
	}
	return prefix + part
}

// addTTL returns now + ttl, which saturates instead of overflowing.
func addTTL(now int64, ttl time.Duration) int64 {
	if int64(ttl) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(ttl)
}
