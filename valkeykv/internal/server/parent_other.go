//go:build !linux

package server

import "syscall"

// withParent does nothing here.
func withParent() *syscall.SysProcAttr { return nil }
