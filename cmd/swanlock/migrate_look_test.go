package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

func env(dsn string) []string { return []string{dsnVar + "=" + dsn} }

// tables tells the tables of a database.
func tables(t *testing.T, dsn string) (names string) {
	t.Helper()
	err := openDB(t, dsn).QueryRow("SELECT coalesce(string_agg(tablename, ' ' ORDER BY tablename), '') FROM pg_tables WHERE schemaname = 'public'").Scan(&names)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func execSQL(t *testing.T, dsn string, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := openDB(t, dsn).Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// as returns dsn for another user of the server, which needs no password.
func as(t *testing.T, dsn, role string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}

// nameOf is the database of dsn.
func nameOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

func migrateSays(t *testing.T, dsn, do string, want ...string) {
	t.Helper()
	p := swanlockCommand(t, env(dsn), "migrate", do).start().want(0)
	for _, want := range want {
		if got := p.stdout.String(); !strings.Contains(got, want) || p.stderr.Len() > 0 {
			t.Errorf("migrate %s says %q, %q; want %q", do, got, &p.stderr, want)
		}
	}
}

// migrate status may run as a role that may only read, and leaves nothing.
func TestMigrateStatusOnlyLooks(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	role := fmt.Sprintf("reader%d", time.Now().UnixNano())
	execSQL(t, dsn, "CREATE ROLE "+role+" LOGIN", "ALTER ROLE "+role+" SET default_transaction_read_only = on")
	defer func() {
		execSQL(t, dsn, "DROP OWNED BY "+role, "DROP ROLE "+role)
	}()
	for _, who := range []string{dsn, as(t, dsn, role)} {
		migrateSays(t, who, "status", "pending                      00001_lock_audit.sql\n")
		if got := tables(t, dsn); got != "" {
			t.Errorf("migrate status made %s", got)
		}
	}
	migrateSays(t, dsn, "up", "applied")
	said := swanlockCommand(t, env(as(t, dsn, role)), "migrate", "status").start().want(0).stdout.String()
	// It may not read the version table, and knows what lock_audit shows.
	if want := "applied                      00001_lock_audit.sql\napplied                      00002_lock_audit_inspect.sql\n" +
		"unknown: no right to read    00003_fence_guard.sql\n"; !strings.HasPrefix(said, want) || strings.Contains(said, "pending") {
		t.Errorf("migrate status of a role that may not read the version table says %q, want %q", said, want)
	}
	execSQL(t, dsn, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
	migrateSays(t, as(t, dsn, role), "status", "applied 20")
	swanlockCommand(t, env(as(t, newDatabase(t), role)), "migrate", "up").start().want(exitUnavailable).says("migrate up")
}

// The table that migrate print tells how to make is recognised and adopted.
func TestMigrateAdoptsWhatPrintMade(t *testing.T) {
	t.Parallel()
	_, text, _ := runHere("migrate", "print")
	for name, before := range map[string]func(dsn string){
		"at first":          func(string) {},
		"after up and down": func(dsn string) { migrateSays(t, dsn, "up"); migrateSays(t, dsn, "down") },
	} {
		t.Run(name, func(t *testing.T) {
			dsn := newDatabase(t)
			before(dsn)
			execSQL(t, dsn, text, "INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at) "+
				"VALUES ('t', 1, 'o', 0, 'shared', 1, now(), now(), now())")
			migrateSays(t, dsn, "status", "applied, not by migrate up   00001_lock_audit.sql\napplied, not by migrate up   00002_lock_audit_inspect.sql\npending                      00003_fence_guard.sql\npending                      00004_lock_audit_success.sql\npending                      00005_lock_audit_long.sql\n")
			migrateSays(t, dsn, "up", "adopted 00001_lock_audit.sql\nadopted 00002_lock_audit_inspect.sql\napplied 00003_fence_guard.sql\napplied 00004_lock_audit_success.sql\napplied 00005_lock_audit_long.sql\n")
			migrateSays(t, dsn, "status", "applied 20")
			migrateSays(t, dsn, "up", "nothing to do\n")
			var rows int
			if err := openDB(t, dsn).QueryRow("SELECT count(*) FROM lock_audit").Scan(&rows); err != nil || rows != 1 {
				t.Errorf("%d rows are left, %v; want 1", rows, err)
			}
			migrateSays(t, dsn, "down", "removed")
		})
	}
}

// What an earlier version printed, and what lacks an index, is adopted as far as
// it goes; the rest is applied.
func TestMigrateAdoptsHalf(t *testing.T) {
	t.Parallel()
	_, all, _ := runHere("migrate", "print")
	first, _, _ := strings.Cut(all, "-- 00002")
	for name, change := range map[string][]string{
		"the first":        {first},
		"without an index": {all, "DROP INDEX lock_audit_span"},
		"without the name": {all, "ALTER TABLE lock_audit DROP ended_by"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := newDatabase(t)
			execSQL(t, dsn, change...)
			migrateSays(t, dsn, "status", "applied, not by migrate up   00001_lock_audit.sql\npending                      00002_lock_audit_inspect.sql\npending                      00003_fence_guard.sql\npending                      00004_lock_audit_success.sql\npending                      00005_lock_audit_long.sql\n")
			migrateSays(t, dsn, "up", "adopted 00001_lock_audit.sql\napplied 00002_lock_audit_inspect.sql\napplied 00003_fence_guard.sql\napplied 00004_lock_audit_success.sql\napplied 00005_lock_audit_long.sql\n")
			migrateSays(t, dsn, "up", "nothing to do\n")
		})
	}
}

func TestMigrateRefusesAnotherTable(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	for _, change := range []string{"DROP COLUMN fence", "ALTER key TYPE numeric", "ALTER owner DROP NOT NULL", "ADD more text", "ALTER id DROP IDENTITY"} {
		_, text, _ := runHere("migrate", "print")
		execSQL(t, dsn, text, "ALTER TABLE lock_audit "+change)
		migrateSays(t, dsn, "status", "another table is in the way  00001_lock_audit.sql\n")
		swanlockCommand(t, env(dsn), "migrate", "up").start().want(exitUnavailable).
			says("there is a table lock_audit, and it is not the one that 00001_lock_audit.sql makes")
		if got := tables(t, dsn); got != "lock_audit lock_fences" {
			t.Errorf("%s: migrate up left %s", change, got)
		}
		execSQL(t, dsn, "DROP TABLE lock_audit, lock_fences")
	}
	migrateSays(t, dsn, "up", "applied")
}

// Behind a pooler in transaction mode nothing is locked that could stay.
func TestMigrateRefusesAPooler(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	for mode, code := range map[string]int{"transaction": exitUnavailable, "statement": exitUnavailable, "session": 0} {
		t.Run(mode, func(t *testing.T) {
			pooled := pgBouncer(t, dsn, mode)
			migrateSays(t, pooled, "status", "00001_lock_audit.sql\n")
			for _, do := range []string{"up", "down"} {
				p := swanlockCommand(t, env(pooled), "migrate", do).start().want(code)
				if code != 0 {
					p.says("migrate "+do, pglock.ErrPooler.Error())
				}
			}
			var locks int
			if err := openDB(t, dsn).QueryRow("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&locks); err != nil || locks > 0 {
				t.Errorf("%d advisory locks are left, %v", locks, err)
			}
		})
	}
	migrateSays(t, dsn, "up", "applied")
	if got, want := tables(t, dsn), "lock_audit lock_fences "+migrations.Table; got != want {
		t.Errorf("tables %q, want %q", got, want)
	}
}

// pgBouncer starts one in a pool mode before the server of dsn. It is the only
// test that may be skipped: PgBouncer is no part of PostgreSQL.
func pgBouncer(t *testing.T, dsn, mode string) (pooled string) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Skip("PgBouncer is not installed: Debian's package is pgbouncer")
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(dsn)
	must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	must(l.Close())
	dir := t.TempDir()
	config := filepath.Join(dir, "pgbouncer.ini")
	must(os.WriteFile(filepath.Join(dir, "users"), []byte(`"postgres" ""`), 0o644))
	must(os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s/users
pool_mode = %s
`, u.Hostname(), u.Port(), port, dir, mode), 0o644))
	args := []string{config}
	if os.Geteuid() == 0 { // it refuses to be root
		args = append(args, "-u", "nobody")
		for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
			info, err := os.Stat(d)
			must(err)
			must(os.Chmod(d, info.Mode()|0o055))
		}
	}
	// The shell ends it when this process ends, however that ends.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$@" <&- & read -r _; kill -INT $!; wait $!`, "sh", program}, args...)...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	must(err)
	must(cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		if t.Failed() {
			t.Logf("PgBouncer said:\n%s", log.String())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("PgBouncer does not answer")
		}
	}
	u.Host = address
	return u.String()
}

// TestMigrateUnderAHostileSearchPath: what somebody else has put before pg_catalog in the
// search_path is not called.
func TestMigrateUnderAHostileSearchPath(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	var name string
	db := openDB(t, dsn)
	if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	execSQL(t, dsn, "CREATE SCHEMA app",
		"CREATE FUNCTION app.to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT null::regclass'",
		"CREATE FUNCTION app.has_table_privilege(regclass, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
		"ALTER DATABASE "+name+" SET search_path = app, pg_catalog, public")
	migrateSays(t, dsn, "up", "applied")
	migrateSays(t, dsn, "status", "applied 20")
}
