package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestOnceEveryOldAudit: a table that lacks the last migrations is a matter of the
// configuration, and the command is not run.
func TestOnceEveryOldAudit(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	migrateSays(t, dsn, "up")
	execSQL(t, dsn, "ALTER TABLE lock_audit DROP succeeded_at")
	swanlockCommand(t, env(dsn), runArgs("--once-every 1h "+t.Name(), "exit 3")...).start().want(exitConfig).
		says("--once-every: ", "lock_audit is of an earlier version: run swanlock migrate up")
}

// TestOnceEvery: a command that succeeded is not run again until the time has
// passed; one that failed, or was killed with its swanlock, is.
func TestOnceEvery(t *testing.T) {
	slow(t)
	t.Parallel()
	migrated(t)
	target, mark := t.Name(), file(t)
	run := func(every, script string) *tested {
		return swanlockRun(t, runArgs("--once-every "+every+" "+target, script, mark)...)
	}
	run("1h", "exit 3").want(3)
	crashed := run("1h", `: >"$1"; exec sleep 600`)
	eventually(t, "command", func() bool { return exists(mark) })
	_ = crashed.Process.Kill()
	crashed.code()
	eventually(t, "free", func() bool { return len(holders(t, target)) == 0 })
	lost := run("1h", `: >"$1.lost"; exec sleep 600`)
	eventually(t, "command", func() bool { return exists(mark + ".lost") })
	execSQL(t, migrated(t), fmt.Sprintf("SELECT pg_terminate_backend(%d)", holders(t, target)[0]))
	lost.want(75)
	run("1h", "exit 0").want(0)
	hasAll(t, "audit", swanlockSays(t, migrated(t), 0, "audit", "--target", target, "--limit", "1"), "released, succeeded")
	rows := strings.Split(swanlockSays(t, migrated(t), 0, "audit", "--target", target, "--csv"), "\n")
	if !strings.HasSuffix(rows[0], ",succeeded_at") || strings.HasSuffix(rows[1], ",") || !strings.HasSuffix(rows[2], ",") {
		t.Errorf("--csv has not succeeded_at of the last run alone: %q", rows[:3])
	}
	run("1h", "exit 3").want(79).says("less than --once-every 1h0m0s")
	run("1h --at-least 1h", "exit 3").want(79)
	run("1ms", "exit 4").want(4) // the last success is longer ago, and stays
	run("1h", "exit 3").want(79)
	swanlockRun(t, runArgs(target, "exit 5")...).want(5) // without the flag

	// Many hosts at the same time: one of them runs it.
	target = t.Name() + "/many"
	var all []*tested
	for range 5 {
		all = append(all, run("1h --wait", "sleep 0.2"))
	}
	ran := 0
	for _, p := range all {
		switch code := p.code(); code {
		case 0:
			ran++
		case 79:
		default:
			t.Errorf("exit code %d", code)
		}
	}
	if ran != 1 {
		t.Errorf("%d of 5 ran it, want 1", ran)
	}
}
