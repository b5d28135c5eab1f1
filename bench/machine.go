package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
)

// A machine is what the figures were measured on.
type machine struct {
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"`
	GoMaxProcs int               `json:"gomaxprocs"`
	MemoryGB   float64           `json:"memoryGB"` // 0: unknown
	OS         string            `json:"os"`
	Go         string            `json:"go"`
	Load       string            `json:"load"`     // average of the last minute when the run began; "" if unknown
	Versions   map[string]string `json:"versions"` // of modules
}

func thisMachine() machine {
	m := machine{
		CPU:        procField("/proc/cpuinfo", "model name"),
		Cores:      runtime.NumCPU(),
		GoMaxProcs: runtime.GOMAXPROCS(0),
		OS:         runtime.GOOS + "/" + runtime.GOARCH,
		Go:         runtime.Version(),
		Versions:   make(map[string]string),
	}
	var kb float64
	if _, err := fmt.Sscan(procField("/proc/meminfo", "MemTotal"), &kb); err == nil {
		m.MemoryGB = kb / (1 << 20)
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(text), " ")
	}
	if m.CPU == "" {
		m.CPU = "unknown processor"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			m.Versions[d.Path] = d.Version
			if d.Replace != nil { // kv itself, which is the folder above
				m.Versions[d.Path] = revision()
			}
		}
	}
	return m
}

// revision returns the commit of the folder that the program runs in, "this checkout" if git can't tell.
func revision() string {
	commit, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "this checkout"
	}
	return strings.TrimSpace(string(commit))
}

// procField returns the value behind "name :" in a file of Linux, "" if there is none.
func procField(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		field, value, found := strings.Cut(line, ":")
		if found && strings.TrimSpace(field) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (m machine) String() string {
	text := fmt.Sprintf("%s, %d cores (GOMAXPROCS %d), %.0f GB, %s, %s", m.CPU, m.Cores, m.GoMaxProcs, m.MemoryGB, m.OS, m.Go)
	if m.Load != "" {
		text += ", load average " + m.Load + " at the start"
	}
	return text
}
