package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test program be its own child, as the runner's is.
func TestMain(m *testing.M) {
	if text := os.Getenv(jobVariable); text != "" {
		exit(runChild(text))
	}
	os.Exit(m.Run())
}

// TestEveryWorkload does all of the work of a full run in miniature, except what needs a server: each
// engine can do what is asked of it, loses nothing, and every target finds the figures that it is about.
func TestEveryWorkload(t *testing.T) {
	p := plan{scale: shortScale, runs: 1, others: 1}
	if err := p.choose(nil, nil); err != nil {
		t.Fatal(err)
	}
	f := new(figures)
	for _, j := range p.jobs {
		t.Run(j.Group+"/"+strings.ReplaceAll(j.Engine, "/", "."), func(t *testing.T) {
			samples, err := j.do()
			if err != nil {
				t.Fatal(err)
			}
			if len(samples) == 0 {
				t.Error("no figures")
			}
			for _, s := range samples {
				if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) || s.Unit == "" {
					t.Errorf("%s is %v %s", s.Metric, s.Value, s.Unit)
				}
			}
			f.add(j.Engine, samples)
		})
	}
	for _, target := range targets {
		if _, ok := target.judge(f); !ok {
			t.Errorf("nothing was measured for %q", target.work)
		}
	}
	for _, table := range tables(f) {
		for _, c := range table.columns {
			if f.find("kv", c.metric) == nil {
				t.Errorf("nothing was measured for %q in %q", c.head, table.title)
			}
		}
	}
}

// TestRunner runs children and saves what they report.
func TestRunner(t *testing.T) {
	p := plan{scale: shortScale, runs: 2, others: 1}
	if err := p.choose([]string{"kv", "xsync", "map"}, []string{"get", "memory", "growth"}); err != nil {
		t.Fatal(err)
	}
	f, err := p.run(context.Background(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for engine, runs := range map[string]int{"kv": 2, "xsync": 2, "map": 1} {
		if g := f.find(engine, "get-zipf/p2"); g == nil || len(g.Runs) != runs || g.Min > g.Median || g.Median > g.Max {
			t.Errorf("%s: %+v instead of %d runs", engine, g, runs)
		}
	}
	if f.find("kv", "insert/p1") != nil {
		t.Error("what nobody asked for was measured")
	}
	dir := t.TempDir()
	r := results{Date: time.Now(), Machine: thisMachine(), Scale: p.scale, Verdicts: judge(f), Figures: f.list}
	if err := r.save(dir, f); err != nil {
		t.Fatal(err)
	}
	checkResults(t, dir)
}

func checkResults(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "results.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## Targets", "| **kv** | ", "| Get, zipf, p2 | ", "| xsync | github.com/puzpuzpuz/xsync/v4 v", "![", "go1."} {
		if !strings.Contains(string(text), want) {
			t.Errorf("results.md has no %q", want)
		}
	}
	var back results
	if text, err = os.ReadFile(filepath.Join(dir, "results.json")); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &back); err != nil || len(back.Figures) == 0 {
		t.Errorf("results.json: %v, %d figures", err, len(back.Figures))
	}
	drawings, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(drawings) < 3 {
		t.Fatalf("%d charts, %v", len(drawings), err)
	}
	for _, name := range drawings {
		checkXML(t, name)
	}
}

func checkXML(t *testing.T, name string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := xml.NewDecoder(file)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e, ok := token.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s: %s=%q", name, a.Name.Local, a.Value)
				}
			}
		}
	}
}

// lossy is an engine that forgets one write.
type lossy struct{ mapEngine }

func (e *lossy) set(k, value string, ttl time.Duration) {
	if k != key(7) {
		e.mapEngine.set(k, value, ttl)
	}
}

// TestLoss: an engine that holds less does less work, so it gets no figures.
func TestLoss(t *testing.T) {
	b := &bench{scale: shortScale, peer: peer{name: "lossy", open: func(config) engine {
		return &lossy{mapEngine{m: make(map[string]string)}}
	}}}
	defer func() {
		if recover() == nil {
			t.Error("the loss of an entry went unnoticed")
		}
	}()
	runPoint(b)
}

// TestFailedChild: the failure of one engine costs the figures of that one, and is not forgotten.
func TestFailedChild(t *testing.T) {
	p := plan{scale: shortScale, runs: 1, others: 1}
	p.Ops = -1 // no sequence of that length can be made
	p.jobs = []job{{Engine: "map", Group: "point", Works: []string{"get"}, Scale: p.scale}}
	p.scale = shortScale
	p.jobs = append(p.jobs, job{Engine: "map", Group: "memory", Scale: p.scale})
	f, err := p.run(context.Background(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "map point") || len(p.left) != 1 {
		t.Errorf("%v, left out: %q", err, p.left)
	}
	if f.find("map", "memory") == nil {
		t.Error("the other child did not run")
	}
}

// TestUnknownNames: a misspelt name is an error, not an empty run.
func TestUnknownNames(t *testing.T) {
	p := plan{scale: shortScale, runs: 1, others: 1}
	if err := p.choose([]string{"kw"}, nil); err == nil {
		t.Error("no error for an unknown engine")
	}
	if err := p.choose(nil, []string{"gets"}); err == nil {
		t.Error("no error for an unknown workload")
	}
}

// TestRivals: the engines that a target names run as often as kv does, and exist.
func TestRivals(t *testing.T) {
	for _, target := range targets {
		if target.rival == "" {
			continue
		}
		found := slices.ContainsFunc(groups, func(g group) bool { return slices.Contains(g.rival, target.rival) })
		if !found {
			t.Errorf("%s is in the target %q, but no group's rival", target.rival, target.work)
		}
	}
	for _, g := range groups {
		for _, name := range g.rival {
			if p, err := findPeer(g.members(), name); err != nil || !g.fit(p) {
				t.Errorf("%s does not take part in %s: %v", name, g.name, err)
			}
		}
	}
}

// TestSequences: keys have the form that the results file says, and popularity follows the law that it says.
func TestSequences(t *testing.T) {
	keys := newKeys(1000)
	if unique := slices.Compact(slices.Sorted(slices.Values(keys))); len(unique) != 1000 || unique[999] != "user:00000999:session" {
		t.Errorf("%d keys up to %q", len(unique), unique[len(unique)-1])
	}
	const n, count = 1000, 1 << 17
	z := zipf(n, count, 1)
	share := make(map[string]float64)
	for i := range count {
		share[z.at(i)] += 1.0 / count
	}
	sum := 0.0
	for k := 1; k <= n; k++ {
		sum += math.Pow(float64(k), -1.01)
	}
	top := shuffled(n, 7)
	for k := 1; k <= 4; k++ {
		want := math.Pow(float64(k), -1.01) / sum
		if got := share[key(int(top[k-1]))]; math.Abs(got/want-1) > 0.05 {
			t.Errorf("the share of number %d is %.4f, not %.4f", k, got, want)
		}
	}
}

// TestHistogram: a quantile is off by less than 3.2 %, and never below the true one by more than its step.
func TestHistogram(t *testing.T) {
	var h histogram
	var all []float64
	for i := range 100_000 {
		ns := int64(i*i)%9_000_017 + int64(i%100)
		h.record(ns)
		all = append(all, float64(ns))
	}
	slices.Sort(all)
	for _, q := range []float64{0.1, 0.5, 0.99, 0.999, 0.9999} {
		want := all[int(q*float64(len(all)))]
		if got := h.quantile(q); got < want || got > want*1.032+1 {
			t.Errorf("p%g is %.0f, not %.0f", q*100, got, want)
		}
	}
	if h.quantile(1) != all[len(all)-1] {
		t.Errorf("the maximum is %.0f, not %.0f", h.quantile(1), all[len(all)-1])
	}
}

// TestPaced: a stall counts for all the calls that were due while it lasted, not for one.
func TestPaced(t *testing.T) {
	var h histogram
	const step, stall = 100 * time.Microsecond, 50 * time.Millisecond
	h.paced(1000, step, func(i int) {
		for began := time.Now(); i == 100 && time.Since(began) < stall; {
		}
	})
	if got := time.Duration(h.quantile(0.7)); got < stall/10 {
		t.Errorf("500 of 1000 calls were held up by up to %v, but 70 %% took no more than %v", stall, got)
	}
}

// TestJudge: bounds are judged in the right direction.
func TestJudge(t *testing.T) {
	f := new(figures)
	f.add("kv", []sample{{Metric: "a", Unit: "ns", Value: 50, Allocs: 1.02}, {Metric: "b", Unit: "ns", Value: 100}})
	f.add("peer", []sample{{Metric: "a", Unit: "ns", Value: 40}})
	for _, c := range []struct {
		target target
		met    bool
	}{
		{target{metric: "a", rival: "peer", limit: 1.25}, true},
		{target{metric: "a", rival: "peer", limit: 1.2}, false},
		{target{metric: "a", kind: absolute, limit: 50}, true},
		{target{metric: "a", kind: absolute, limit: 49}, false},
		{target{metric: "a", against: "b", kind: speedup, limit: 2}, true},
		{target{metric: "a", against: "b", kind: speedup, limit: 2.1}, false},
		{target{metric: "b", against: "a", kind: extra, limit: 50}, true},
		{target{metric: "b", against: "a", kind: extra, limit: 49}, false},
		{target{metric: "a", kind: allocs, limit: 1}, true},
		{target{metric: "a", kind: allocs, limit: 0}, false},
	} {
		if v, ok := c.target.judge(f); !ok || v.Met != c.met {
			t.Errorf("%+v: %+v, %v", c.target, v, ok)
		}
	}
	if _, ok := (target{metric: "a", rival: "absent"}).judge(f); ok {
		t.Error("a verdict without figures")
	}
}
