package valkeykv

import (
	"errors"
	"fmt"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

// errReplicas refuses options that read from replicas.
var errReplicas = fmt.Errorf("%w: replicas lag behind, so reads from them are not linearizable", kv.ErrUnsupported)

// Open connects to the server, sentinels or cluster that option names and returns a
// store on it. The store owns its connections: Close closes them. opts may be nil.
//
// option is complete: addresses, user, password, TLS, sentinels, timeouts. Open changes two things in its
// copy. Client-side caching is off, because a store never reads from it. And where option.RetryDelay
// is nil, what only reads is repeated after a network error for about three seconds and not, as
// the client would, for ever; ctx ends it before. Writes are never repeated.
// Options that read from replicas are [kv.ErrUnsupported].
func Open(option valkey.ClientOption, opts *kv.Options) (*kv.Store, error) {
	if option.SendToReplicas != nil || option.ReplicaOnly {
		return nil, errReplicas
	}
	option.DisableCache = true
	if option.RetryDelay == nil {
		option.RetryDelay = retryDelay
	}
	client, err := valkey.NewClient(option)
	if err != nil {
		if client != nil { // ForceSingleClient gives one that will try again
			client.Close()
		}
		return nil, fmt.Errorf("valkeykv: open: %w", readFault(err))
	}
	return kv.NewWithEngine(newEngine(client, true), opts), nil
}

// retryDelay waits 1, 2, 4 ... 512 ms, then 512 ms, and gives up after 13 attempts: 3 s in all.
func retryDelay(attempts int, _ valkey.Completed, _ error) time.Duration {
	const most, exponent = 13, 9
	if attempts > most {
		return -1
	}
	return time.Millisecond << min(attempts-1, exponent)
}

// New returns a store on a client that the program has already. Closing the
// store does not close client; close the store first. opts may be nil.
//
// [kv.Store.Watch], and with it whatever waits for a change, takes a connection of its own to each master out of client's
// pool for blocking commands (ClientOption.BlockingPoolSize) and holds it until the store is closed. That
// connection must speak RESP3 (ClientOption.AlwaysRESP2 must be off), and its user must be allowed what the package's documentation
// lists under Watch.
//
// client must not read from replicas: ClientOption.SendToReplicas and ReplicaOnly
// unset, which New can't see. How long it repeats reads on a broken network is up to its options.
func New(client valkey.Client, opts *kv.Options) (*kv.Store, error) {
	if client == nil {
		return nil, errors.New("valkeykv: new: no client")
	}
	return kv.NewWithEngine(newEngine(client, false), opts), nil
}
