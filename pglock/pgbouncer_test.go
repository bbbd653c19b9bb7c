package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/pglock"
)

// A bouncer is a PgBouncer in front of a database of its own on the tests' server.
type bouncer struct {
	url    string
	direct observer // past the pooler
}

// pgBouncer starts one in a pool mode. It is the only test that may be skipped: PgBouncer is no part of PostgreSQL.
func pgBouncer(t *testing.T, mode string, settings ...string) bouncer {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Skip("PgBouncer is not installed: Debian's package is pgbouncer")
		}
	}
	version, err := exec.Command(program, "--version").Output()
	must(t, err)
	var minor int
	_, err = fmt.Sscanf(string(version), "PgBouncer 1.%d", &minor)
	must(t, err)
	if minor >= 21 { // from then on it can prepare statements where they are missing
		settings = append(settings, "max_prepared_statements = 0")
	}
	dbname := newDatabase(t)
	direct := observe(t, dbname)
	_, err = provider(direct.db).Up(bg)
	must(t, err)

	server, err := url.Parse(pgserver.Default().URL())
	must(t, err)
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "pgbouncer.ini")
	must(t, os.WriteFile(filepath.Join(dir, "users"), []byte(`"postgres" ""`), 0o644))
	must(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
default_pool_size = 50
log_connections = 0
log_disconnections = 0
auth_file = %s/users
pool_mode = %s
%s
`, server.Hostname(), server.Port(), port, dir, mode, strings.Join(settings, "\n")), 0o644))
	args := []string{config}
	if os.Geteuid() == 0 { // it refuses to be root
		args = append(args, "-u", "nobody")
		for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
			if info, err := os.Stat(d); err == nil && strings.HasPrefix(d, os.TempDir()+"/") {
				must(t, os.Chmod(d, info.Mode()|0o055))
			}
		}
	}

	// The shell ends it when this process ends, however that ends.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$@" <&- & read -r _; kill -INT $!; wait $!`, "sh", program}, args...)...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		if t.Failed() {
			t.Logf("PgBouncer said:\n%s", log.String())
		}
	})
	eventually(t, "PgBouncer answers", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	server.Host = fmt.Sprintf("127.0.0.1:%d", port)
	server.Path = strings.TrimPrefix(dbname, "dbname=")
	return bouncer{server.String(), direct}
}

// freePort finds a port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// conn gives a client's connection.
func (b bouncer) conn(t *testing.T, driver string) *sql.Conn {
	t.Helper()
	return connOf(t, openURL(t, driver, b.url))
}

// forget ends the pooler's server connections, and whatever was left on them.
func (b bouncer) forget(t *testing.T) {
	t.Helper()
	one[int](t, b.direct.db, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	eventually(t, "the pooler's server connections have ended", func() bool {
		return one[int](t, b.direct.db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == 1
	})
}

// occupy has another client use the pooler's only idle server connection until the test ends.
func (b bouncer) occupy(t *testing.T, pid int) {
	t.Helper()
	conn := b.conn(t, "pgx")
	ctx, cancel := context.WithCancel(bg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn.ExecContext(ctx, "SELECT pg_sleep(60)")
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	eventually(t, "the server connection is busy", func() bool {
		return one[bool](t, b.direct.db, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE pid = $1::int AND state = 'active' AND query LIKE 'SELECT pg_sleep%')`, pid)
	})
}

// wantClean checks that no server connection has a lock or a lease on it.
func (b bouncer) wantClean(t *testing.T, driver string) {
	t.Helper()
	eventually(t, "no lock is left", func() bool {
		return one[int](t, b.direct.db, `SELECT count(*) FROM pg_locks
			WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
	for _, setting := range []string{"idle_session_timeout", "idle_in_transaction_session_timeout"} {
		if got := one[string](t, b.conn(t, driver), "SHOW "+setting); got != "0" {
			t.Errorf("the pooler's server connection has %s %s, want 0 as before", setting, got)
		}
	}
}

// TestPgBouncerSession: in session mode all is as without a pooler, and what a client leaves goes with it.
func TestPgBouncerSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, name string) {
		b := pgBouncer(t, "session")
		t.Run("conformance", func(t *testing.T) {
			newLocker := func(t *testing.T) swanlock.Locker { return pglock.NewSession(b.conn(t, name)) }
			locktest.Run(t, newLocker, locktest.ShortTTL(600*time.Millisecond), locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
				b.direct.in(t).kill(held.(*pglock.PostgresLock).BackendPID())
			}))
		})
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				o, target := b.direct.in(t), newTarget(t)
				conn := b.conn(t, name)
				held := acquired(t, by.with(conn), target, swanlock.WithTTL(time.Minute))
				must(t, held.Refresh(bg))
				o.wantHeld(target, held.BackendPID())
				_, err := by.with(b.conn(t, name)).TryAcquire(bg, target)
				wantIs(t, err, swanlock.ErrNotAcquired)
				must(t, held.Release(bg))

				held = acquired(t, by.with(conn), target, swanlock.WithTTL(time.Minute))
				conn.Raw(func(c any) error { // the client's end
					must(t, c.(driver.Conn).Close())
					return driver.ErrBadConn
				})
				o.wantSoonFree(target)
				held.Release(bg)
				b.wantClean(t, name)
			})
		}
	})
}

// TestPgBouncerTransaction: in transaction and statement mode the first call that meets another server connection than
// the one with the lock on it finds that out, and leaves nothing on either.
func TestPgBouncerTransaction(t *testing.T) {
	finders := map[string]func(s swanlock.Locker, held *pglock.PostgresLock) error{
		"Refresh": func(_ swanlock.Locker, held *pglock.PostgresLock) error { return held.Refresh(bg) },
		"Release": func(_ swanlock.Locker, held *pglock.PostgresLock) error { return held.Release(bg) },
		"TryAcquire": func(l swanlock.Locker, held *pglock.PostgresLock) error {
			_, err := l.TryAcquire(bg, held.Info().Target)
			return err
		},
		"Close": func(l swanlock.Locker, held *pglock.PostgresLock) error {
			if s, ok := l.(*pglock.Session); ok {
				return s.Close(bg)
			}
			return held.Release(bg) // the functions have none
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, mode := range []string{"transaction", "statement"} {
			b := pgBouncer(t, mode)
			for _, by := range acquirers {
				for finder, find := range finders {
					for _, ttl := range []time.Duration{0, time.Minute} {
						t.Run(fmt.Sprintf("%s %s %s with TTL %v", mode, by.name, finder, ttl), func(t *testing.T) {
							b := bouncer{b.url, b.direct.in(t)}
							b.forget(t)
							l, target := by.with(b.conn(t, driver)), newTarget(t)
							held := acquired(t, l, target, swanlock.WithTTL(ttl))
							b.direct.wantHeld(target, held.BackendPID())
							b.occupy(t, held.BackendPID())
							wantIs(t, find(l, held), pglock.ErrPooler)
							wantIs(t, held.Err(), pglock.ErrPooler, swanlock.ErrLost)
							b.wantClean(t, driver)
							_, err := l.TryAcquire(bg, target)
							if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
								t.Errorf("got %v from a connection that was given up", err)
							}
						})
					}
				}
			}
		}
	})
}

// TestPgBouncerShared: two clients on one server connection are one session to PostgreSQL, which grants it a lock as often
// as it asks. What tells is that the statement which the second Session prepares is there already: it gets no lock, and the
// first learns at its next call that its own is gone.
func TestPgBouncerShared(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, mode := range []string{"transaction", "statement"} {
			t.Run(mode, func(t *testing.T) {
				b, target := pgBouncer(t, mode), newTarget(t)
				for _, by := range acquirers {
					t.Run(by.name, func(t *testing.T) {
						held := acquired(t, by.with(b.conn(t, driver)), target)
						_, err := by.with(b.conn(t, driver)).TryAcquire(bg, target)
						wantIs(t, err, pglock.ErrPooler)
						b.direct.in(t).wantHeld(target, held.BackendPID())
						must(t, held.Err())
						held.Release(bg)
						b.forget(t) // with what it has prepared
					})
				}
				b.wantClean(t, driver)
			})
		}
	})
}
