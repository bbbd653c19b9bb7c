package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

func keepsAtLeast(t *testing.T, least time.Duration, flags, target string, run func(head, script string, args ...string) *tested) {
	t.Helper()
	mark, began := file(t), time.Now()
	p := run(fmt.Sprintf("--at-least %v %s %s", least, flags, target), `: >"$1"; exit 3`, mark)
	eventually(t, "command", func() bool { return exists(mark) }) // it has the lock
	next := run("--wait "+target, "exit 4")
	p.want(3)
	if took := time.Since(began); took < least {
		t.Errorf("it took %v", took)
	}
	next.want(4)
	if took := time.Since(began); took < least {
		t.Errorf("the next one had the lock within %v", took)
	}
}

// TestAtLeast: the lock is kept for that long after a command that takes less, past
// its TTL too, with the command's exit code; and a signal ends that.
func TestAtLeast(t *testing.T) {
	slow(t)
	t.Parallel()
	target := t.Name()
	keepsAtLeast(t, 5*time.Second, "--ttl 2s", target, func(head, script string, args ...string) *tested {
		return swanlockRun(t, runArgs(head, script, args...)...)
	})

	p := swanlockRun(t, runArgs("--at-least 1h "+target, "exit 5")...)
	eventually(t, "holder", func() bool { return len(holders(t, target)) == 1 })
	time.Sleep(time.Second) // the command has ended
	_ = p.Process.Signal(syscall.SIGUSR1)
	time.Sleep(time.Second)
	if len(holders(t, target)) != 1 {
		t.Error("SIGUSR1 freed the lock")
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	p.want(5)

	mark := file(t)
	p = swanlockRun(t, runArgs("--at-least 1h "+target, `: >"$1"; exec sleep 600`, mark)...)
	eventually(t, "command", func() bool { return exists(mark) })
	_ = p.Process.Signal(syscall.SIGTERM)
	p.want(128 + 15)

	p = swanlockRun(t, runArgs("--at-least 1h "+target, "exit 6")...)
	eventually(t, "holder", func() bool { return len(holders(t, target)) == 1 })
	time.Sleep(time.Second)
	execSQL(t, migrated(t), fmt.Sprintf("SELECT pg_terminate_backend(%d)", holders(t, target)[0]))
	p.want(6).says("was kept for less than --at-least 1h0m0s")
}
