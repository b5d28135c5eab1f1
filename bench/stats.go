package main

import (
	"cmp"
	"slices"
)

// A figure is what several children measured of one thing.
type figure struct {
	Engine string    `json:"engine"`
	Metric string    `json:"metric"`
	Unit   string    `json:"unit"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Allocs float64   `json:"allocs"` // median, per operation; -1 where it wasn't counted
	CPU    float64   `json:"cpu"`    // median processor time per operation in ns; 0 where it wasn't counted
	Runs   []float64 `json:"runs"`
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// figures collects samples, engine by engine and metric by metric, in the order in which they first came.
type figures struct {
	list  []*figure
	index map[[2]string]*figure
	alloc map[*figure][]float64
	cpu   map[*figure][]float64
}

func (f *figures) add(engine string, samples []sample) {
	if f.index == nil {
		f.index, f.alloc, f.cpu = make(map[[2]string]*figure), make(map[*figure][]float64), make(map[*figure][]float64)
	}
	for _, s := range samples {
		id := [2]string{engine, s.Metric}
		g := f.index[id]
		if g == nil {
			g = &figure{Engine: engine, Metric: s.Metric, Unit: s.Unit}
			f.index[id] = g
			f.list = append(f.list, g)
		}
		g.Runs = append(g.Runs, s.Value)
		f.alloc[g] = append(f.alloc[g], s.Allocs)
		g.Median, g.Min, g.Max = median(g.Runs), slices.Min(g.Runs), slices.Max(g.Runs)
		f.cpu[g] = append(f.cpu[g], s.CPU)
		g.Allocs, g.CPU = median(f.alloc[g]), median(f.cpu[g])
	}
}

func (f *figures) find(engine, metric string) *figure { return f.index[[2]string{engine, metric}] }

// metrics returns the names of all metrics, in the order in which they first came.
func (f *figures) metrics() []string {
	var names []string
	for _, g := range f.list {
		if !slices.Contains(names, g.Metric) {
			names = append(names, g.Metric)
		}
	}
	return names
}

// engines returns the engines that have this metric, the best first.
func (f *figures) engines(metric string) []*figure {
	var list []*figure
	for _, g := range f.list {
		if g.Metric == metric {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *figure) int { return cmp.Compare(a.Median, b.Median) })
	return list
}
