package main

import "syscall"

// dieWithParent makes the kernel kill the process when swanlock dies, even of
// SIGKILL: its lock is free at that moment.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
