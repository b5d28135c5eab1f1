package main

import "time"

// runPoint is a store without deadlines: insert, get, overwrite, mix and counters.
func runPoint(b *bench) {
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, config{})
	if b.wants("insert") {
		b.timeInsert("insert/p1", 1, e, keys, 0)
	} else {
		fill(e, keys, newValues(b.ValueSize), 0)
	}
	keys = nil
	b.verify(e, b.Entries)
	if b.wants("get") {
		b.timeGets("get", e)
	}
	if b.wants("mix") {
		b.timeMix(e)
	}
	if b.wants("overwrite") {
		b.timeOverwrite("overwrite", e, 0)
	}
	b.verify(e, b.Entries)
	e.close()
	if b.wants("insert") {
		b.timeInsertTogether("insert/p2", config{})
	}
	if _, ok := e.(incrementer); ok && b.wants("incr") {
		b.timeIncr()
	}
}

// timeInsert is every key once, in an order that has nothing to do with theirs. It ends when the
// store has taken them all in.
func (b *bench) timeInsert(metric string, workers int, e engine, keys []string, ttl time.Duration) {
	values := workerValues(workers, b.ValueSize)
	portion := len(keys) / workers
	b.timeFor(0, metric, workers, len(keys), func(w, first, last int) int {
		for i := w*portion + first; i < w*portion+last; i++ {
			e.set(keys[i], values[w].next(), ttl)
		}
		if last == portion {
			e.settle()
		}
		return portion
	})
}

// timeInsertTogether is the same with two goroutines and a store of their own.
func (b *bench) timeInsertTogether(metric string, c config) {
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, c)
	defer e.close()
	b.timeInsert(metric, 2, e, keys, c.ttl)
	b.verify(e, b.Entries)
}

// timeOverwrite begins with as many overwrites that don't count as there are entries: what an engine puts
// off, collecting its garbage, is not put off to after the end.
func (b *bench) timeOverwrite(metric string, e engine, ttl time.Duration) {
	keys, values := uniform(b.Entries, min(b.Ops, 1<<20), 99), newValues(b.ValueSize)
	for i := range b.Entries {
		e.set(keys.at(i), values.next(), ttl)
	}
	e.settle()
	for _, p := range perWorkers {
		keys := b.sequences(p.n, uniform, metric+"/"+p.name)
		values := workerValues(p.n, b.ValueSize)
		b.time(metric+"/"+p.name, p.n, b.Ops, func(w, first, last int) int {
			for i := first; i < last; i++ {
				e.set(keys[w].at(i), values[w].next(), ttl)
			}
			return last
		})
	}
}

// sequences returns one sequence for each worker, which are made once for all workloads that ask for the same name.
// One that writes needs a name of its own: going through the same keys in the same order again,
// it would find them in memory as the time before has left them, one behind the other.
func (b *bench) sequences(workers int, pick func(n, count int, seed uint64) sequence, name string) []sequence {
	s := make([]sequence, workers)
	for w := range s {
		id := sequenceID{name, w}
		if _, made := b.made[id]; !made {
			if b.made == nil {
				b.made = make(map[sequenceID]sequence)
			}
			b.made[id] = pick(b.Entries, min(b.Ops, 1<<20), uint64(100+len(b.made)))
		}
		s[w] = b.made[id]
	}
	return s
}

func (b *bench) timeGets(metric string, e engine) {
	for _, d := range []struct {
		name string
		pick func(n, count int, seed uint64) sequence
	}{{"uniform", uniform}, {"zipf", zipf}} {
		for _, p := range perWorkers {
			keys := b.sequences(p.n, d.pick, d.name)
			b.time(metric+"-"+d.name+"/"+p.name, p.n, b.Ops, getter(e, keys))
		}
	}
	// A value is fetched to be read: this row looks at one byte of it.
	keys := b.sequences(1, uniform, "uniform")
	b.time(metric+"-read-uniform/p1", 1, b.Ops, func(_, first, last int) (sum int) {
		for i := first; i < last; i++ {
			k := keys[0].at(i)
			value, found := e.get(k)
			mustHit(found, k)
			sum += int(value[len(value)-1])
		}
		return sum
	})
}

func getter(e engine, keys []sequence) func(w, first, last int) int {
	return func(w, first, last int) (sum int) {
		for i := first; i < last; i++ {
			k := keys[w].at(i)
			value, found := e.get(k)
			mustHit(found, k)
			sum += len(value)
		}
		return sum
	}
}

// timeMix is 90 % reads and 10 % overwrites of popular keys.
func (b *bench) timeMix(e engine) {
	for _, p := range perWorkers {
		keys := b.sequences(p.n, zipf, "mix/"+p.name)
		values := workerValues(p.n, b.ValueSize)
		b.time("mix-90-10-zipf/"+p.name, p.n, b.Ops, func(w, first, last int) (sum int) {
			for i := first; i < last; i++ {
				k := keys[w].at(i)
				if i%10 == 9 {
					e.set(k, values[w].next(), 0)
					continue
				}
				value, found := e.get(k)
				mustHit(found, k)
				sum += len(value)
			}
			return sum
		})
	}
}

func workerValues(workers, size int) []*valueMaker {
	v := make([]*valueMaker, workers)
	for w := range v {
		v[w] = newValues(size)
	}
	return v
}

// timeIncr is one counter that everybody hits, and 100,000 of them.
func (b *bench) timeIncr() {
	many := min(b.Entries, 100_000)
	for _, d := range []struct {
		name string
		keys int
	}{{"hot", 1}, {"100k", many}} {
		for _, p := range perWorkers {
			e := b.open(d.keys, config{})
			counter := e.(incrementer)
			keys := make([]sequence, p.n)
			for w := range keys {
				keys[w] = uniform(d.keys, 1<<17, uint64(100+w))
			}
			b.time("incr-"+d.name+"/"+p.name, p.n, b.Ops, func(w, first, last int) (sum int) {
				for i := first; i < last; i++ {
					sum += int(counter.incr(keys[w].at(i), 1))
				}
				return sum
			})
			e.close()
		}
	}
}
