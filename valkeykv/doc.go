// Package valkeykv puts a [kv.Store] on Valkey or Redis 7.0 and newer: one
// server, a server behind sentinels, or a cluster. The primitives and the recipes of
// package kv are the same on it as in memory, and hold between processes:
//
//	store, err := valkeykv.Open(valkey.ClientOption{InitAddress: []string{"localhost:6379"}}, nil)
//
// Use [Open] unless the program has a client already, and [New] if it has.
//
// # What is stored
//
// A value without metadata is stored as it is: GET of any other client returns it, and
// what others SET reads as it is. A value with metadata is stored in an envelope:
//
//	16 bytes  00 6b 76 31 00 e3 8d 1f b6 02 94 d9 7c a5 48 f1
//	 8 bytes  size of the metadata, in lower-case hexadecimal digits
//	          the metadata
//	          the value
//
// So metadata and value change together, in one key, in one step. A value that begins with these 16 bytes
// could be taken for an envelope: stored here, it is put into one without metadata
// (size 00000000) and comes back byte for byte. What another program stored reads as an
// envelope exactly if it is a complete one, and else as it is; nobody writes one by chance.
// Deadlines are the server's own (PEXPIREAT), states of rate limits the text that [kv.Quota.Take] defines.
//
// # One step, one round trip
//
// Each method on one key is one command or one script, and one round trip: GET, SET, GETDEL, GETEX, INCRBY,
// PEXPIRE, PTTL, DEL where they do what the contract says, else a Lua script by EVALSHA, which
// is sent whole when a server answers NOSCRIPT. Integers stay text in scripts, because the numbers of Lua
// are doubles. Two cases take a second round trip: a script that the server sees for the first
// time, and Incr without a ttl on a counter that has metadata, which INCRBY refuses.
//
// A Batch is one pipeline for each node. A Txn is one script, which tries all operations on
// a copy before it runs the first; on a cluster its keys have to share a slot ([kv.ErrCrossSlot]
// before anything is sent otherwise). Give them a hash tag: store.Namespace("{orders}") puts all it
// holds into one slot. [kv.Key] escapes braces, so user input chooses no slot.
//
// # Time
//
// Everything that counts time is counted by the server that holds the key, in milliseconds; a
// ttl is rounded up to one. The server keeps a key through the whole of the millisecond
// that its deadline names. [kv.Store.Now] is therefore the server's TIME less one millisecond: by that clock
// no key is live at or after its deadline, and the contract holds to the letter. On a cluster it is the clock of the node with
// slot 0, and as good as the nodes' clocks agree. Deadlines after the year 9999 are cut to that.
//
// # Scans
//
// Scan walks the masters one after the other with SCAN and remembers the keys that it has
// passed on (their memory is the price of "no key twice"); it reads values in answers of about 1 MiB. When slots have moved from
// master to master meanwhile, or another server has taken a master's place, it walks all again. A key may be missed only
// if it is on its way from node to node at that very time. Keys that are no strings are
// skipped. The cursor of a Page names the part of the slots, the process that made it and that
// one's SCAN cursor: it survives a restart of the client; after one of the server, or a failover,
// the pages of that node begin again, and after slots have moved, all pages do.
//
// # Watch
//
// The server pushes changes as keyspace notifications. The first Watch connects to every master, turns on the classes
// "Kg$xe" of notify-keyspace-events in addition to those that are on (CONFIG SET; they stay on), and
// all watches of the store share these connections until it is closed. A write that is undone before its
// entry could be read gives an EventPut with the key alone and an ExpiresAt that has passed (1970), and
// the delete or expiry after it. An eviction is an EventDelete, a rename one delete and one put.
// An expiry comes when the server notices it, which can be late: whoever waits for one also keeps a timer.
//
// Whatever may have cost an event ends the watches with [kv.ErrLagged]: a lost connection, a node that does not answer for three seconds,
// FLUSHALL and FLUSHDB, a failover, slots that move, notifications that somebody turned off. Of the last three
// servers tell nobody, so every node is asked once a second whether it is what it was: what such a change cost is
// reported within that second.
//
// Watch needs RESP3 and a user who may run PSUBSCRIBE on __keyspace@*, CLIENT INFO, CLIENT TRACKING and
// ROLE (on a cluster CLUSTER NODES); CONFIG GET, and CONFIG SET unless the classes are on. Hosted servers
// mostly forbid CONFIG: set notify-keyspace-events by their means then. Watch finds out by a trial, with a key "kv:probe:..." that it
// writes and deletes, and returns an error that says what to set if nothing is told.
//
// # Faults
//
// What fails because of the server matches [ErrUnavailable], [ErrFull], [ErrReadOnly], [ErrDenied] or
// [kv.ErrWrongType], and its cause with [errors.As]: a [*valkey.ValkeyError] or [net.Error]. Calls return
// when their context ends, whatever the server does. Without a deadline a silent server costs
// ClientOption.ConnWriteTimeout, 10 seconds.
//
// Reads are repeated after network errors. Writes never are: one whose answer was lost returns [kv.ErrUnknownOutcome],
// and the caller decides. Set, Put, Delete and Expire can be repeated by whoever may overwrite
// what came between. Incr can't: it may have counted. After SetNX and CompareAndSwap with a value that nobody else writes, a
// random token say, one looks: if the key has it, it was stored. That is what locks and
// idempotency claims do; and if they can't even look, their ttl ends what may have been stored.
//
// A failover loses what the old master had acknowledged but not yet sent to its replica: replication is
// asynchronous. A lock, a claim or a count among it is then as if never taken, and two holders of one
// lock are possible; only the fencing token, checked where the work is done, and only if its counter was not lost as well, tells them apart. The same goes for a
// server without appendfsync always that crashes, and for keys that maxmemory-policy evicts: use noeviction.
package valkeykv
