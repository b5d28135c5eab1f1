package main

import "time"

const (
	sessionTTL = time.Hour
	lockTTL    = 30 * time.Second
)

// runTTL is a store whose entries all have a deadline: sessions, and locks that come and go between them.
func runTTL(b *bench) {
	c := config{ttl: sessionTTL}
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, c)
	if b.wants("insert-ttl") {
		b.timeInsert("insert-ttl/p1", 1, e, keys, sessionTTL)
	} else {
		fill(e, keys, newValues(b.ValueSize), sessionTTL)
	}
	keys = nil
	b.verify(e, b.Entries)
	if b.wants("get-ttl") {
		b.timeGets("get-ttl", e)
	}
	if b.wants("expire") {
		if x, ok := e.(expirer); ok {
			b.timeExpire(x)
		}
		b.timeOverwrite("overwrite-ttl", e, sessionTTL)
	}
	b.verify(e, b.Entries)
	if b.wants("lock") {
		b.timeLocks(e)
	}
	e.close()
	if b.wants("insert-ttl") {
		b.timeInsertTogether("insert-ttl/p2", c)
	}
}

// timeExpire is a session that slides on every request. The deadline always moves ahead.
func (b *bench) timeExpire(e expirer) {
	for _, p := range perWorkers {
		keys := b.sequences(p.n, uniform, "uniform")
		b.time("expire/"+p.name, p.n, b.Ops, func(w, first, last int) int {
			for i := first; i < last; i++ {
				e.expire(keys[w].at(i), sessionTTL+time.Duration(i))
			}
			return last
		})
	}
}

// timeLocks is a key that is set with a deadline and deleted at once, always another one, between all the others.
func (b *bench) timeLocks(e engine) {
	for _, p := range perWorkers {
		keys := make([][]string, p.n)
		for w := range keys {
			keys[w] = lockKeys(min(b.Ops, 1<<18), w)
		}
		values := workerValues(p.n, b.ValueSize)
		b.time("set-delete/"+p.name, p.n, b.Ops, func(w, first, last int) int {
			for i := first; i < last; i++ {
				k := keys[w][i%len(keys[w])]
				e.set(k, values[w].next(), lockTTL)
				e.delete(k)
			}
			return last
		})
	}
}

func lockKeys(n, worker int) []string {
	keys := make([]string, n)
	for i, k := range shuffled(n, uint64(worker)) {
		keys[i] = "lock:" + key(int(k)+worker*n)
	}
	return keys
}
