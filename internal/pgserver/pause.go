//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Pause stops the whole server, the postmaster and all its processes, as a paused container or a machine that stands
// still: what it was sent it will find when it runs again, and new connections are made by the kernel and not
// answered. The server runs again when resume is called, also after an error.
func (s *Server) Pause() (resume func(), err error) {
	postmaster := s.PID()
	if postmaster == 0 {
		return func() {}, errors.New("pgserver: pause: the server does not run")
	}
	stopped := []int{postmaster}
	resume = sync.OnceFunc(func() {
		for _, pid := range slices.Backward(stopped) {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been killed meanwhile
		}
	})
	defer func() {
		if err != nil {
			resume()
			err = fmt.Errorf("pgserver: pause: %w", err)
		}
	}()
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil { // from here on it starts no other process
		return resume, err
	}
	if err := standStill(postmaster); err != nil {
		return resume, err
	}
	children, err := childrenOf(postmaster)
	if err != nil {
		return resume, err
	}
	for _, pid := range children {
		if syscall.Kill(pid, syscall.SIGSTOP) == nil { // else it has ended
			stopped = append(stopped, pid)
		}
	}
	return resume, standStill(children...)
}

// eachProcess shows each process of the system, with its parent and its state. It looks in /proc, and asks ps where
// there is none.
func eachProcess(see func(pid, parent int, state string)) error {
	if files, _ := filepath.Glob("/proc/[0-9]*/stat"); len(files) > 0 {
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // it has ended
			}
			var pid, parent int
			var state string
			// "pid (name) state parent …", and the name may have anything in it.
			stat := string(b)
			if _, err := fmt.Sscan(stat[strings.LastIndexByte(stat, ')')+1:], &state, &parent); err != nil {
				return err
			}
			if _, err := fmt.Sscan(stat, &pid); err != nil {
				return err
			}
			see(pid, parent, state)
		}
		return nil
	}
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,state=").Output()
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		var pid, parent int
		var state string
		if _, err := fmt.Sscan(line, &pid, &parent, &state); err != nil {
			return err
		}
		see(pid, parent, state)
	}
	return nil
}

func childrenOf(parent int) (pids []int, err error) {
	err = eachProcess(func(pid, its int, _ string) {
		if its == parent {
			pids = append(pids, pid)
		}
	})
	return pids, err
}

// standStill waits until each of the processes is stopped, or is no more.
func standStill(pids ...int) error {
	ctx, cancel := context.WithTimeout(context.Background(), programTimeout)
	defer cancel()
	for {
		all := true
		err := eachProcess(func(pid, _ int, state string) {
			if slices.Contains(pids, pid) && state[0] != 'T' && state[0] != 'Z' {
				all = false
			}
		})
		if err != nil || all {
			return err
		}
		if pause(ctx) != nil {
			return errors.New("some of its processes do not stop")
		}
	}
}
