package main

import (
	"strings"
	"testing"
)

// TestOnceEveryOfALockedAudit: a success that cannot be noted is told, and is no loss
// of the lock, which was held as long as the command ran.
func TestOnceEveryOfALockedAudit(t *testing.T) {
	t.Parallel()
	slow(t)
	dsn := newDatabase(t)
	migrateSays(t, dsn, "up", "applied")
	mark := file(t)
	p := swanlockCommand(t, env(dsn), "run", "--once-every", "1h", "t", "--", "sh", "-c", `echo >"$1"; sleep 1`, "sh", mark).start()
	eventually(t, "command", func() bool { return exists(mark) })
	tx, err := openDB(t, dsn).Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("LOCK TABLE lock_audit IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	p.want(0)
	if got := p.stderr.String(); !strings.Contains(got, `"t" may be run again before --once-every 1h0m0s`) || strings.Contains(got, "lost") {
		t.Errorf("it says %s", got)
	}
}
