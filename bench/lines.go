package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An axis maps figures to a line of the page, by their logarithm.
type axis struct{ low, high, from, to float64 }

func (a axis) at(v float64) float64 {
	if a.high == a.low {
		return a.from
	}
	return a.from + (a.to-a.from)*(math.Log(v)-math.Log(a.low))/(math.Log(a.high)-math.Log(a.low))
}

type point struct{ size, value float64 }

const lineHeight = 220.0

// lineChart draws a panel for each operation: sizes from left to right, time upwards, both logarithmic, a line for each engine.
func lineChart(f *figures, file, title, infix string, ops []string) chart {
	var b strings.Builder
	x := 0.0
	for _, op := range ops {
		series, engines := seriesOf(f, op+"-"+infix)
		if len(engines) == 0 {
			continue
		}
		drawLines(&b, x, titleHeight, op, series, engines)
		x += panelWidth + panelMargin
	}
	if b.Len() == 0 {
		return chart{}
	}
	return chart{file: file, title: title, width: 2*panelWidth + panelMargin, height: titleHeight + lineHeight + 60,
		body: fmt.Sprintf(`<text class="title" x="0" y="18">%s</text>`+"\n", html.EscapeString(title)) + b.String()}
}

// seriesOf returns the figures whose metric is prefix and a size, engine by engine.
func seriesOf(f *figures, prefix string) (map[string][]point, []string) {
	series := make(map[string][]point)
	var engines []string
	for _, g := range f.list {
		size, err := strconv.ParseFloat(strings.TrimPrefix(g.Metric, prefix), 64)
		if err != nil || !strings.HasPrefix(g.Metric, prefix) {
			continue
		}
		if series[g.Engine] == nil {
			engines = append(engines, g.Engine)
		}
		series[g.Engine] = append(series[g.Engine], point{size, g.Median})
	}
	return series, engines
}

func drawLines(b *strings.Builder, x, y float64, head string, series map[string][]point, engines []string) {
	fmt.Fprintf(b, `<text class="panel" x="%.1f" y="%.1f">%s</text>`+"\n", x, y+14, html.EscapeString(head))
	h, v := axesOf(series, x, y)
	for decade := v.low; decade <= v.high*1.001; decade *= 10 {
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, h.from, h.to, v.at(decade), v.at(decade))
		fmt.Fprintf(b, `<text class="faint" x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", h.from-6, v.at(decade)+4, duration(decade))
	}
	for _, p := range series[engines[0]] {
		fmt.Fprintf(b, `<text class="faint" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", h.at(p.size), v.from+18, sizeName(p.size))
	}
	for i, engine := range engines {
		drawLine(b, h, v, series[engine], i%4)
	}
	drawNames(b, h, v, series, engines)
}

func drawLine(b *strings.Builder, h, v axis, points []point, class int) {
	var path strings.Builder
	for i, p := range points {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", command, h.at(p.size), v.at(p.value))
		fmt.Fprintf(b, `<circle class="s%d" cx="%.1f" cy="%.1f" r="3"/>`, class, h.at(p.size), v.at(p.value))
	}
	fmt.Fprintf(b, `<path class="line s%d" d="%s"/>`+"\n", class, path.String())
}

// drawNames writes each engine's name at the end of its line, far enough from the others.
func drawNames(b *strings.Builder, h, v axis, series map[string][]point, engines []string) {
	order := slices.Clone(engines)
	last := func(engine string) float64 { return v.at(series[engine][len(series[engine])-1].value) }
	slices.SortFunc(order, func(a, b string) int { return int(last(a) - last(b)) })
	y := 0.0
	for _, engine := range order {
		y = max(y+14, last(engine)+4)
		fmt.Fprintf(b, `<text class="s%d" x="%.1f" y="%.1f">%s</text>`+"\n", slices.Index(engines, engine)%4, h.to+8, y, html.EscapeString(engine))
	}
}

// axesOf returns the axes that all points fit into; the vertical one has whole decades.
func axesOf(series map[string][]point, x, y float64) (h, v axis) {
	h = axis{math.Inf(1), 0, x + 52, x + panelWidth - 72}
	v = axis{math.Inf(1), 0, y + 30 + lineHeight, y + 30}
	for _, points := range series {
		for _, p := range points {
			h.low, h.high = min(h.low, p.size), max(h.high, p.size)
			v.low, v.high = min(v.low, p.value), max(v.high, p.value)
		}
	}
	v.low = math.Pow(10, math.Floor(math.Log10(v.low)))
	v.high = math.Pow(10, math.Ceil(math.Log10(v.high)))
	return h, v
}

// sizeName prints 10000 as 10k and 65536 as 64K.
func sizeName(v float64) string {
	n := int(v)
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	case n >= 1024 && n%1024 == 0:
		return fmt.Sprintf("%dK", n/1024)
	default:
		return fmt.Sprint(n)
	}
}

// duration prints a power of ten of nanoseconds.
func duration(ns float64) string {
	return strings.ReplaceAll(time.Duration(math.Round(ns)).String(), "µ", "u")
}
