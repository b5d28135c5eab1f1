package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// A chart is one SVG file. It has no background, and colours for a dark page as well as a light one.
type chart struct {
	file, title string
	body        string
	width       float64
	height      float64
}

const chartStyle = `<style>
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.panel { font-weight: 600; }
.faint { fill: #59636e; }
.own { font-weight: 600; }
.bar { fill: #afb8c1; } .bar.own { fill: #0969da; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.line { fill: none; stroke-width: 2; }
.s0 { stroke: #0969da; fill: #0969da; } .s1 { stroke: #bc4c00; fill: #bc4c00; } .s2 { stroke: #1a7f37; fill: #1a7f37; } .s3 { stroke: #8250df; fill: #8250df; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .faint { fill: #9198a1; } .bar { fill: #656c76; } .bar.own { fill: #4493f8; } .grid { stroke: #3d444d; }
.s0 { stroke: #4493f8; fill: #4493f8; } .s1 { stroke: #db6d28; fill: #db6d28; } .s2 { stroke: #3fb950; fill: #3fb950; } .s3 { stroke: #ab7df8; fill: #ab7df8; }
}
path.line { fill: none; }
text.s0, text.s1, text.s2, text.s3 { stroke: none; }
</style>
`

func (c chart) save(dir string) error {
	text := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`+"\n<title>%s</title>\n%s%s</svg>\n",
		c.width, c.height, c.width, c.height, html.EscapeString(c.title), chartStyle, c.body)
	return os.WriteFile(filepath.Join(dir, c.file), []byte(text), 0o644)
}

// saveCharts draws every chart for which there are figures.
func saveCharts(dir string, f *figures, entries int) ([]chart, error) {
	var drawn []chart
	for _, c := range charts(f, float64(entries)) {
		if c.body == "" {
			continue
		}
		if err := c.save(dir); err != nil {
			return nil, err
		}
		drawn = append(drawn, c)
	}
	return drawn, nil
}

func charts(f *figures, entries float64) []chart {
	return []chart{
		barChart(f, "operations.svg", "Time per operation, "+thousands(entries)+" entries", []column{
			{"Get, two goroutines, ns", "get-uniform/p2"}, {"90 % Get, 10 % Set, two goroutines, ns", "mix-90-10-zipf/p2"},
			{"overwrite, two goroutines, ns", "overwrite/p2"}, {"insert, ns", "insert/p1"}}),
		barChart(f, "memory.svg", "What entries cost, keys of 21 bytes", []column{
			{"bytes of heap per entry", "memory"}, {"garbage collection of " + thousands(5*entries) + " entries, ms", "gc-5x"}}),
		barChart(f, "expiry.svg", thousands(entries)+" keys due within one second", []column{
			{"longest stall of a reader, ms", "expiry-stall"}, {"empty after the last deadline, s", "expiry-empty"}}),
		barChart(f, "stalls.svg", "The slowest calls at 100,000 reads and 100,000 writes a second", []column{
			{"read, p99.99, us", "stall-read-p99.99"}, {"write, p99.99, us", "stall-write-p99.99"}}),
		lineChart(f, "growth.svg", "Time per operation, by entries", "growth/", []string{"get", "overwrite"}),
		lineChart(f, "values.svg", "Time per operation, by bytes of the value", "values/", []string{"get", "overwrite"}),
	}
}

const (
	barHeight   = 18.0
	labelWidth  = 80.0
	panelWidth  = 360.0
	panelMargin = 28.0
	titleHeight = 34.0
)

// barChart draws a panel of bars for each metric, two in a row, the best on top.
func barChart(f *figures, file, title string, panels []column) chart {
	var b strings.Builder
	y, rowHeight, x := titleHeight, 0.0, 0.0
	for _, p := range panels {
		list := f.engines(p.metric)
		if len(list) == 0 {
			continue
		}
		if x > panelWidth+panelMargin {
			x, y, rowHeight = 0, y+rowHeight, 0
		}
		rowHeight = max(rowHeight, drawBars(&b, x, y, p.head, list))
		x += panelWidth + panelMargin
	}
	if b.Len() == 0 {
		return chart{}
	}
	return chart{file: file, title: title, width: 2*panelWidth + panelMargin, height: y + rowHeight,
		body: fmt.Sprintf(`<text class="title" x="0" y="18">%s</text>`+"\n", html.EscapeString(title)) + b.String()}
}

// drawBars draws one panel and returns its height.
func drawBars(b *strings.Builder, x, y float64, head string, list []*figure) float64 {
	fmt.Fprintf(b, `<text class="panel" x="%.1f" y="%.1f">%s</text>`+"\n", x, y+14, html.EscapeString(head))
	longest := panelWidth - labelWidth - 60
	for i, g := range list {
		top := y + 24 + float64(i)*(barHeight+3)
		class := ""
		if g.Engine == "kv" {
			class = " own"
		}
		length := max(1.5, longest*max(g.Median, 0)/list[len(list)-1].Median)
		fmt.Fprintf(b, `<text class="label%s" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, class, x+labelWidth-6, top+13, html.EscapeString(g.Engine))
		fmt.Fprintf(b, `<rect class="bar%s" x="%.1f" y="%.1f" width="%.1f" height="%.0f" rx="2"/>`, class, x+labelWidth, top, length, barHeight)
		fmt.Fprintf(b, `<text class="faint%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x+labelWidth+length+5, top+13, thousands(g.Median))
	}
	return 24 + float64(len(list))*(barHeight+3) + 20
}

// thousands prints three digits or, of a large figure, all of them, in groups.
func thousands(v float64) string {
	if v < 1000 {
		return short(v)
	}
	n := int64(math.Round(v))
	text := ""
	for ; n >= 1000; n /= 1000 {
		text = fmt.Sprintf(",%03d%s", n%1000, text)
	}
	return fmt.Sprint(n) + text
}
