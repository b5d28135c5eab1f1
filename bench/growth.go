package main

import "fmt"

// runGrowth is the same work at several sizes of a store.
func runGrowth(b *bench) {
	for _, n := range []int{b.Entries / 100, b.Entries / 10, b.Entries, b.Entries * 10} {
		if n > b.Entries && !b.wants("growth-10x") {
			continue
		}
		at := *b
		at.Entries, at.made, at.samples = n, nil, nil
		at.timeSize(fmt.Sprintf("growth/%d", n))
		b.samples = append(b.samples, at.samples...)
	}
}

// runValues is the same work at several sizes of a value, with as many entries as fit into the same memory.
func runValues(b *bench) {
	total := 200 * b.Entries // bytes
	for _, size := range []int{16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10} {
		at := *b
		at.ValueSize, at.made, at.samples = size, nil, nil
		at.Entries = max(16, min(b.Entries, total/size))
		at.timeSize(fmt.Sprintf("values/%d", size))
		b.samples = append(b.samples, at.samples...)
	}
}

// timeSize is insert, get and overwrite of one store.
func (b *bench) timeSize(name string) {
	keys := newKeys(b.Entries)
	e := b.open(b.Entries, config{})
	b.timeInsert("insert-"+name, 1, e, keys, 0)
	keys = nil
	b.verify(e, b.Entries)
	sequences := b.sequences(1, uniform, "uniform")
	b.time("get-"+name, 1, b.Ops, getter(e, sequences))
	values := newValues(b.ValueSize)
	b.time("overwrite-"+name, 1, b.Ops, func(_, first, last int) int {
		for i := first; i < last; i++ {
			e.set(sequences[0].at(i), values.next(), 0)
		}
		return last
	})
	b.verify(e, b.Entries)
	e.close()
}
