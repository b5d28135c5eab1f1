//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpuTime returns the processor time that this process has used, its collector's included. On a
// busy machine it says more than wall time.
func cpuTime() time.Duration { return usage(syscall.RUSAGE_SELF) }

// childTime returns the processor time of the children that have ended.
func childTime() time.Duration { return usage(syscall.RUSAGE_CHILDREN) }

func usage(who int) time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(who, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
