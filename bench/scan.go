package main

import "time"

// runScan is the keys in order: right after many of them were inserted, and later.
func runScan(b *bench) {
	if b.wants("scan-first") {
		b.timeFirst()
	}
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, config{})
	defer e.close()
	fill(e, keys, newValues(b.ValueSize), 0)
	keys = nil
	s := e.(scanner)
	b.mustScan(s) // what is put off until the first scan is the row "scan-first"
	for _, u := range []struct {
		suffix string
		use    func(key, value string) int
	}{{"", measure}, {"-read", read}} {
		if b.wants("scan-100") {
			b.timeScan100("scan-100"+u.suffix+"/p1", s, u.use)
		}
		if b.wants("scan-all") {
			b.timeScanAll("scan-all"+u.suffix, s, u.use)
		}
	}
}

func (b *bench) mustScan(s scanner) {
	n, last := 0, ""
	s.scan("", -1, func(key, _ string) {
		if key <= last {
			panic("out of order: " + last + " before " + key)
		}
		n, last = n+1, key
	})
	if n != b.Entries {
		panic("a scan is not complete")
	}
}

// timeFirst is how long the first entry takes when nothing has been scanned before.
func (b *bench) timeFirst() {
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, config{})
	defer e.close()
	values := newValues(b.ValueSize)
	settleMemory()
	fill(e, keys, values, 0)
	began := time.Now()
	e.(scanner).scan("", 1, func(key, value string) { sink.Add(int64(len(key) + len(value))) })
	b.report("scan-first", "ms", time.Since(began).Seconds()*1e3)
}

// measure looks at an entry as little as one can: a store may never touch the bytes of keys and values.
func measure(key, value string) int { return len(key) + len(value) }

// read looks at the last byte of both, as whoever does anything with an entry does.
func read(key, value string) int { return int(key[len(key)-1]) + int(value[len(value)-1]) }

func (b *bench) timeScan100(metric string, s scanner, use func(key, value string) int) {
	starts := b.sequences(1, uniform, "uniform")
	b.time(metric, 1, max(b.Ops/20, 100), func(_, first, last int) (sum int) {
		for i := first; i < last; i++ {
			s.scan(starts[0].at(i), 100, func(key, value string) { sum += use(key, value) })
		}
		return sum
	})
}

// timeScanAll is the median of several whole scans.
func (b *bench) timeScanAll(metric string, s scanner, use func(key, value string) int) {
	settleMemory()
	var times []float64
	for range 5 {
		sum := 0
		began := time.Now()
		s.scan("", -1, func(key, value string) { sum += use(key, value) })
		times = append(times, time.Since(began).Seconds()*1e3)
		sink.Add(int64(sum))
	}
	b.report(metric, "ms", median(times))
}
