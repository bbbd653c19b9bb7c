package pgtest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Skip("PgBouncer is not installed: Debian's package is pgbouncer")
		}
	}
	version, err := exec.Command(program, "--version").Output()
	Must(t, err)
	var minor int
	_, err = fmt.Sscanf(string(version), "PgBouncer 1.%d", &minor)
	Must(t, err)
	if minor >= 21 { // from then on it can prepare statements where they are missing
		settings = append(settings, "max_prepared_statements = 0")
	}
	dbname := NewDatabase(t)
	direct := Observe(t, dbname)
	_, err = Provider(direct.DB).Up(Background)
	Must(t, err)

	server, err := url.Parse(Server(t).URL())
	Must(t, err)
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "pgbouncer.ini")
	Must(t, os.WriteFile(filepath.Join(dir, "users"), []byte(`"postgres" ""`), 0o644))
	Must(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
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
				Must(t, os.Chmod(d, info.Mode()|0o055))
			}
		}
	}

	// The shell ends it when this process ends, however that ends.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$@" <&- & read -r _; kill -INT $!; wait $!`, "sh", program}, args...)...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	Must(t, err)
	Must(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		if t.Failed() {
			t.Logf("PgBouncer said:\n%s", log.String())
		}
	})
	Eventually(t, "PgBouncer answers", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	server.Host = fmt.Sprintf("127.0.0.1:%d", port)
	server.Path = strings.TrimPrefix(dbname, "dbname=")
	return Bouncer{server.String(), direct}
}

// freePort finds a port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
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
