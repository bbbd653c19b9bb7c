package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// TestRunWaitsThroughRestart: --wait goes on when the server restarts, in which the
// holder's lock is lost.
func TestRunWaitsThroughRestart(t *testing.T) {
	t.Parallel()
	srv, err := pgserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Stop() })
	env := []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + srv.URL()}
	holder := swanlockCommand(t, env, runArgs("restart", "sleep 60")...).start()
	admin := openDB(t, srv.URL())
	locks := func(objsubid int) func() bool {
		return func() (is bool) {
			admin.QueryRow("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = $1)", objsubid).Scan(&is)
			return is
		}
	}
	eventually(t, "the lock is held", locks(1))
	waiter := swanlockCommand(t, env, runArgs("--wait restart", "exit 7")...).start()
	eventually(t, "the waiter is in line", locks(2))
	if err := srv.Restart(t.Context(), pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	holder.want(exitLost)
	waiter.want(7)
	if got := waiter.stderr.String(); !strings.Contains(got, "waiting for the server") {
		t.Errorf("the waiter says %q, want what it waits for", got)
	}
}

// TestRunWithoutTTLUnderAnIdleTimeout: without a TTL the lock is refreshed often enough
// for what the role has.
func TestRunWithoutTTLUnderAnIdleTimeout(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	if strings.Contains(dsn, "?") {
		dsn += "&"
	} else {
		dsn += "?"
	}
	env := []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn + "idle_session_timeout=2000"}
	swanlockCommand(t, env, runArgs("--ttl 0 idle", "sleep 5; exit 7")...).start().want(7)
}

// TestRunWaitsForASilentServer: --wait goes on when the server takes connections and
// does not answer them; a signal ends that.
func TestRunWaitsForASilentServer(t *testing.T) {
	t.Parallel()
	dsn, _ := silentServer(t)
	waiter := swanlockCommand(t, []string{dsn}, runArgs("--wait silent", "exit 7")...)
	said, err := os.Create(file(t))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	waiter.Stderr = said
	waiter.start()
	eventually(t, "word of what it waits for", func() bool {
		text, _ := os.ReadFile(said.Name())
		return strings.Contains(string(text), "waiting for the server")
	})
	waiter.Process.Signal(syscall.SIGTERM)
	waiter.want(128 + int(syscall.SIGTERM))
}
