package valkeykv

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// The kinds of faults that a server has and memory does not. What operations
// return matches one of them with [errors.Is], and the cause with [errors.As]:
// a [*valkey.ValkeyError] if the server answered, else mostly a [net.Error].
var (
	// ErrUnavailable: nobody answered, or the server is loading its data, failing over or otherwise not serving now.
	ErrUnavailable = errors.New("server is unavailable")
	// ErrFull: the server is at its maxmemory and may not evict.
	ErrFull = errors.New("server is out of memory")
	// ErrReadOnly: the server is a replica.
	ErrReadOnly = errors.New("server is a read-only replica")
	// ErrDenied: wrong password, or no permission for the command or the key.
	ErrDenied = errors.New("access denied")
)

// fault is a cause with the kinds that it is of.
type fault struct {
	kinds []error
	cause error
}

func (f *fault) Error() string {
	var b strings.Builder
	for _, kind := range f.kinds {
		b.WriteString(kind.Error())
		b.WriteString(": ")
	}
	b.WriteString(f.cause.Error())
	return b.String()
}

func (f *fault) Unwrap() []error { return append(f.kinds[:len(f.kinds):len(f.kinds)], f.cause) }

// readFault returns what a read that failed with err returns.
func readFault(err error) error { return classify(err, false) }

// writeFault is readFault for a write. Unless it is certain that the server has
// not applied it, its outcome is unknown.
func writeFault(err error) error { return classify(err, true) }

func classify(err error, write bool) error {
	if err == nil {
		return nil
	}
	var answer *valkey.ValkeyError
	if errors.As(err, &answer) { // as the connection was made, or the command's own
		return answered(answer, err)
	}
	var kinds []error
	if write && !neverSent(err) {
		kinds = append(kinds, kv.ErrUnknownOutcome)
	}
	switch {
	case errors.Is(err, valkey.ErrClosing):
		kinds = append(kinds, kv.ErrClosed)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	default:
		kinds = append(kinds, ErrUnavailable)
	}
	if len(kinds) == 0 {
		return err
	}
	return &fault{kinds: kinds, cause: err}
}

// neverSent says that err is of an attempt to connect, or of none.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.Is(err, valkey.ErrNoSlot) || errors.As(err, &op) && op.Op == "dial"
}

// answers are the kinds of what servers answer, by the first word.
var answers = map[string]error{
	"KVNOTINTEGER": kv.ErrNotInteger,
	"KVOVERFLOW":   kv.ErrOverflow,
	"KVWRONGTYPE":  kv.ErrWrongType,
	"WRONGTYPE":    kv.ErrWrongType,
	"CROSSSLOT":    kv.ErrCrossSlot,
	"OOM":          ErrFull,
	"READONLY":     ErrReadOnly,
	"NOAUTH":       ErrDenied,
	"WRONGPASS":    ErrDenied,
	"NOPERM":       ErrDenied,
	"LOADING":      ErrUnavailable,
	"CLUSTERDOWN":  ErrUnavailable,
	"MASTERDOWN":   ErrUnavailable,
	"TRYAGAIN":     ErrUnavailable,
	"MOVED":        ErrUnavailable,
	"ASK":          ErrUnavailable,
	"BUSY":         ErrUnavailable,
	"MISCONF":      ErrUnavailable,
	"NOREPLICAS":   ErrUnavailable,
}

// answered returns err, whose cause is an answer of the server, with its kind.
// A server that answers with an error has applied nothing.
func answered(answer *valkey.ValkeyError, err error) error {
	word, _, _ := strings.Cut(answer.Error(), " ")
	kind := answers[word]
	if kind == nil {
		kind = integerAnswer(answer)
	}
	if kind == nil {
		return err
	}
	return &fault{kinds: []error{kind}, cause: err}
}

// integerAnswer tells the answers of INCRBY, which all begin with ERR; the client cuts that off.
func integerAnswer(answer *valkey.ValkeyError) error {
	switch text := answer.Error(); {
	case strings.Contains(text, "value is not an integer"):
		return kv.ErrNotInteger
	case strings.Contains(text, "would overflow"):
		return kv.ErrOverflow
	}
	return nil
}
