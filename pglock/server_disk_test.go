package pglock_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestServerDiskFull: when the disk has no room for the audit's row, the error says so, and nothing is held. The file of the
// table is /dev/full, so that the error comes from the kernel as it would, and nobody needs to be root.
func TestServerDiskFull(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("this system has no /dev/full")
	}
	srv := ownServer(t)
	admin := openURL(t, "postgres", srv.URL())
	// The table's file is opened once a backend, so the ones before must not have it.
	table := filepath.Join(srv.Dir(), "data", one[string](t, admin, "SELECT pg_relation_filepath('lock_audit')"))
	must(t, os.Remove(table))
	must(t, os.Symlink("/dev/full", table))
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			o := observer{t, openURL(t, "postgres", srv.URL())}
			conn := connOf(t, openURL(t, driver, srv.URL()))
			s := pglock.NewSession(conn, pglock.WithAudit())
			for _, opts := range [][]swanlock.Option{nil, {swanlock.WithTTL(time.Minute)}, {swanlock.WithShared()}, {swanlock.WithFence()}} {
				wantRefused(t, o, conn, s, pglock.ErrAudit, "No space left on device", opts...)
			}
			if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
				t.Errorf("idle_session_timeout is %s, want 0 as before", got)
			}
			must(t, acquired(t, pglock.NewSession(conn), newTarget(t)).Release(bg)) // it works without the audit
		})
	}
}
