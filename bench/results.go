package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// results is what a run leaves behind.
type results struct {
	Date     time.Time     `json:"date"`
	Command  string        `json:"command"`
	Took     time.Duration `json:"took"`
	Machine  machine       `json:"machine"`
	Foreign  float64       `json:"foreign"` // share of the processors that other processes used; -1: unknown
	Scale    scale         `json:"scale"`
	LeftOut  []string      `json:"leftOut"`
	Verdicts []verdict     `json:"verdicts"`
	Figures  []*figure     `json:"figures"`
}

// tooBusy is the share of the processors from which on other processes decide about the figures.
const tooBusy = 0.05

// save writes results.md, results.json and the charts into a folder.
func (r *results) save(dir string, f *figures) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	var b strings.Builder
	drawn, err := saveCharts(dir, f, r.Scale.Entries)
	if err != nil {
		return err
	}
	r.write(&b, f, drawn)
	return os.WriteFile(filepath.Join(dir, "results.md"), []byte(b.String()), 0o644)
}

// write writes the results as Markdown.
func (r *results) write(w io.Writer, f *figures, charts []chart) {
	fmt.Fprintf(w, "# kv side by side, %s\n\n", r.Date.UTC().Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(w, "Made by `%s` in bench/ (%s) on %s.\n\n", r.Command, r.Took.Round(time.Second), r.Machine)
	fmt.Fprintf(w, "%d entries with keys like `%s` (%d bytes) and values of %d bytes. Each engine ran each group of workloads in a process of its own, "+
		"engine after engine, round after round. Figures are medians; ± is half the distance between the fastest and the slowest run. "+
		"A get that misses and an entry that gets lost end a run.\n",
		r.Scale.Entries, key(1234), keyBytes, r.Scale.ValueSize)
	if r.Foreign >= 0 {
		fmt.Fprintf(w, "\nOther processes used %.0f %% of the processors meanwhile.", r.Foreign*100)
		if r.Foreign > tooBusy {
			fmt.Fprint(w, " **That is too much for these figures to be trusted:** differences may be noise, and stalls are those of the machine.")
		}
		fmt.Fprintln(w)
	}
	for _, reason := range r.LeftOut {
		fmt.Fprintf(w, "\nLeft out: %s.\n", reason)
	}
	writeVerdicts(w, r.Verdicts)
	for _, c := range charts {
		fmt.Fprintf(w, "\n![%s](%s)\n", c.title, c.file)
	}
	for _, t := range tables(f) {
		t.write(w, f)
	}
	r.writeVersions(w, f)
}

func writeVerdicts(w io.Writer, list []verdict) {
	if len(list) == 0 {
		return
	}
	met := 0
	for _, v := range list {
		if v.Met {
			met++
		}
	}
	fmt.Fprintf(w, "\n## Targets: %d of %d met\n\n| work | kv | against | result | target | |\n|---|---|---|---|---|---|\n", met, len(list))
	for _, v := range list {
		mark := "met"
		if !v.Met {
			mark = "**missed**"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", v.Work, v.Have, v.Against, v.Result, v.Limit, mark)
	}
}

func (r *results) writeVersions(w io.Writer, f *figures) {
	fmt.Fprint(w, "\n## Who took part\n\n| engine | version | |\n|---|---|---|\n")
	var listed []string
	for _, p := range slices.Concat(peers, recipePeers) {
		took := slices.ContainsFunc(f.list, func(g *figure) bool { return g.Engine == p.name })
		if !took || slices.Contains(listed, p.name) {
			continue
		}
		listed = append(listed, p.name)
		version := strings.TrimSpace(p.module + " " + r.Machine.Versions[p.module])
		fmt.Fprintf(w, "| %s | %s | %s |\n", p.name, orElse(version, r.Machine.Go), p.note)
	}
}
