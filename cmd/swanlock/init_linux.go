package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

var (
	// startingChild is locked while a child of our own is started.
	startingChild sync.Mutex
	// ownChild is the supervisor, which swanlock waits for itself.
	ownChild int
)

// reapOrphans makes swanlock, as the first process of a container, collect what
// has lost its parent. It does nothing in any other process.
func reapOrphans() {
	if os.Getpid() != 1 {
		return
	}
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)
	go func() {
		for range deaths {
			reapStrangers()
		}
	}()
}

// reapStrangers collects the children that have ended, but for ownChild.
func reapStrangers() {
	startingChild.Lock()
	defer startingChild.Unlock()
	self := os.Getpid()
	all, _ := descendants(self)
	for _, p := range all {
		if p.parent == self && p.zombie && p.pid != ownChild {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG|syscall.WALL, nil)
		}
	}
}
