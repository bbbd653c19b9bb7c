package pgtest

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// A Bouncer is a PgBouncer in front of a database of its own on the shared
// server.
type Bouncer struct {
	URL    string
	Direct Observer // past the pooler
}

// PgBouncer starts one in a pool mode, with lines for its configuration, until
// the test ends. Where PgBouncer is not installed it skips the test: it is no part
// of PostgreSQL, and only tests behind it may be skipped.
func PgBouncer(t *testing.T, mode string, settings ...string) Bouncer {
	t.Helper()
	b, err := Server(t).PgBouncer(Background, mode, settings...)
	if errors.Is(err, pgserver.ErrNoPgBouncer) {
		t.Skip(err)
	}
	Must(t, err)
	t.Cleanup(func() {
		if log := b.Stop(); t.Failed() {
			t.Logf("PgBouncer said:\n%s", log)
		}
	})
	dbname := NewMigratedDatabase(t)
	direct := Observe(t, dbname)
	return Bouncer{b.URL(dbname), direct}
}

// Conn returns a client's connection.
func (b Bouncer) Conn(t *testing.T, driver string) *sql.Conn {
	t.Helper()
	return ConnOf(t, OpenURL(t, driver, b.URL))
}

// Forget ends the pooler's server connections, and whatever was left on them.
func (b Bouncer) Forget(t *testing.T) {
	t.Helper()
	One[int](t, b.Direct.DB, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	Eventually(t, "the pooler's server connections have ended", func() bool {
		return One[int](t, b.Direct.DB, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == 1
	})
}

// Occupy has another client use the pooler's only idle server connection until
// the test ends.
func (b Bouncer) Occupy(t *testing.T, pid int) {
	t.Helper()
	conn := b.Conn(t, "pgx")
	ctx, cancel := context.WithCancel(Background)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn.ExecContext(ctx, "SELECT pg_sleep(60)")
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	Eventually(t, "the server connection is busy", func() bool {
		return One[bool](t, b.Direct.DB, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE pid = $1::int AND state = 'active' AND query LIKE 'SELECT pg_sleep%')`, pid)
	})
}

// WantClean checks that no server connection has a lock or a lease on it.
func (b Bouncer) WantClean(t *testing.T, driver string) {
	t.Helper()
	Eventually(t, "no lock is left", func() bool {
		return One[int](t, b.Direct.DB, `SELECT count(*) FROM pg_locks
			WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
	for _, setting := range []string{"idle_session_timeout", "idle_in_transaction_session_timeout"} {
		if got := One[string](t, b.Conn(t, driver), "SHOW "+setting); got != "0" {
			t.Errorf("the pooler's server connection has %s %s, want 0 as before", setting, got)
		}
	}
}
