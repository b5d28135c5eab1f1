package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// A load tells what else the machine was busy with.
type load struct {
	began     time.Time
	busy, own time.Duration
	known     bool
}

// startLoad begins to watch; only Linux tells.
func startLoad() load {
	busy, known := busyTime()
	return load{time.Now(), busy, cpuTime() + childTime(), known}
}

// foreign returns the share of the processors that other processes have used since, -1 if it is not known.
func (l load) foreign() float64 {
	busy, known := busyTime()
	if !known || !l.known {
		return -1
	}
	own := cpuTime() + childTime() - l.own
	capacity := time.Since(l.began) * time.Duration(runtime.NumCPU())
	return max(0, float64(busy-l.busy-own)/float64(capacity))
}

// busyTime returns how long the processors have not been idle since the machine started.
func busyTime() (time.Duration, bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var user, nice, system, idle, wait, irq, soft, steal int64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &soft, &steal); err != nil {
		return 0, false
	}
	const tick = 10 * time.Millisecond // USER_HZ, which Linux fixes at 100
	return time.Duration(user+nice+system+irq+soft+steal) * tick, true
}
