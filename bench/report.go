package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// printFigures prints every figure, for whoever works on one of them.
func printFigures(w io.Writer, f *figures) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "metric\tengine\tmedian\tmin\tmax\tunit\tcpu ns\tallocs\truns\t")
	for _, m := range f.metrics() {
		for _, g := range f.engines(m) {
			allocs, cpu := "", ""
			if g.Allocs >= 0 {
				allocs, cpu = fmt.Sprintf("%.2f", g.Allocs), short(g.CPU)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n", m, g.Engine, short(g.Median), short(g.Min), short(g.Max), g.Unit, cpu, allocs, len(g.Runs))
		}
	}
	t.Flush()
}

// short prints three digits.
func short(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
