//go:build unix

package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// Pause stops a whole server, the postmaster and all its processes, as a paused
// container or a machine that stands still: what it was sent it will find when it
// runs again, and new connections are made by the kernel and not answered. The
// server must be the test's own. It runs again when resume is called or the test
// ends.
func Pause(t testing.TB, srv *pgserver.Server) (resume func()) {
	t.Helper()
	if srv == pgserver.Default() {
		t.Fatal("the shared server must not be paused: use OwnServer")
	}
	postmaster := srv.PID()
	Must(t, syscall.Kill(postmaster, syscall.SIGSTOP)) // from here on it starts no other process
	Eventually(t, "the postmaster stands still", func() bool { return standStill(t, postmaster) })
	children := childrenOf(t, postmaster)
	for _, pid := range children {
		syscall.Kill(pid, syscall.SIGSTOP) // it may have ended meanwhile
	}
	resume = sync.OnceFunc(func() {
		for _, pid := range append(children, postmaster) {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	})
	t.Cleanup(resume)
	Eventually(t, "the server stands still", func() bool { return standStill(t, children...) })
	return resume
}

// processes shows each process of the system, with its parent and its state. It
// looks in /proc, and asks ps where there is none.
func processes(t testing.TB, see func(pid, parent int, state string)) {
	t.Helper()
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
			_, err = fmt.Sscan(stat[strings.LastIndexByte(stat, ')')+1:], &state, &parent)
			Must(t, err)
			_, err = fmt.Sscan(stat, &pid)
			Must(t, err)
			see(pid, parent, state)
		}
		return
	}
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,state=").Output()
	Must(t, err)
	for line := range strings.Lines(string(out)) {
		var pid, parent int
		var state string
		_, err := fmt.Sscan(line, &pid, &parent, &state)
		Must(t, err)
		see(pid, parent, state)
	}
}

func childrenOf(t testing.TB, parent int) (pids []int) {
	t.Helper()
	processes(t, func(pid, its int, _ string) {
		if its == parent {
			pids = append(pids, pid)
		}
	})
	return pids
}

// standStill reports whether each of the processes was stopped, or is no more.
func standStill(t testing.TB, pids ...int) (all bool) {
	t.Helper()
	all = true
	processes(t, func(pid, _ int, state string) {
		if slices.Contains(pids, pid) && state[0] != 'T' && state[0] != 'Z' {
			all = false
		}
	})
	return all
}
