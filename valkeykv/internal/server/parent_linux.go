package server

import "syscall"

// withParent has the kernel kill a server whose parent has died without stopping it.
func withParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
