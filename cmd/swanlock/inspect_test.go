package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

// heldHere takes an audited lock on dsn, in a session of the test's own.
func heldHere(t *testing.T, dsn, target, owner string, opts ...swanlock.Option) *pglock.PostgresLock {
	t.Helper()
	conn, err := openDB(t, dsn).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := pglock.NewSession(conn, pglock.WithAudit())
	t.Cleanup(func() { s.Close(context.Background()); conn.Close() })
	held, err := s.TryAcquire(t.Context(), target, append(opts, swanlock.WithOwner(owner))...)
	if err != nil {
		t.Fatal(err)
	}
	return held.(*pglock.PostgresLock)
}

// newAudited makes a database with the audit.
func newAudited(t *testing.T) (dsn string) {
	t.Helper()
	dsn = newDatabase(t)
	migrateSays(t, dsn, "up", "applied")
	return dsn
}

// swanlockSays runs the command and returns what it printed.
func swanlockSays(t *testing.T, dsn string, code int, args ...string) string {
	t.Helper()
	p := swanlockCommand(t, env(dsn), args...).start().want(code)
	return p.stdout.String()
}

func hasAll(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%s", what, part, text)
		}
	}
}

func TestLs(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	if got := swanlockSays(t, dsn, 0, "ls", "--target", "/lake/t1"); got != "no advisory lock is held on \"/lake/t1\"\n" {
		t.Errorf("ls of nothing says %q", got)
	}
	held := heldHere(t, dsn, "/lake/t1", "me\x1b[2J", swanlock.WithTTL(time.Hour))
	waiter := swanlockCommand(t, env(dsn), "run", "--wait", "/lake/t1", "--", "true").start()
	eventually(t, "waiter", func() bool { return strings.Contains(swanlockSays(t, dsn, 0, "ls"), "1. waits") })

	text := swanlockSays(t, dsn, 0, "ls", "--target", "/lake/*")
	hasAll(t, "ls", text, "/lake/t1", `me\x1b[2J`, "exclusive", fmt.Sprint(held.Info().Fence), "59m", fmt.Sprint(held.BackendPID()), "idle", "127.0.0.1", "\n  1. waits")
	if strings.Contains(text, "\x1b") {
		t.Errorf("ls in a pipe has escapes: %q", text)
	}
	if lines := strings.Count(text, "\n"); lines != 3 {
		t.Errorf("it has %d lines, want 3:\n%s", lines, text)
	}
	var list struct {
		Locks []struct {
			Target  string
			Owner   string
			TTL     float64 `json:"ttl_seconds"`
			Held    float64 `json:"held_seconds"`
			Waiters []struct {
				Place  int
				InLine bool `json:"in_line"`
			}
		}
	}
	if err := json.Unmarshal([]byte(swanlockSays(t, dsn, 0, "ls", "--json", "--target", "/lake//t1/")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Locks) != 1 || list.Locks[0].Target != "/lake/t1" || list.Locks[0].TTL != 3600 || len(list.Locks[0].Waiters) != 1 || !list.Locks[0].Waiters[0].InLine {
		t.Errorf("ls --json says %+v", list)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiter.want(0)
}

// --watch outside of a terminal gives one list after the other, until a signal.
func TestLsWatch(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	heldHere(t, dsn, "watched", "me")
	p := swanlockCommand(t, env(dsn), "ls", "--watch", "--json", "--interval", "100ms").start()
	time.Sleep(2 * time.Second)
	_ = p.Process.Signal(syscall.SIGINT)
	p.want(0)
	lines := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
	if len(lines) < 2 {
		t.Fatalf("it looked %d times", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) || !strings.Contains(line, `"target":"watched"`) {
			t.Errorf("a look is %s", line)
		}
	}
}

func TestAuditHistory(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	if got := swanlockSays(t, dsn, 0, "audit"); got != "the audit has no such hold\n" {
		t.Errorf("an empty audit says %q", got)
	}
	execSQL(t, dsn, `INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason, ended_by)
		SELECT 't' || n % 2, CASE n % 2 WHEN 0 THEN `+fmt.Sprint(int64(swanlock.KeyOf("t0")))+` ELSE `+fmt.Sprint(int64(swanlock.KeyOf("t1")))+` END, 'me, "myself"', 30000, 'exclusive', n, 1, now(),
			at, at, at + interval '1 minute', CASE n WHEN 7 THEN 'killed' ELSE 'released' END, CASE n WHEN 7 THEN 'ann' END
		FROM (SELECT n, now() - n * interval '1 hour' AS at FROM generate_series(1, 2500) n) s`)
	dead := heldHere(t, dsn, "dead", "gone")
	execSQL(t, dsn, fmt.Sprintf("SELECT pg_terminate_backend(%d)", dead.BackendPID()))
	held := heldHere(t, dsn, "now", "me")
	eventually(t, "an orphan", func() bool {
		return strings.Contains(swanlockSays(t, dsn, 0, "audit", "--target", "dead"), "orphaned, noticed ")
	})
	p := swanlockCommand(t, env(dsn), "audit").start().want(0)
	p.says("there are more than 100: give --limit N")
	if lines := strings.Count(p.stdout.String(), "\n"); lines != 101 {
		t.Errorf("it has %d lines, want 101", lines)
	}
	hasAll(t, "audit", p.stdout.String(), "ACQUIRED", "killed by ann", "held", "orphaned", `me, "myself"`)
	time.Sleep(time.Until(held.Info().AcquiredAt.Add(1100 * time.Millisecond))) // for --at 1s, which is a second ago
	for _, tt := range []struct {
		args  string
		lines int
	}{
		{"--target t0 --limit 0", 1252}, {"--limit 0", 2505}, {"--limit 1500", 1502}, {"--target t* --since 10h30m", 11}, {"--until 2499h30m --since 3000h", 2},
		{"--owner gone", 2}, {"--owner g?ne --target x", 1}, {"--at 1s", 3}, {"--at 59m30s", 2}, {"--at 59m30s --target t0", 1}, {"--at 30m", 1},
	} {
		p := swanlockCommand(t, env(dsn), append([]string{"audit"}, strings.Fields(tt.args)...)...).start().want(0)
		if lines := strings.Count(p.stdout.String(), "\n"); lines != tt.lines {
			t.Errorf("audit %s has %d lines, want %d:\n%.500s", tt.args, lines, tt.lines, &p.stdout)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(swanlockSays(t, dsn, 0, "audit", "--csv", "--limit", "0"))).ReadAll()
	if err != nil || len(rows) != 2503 || rows[2502][3] != `me, "myself"` {
		t.Errorf("--csv has %d rows, %v", len(rows), err)
	}
	n := 0
	for line := range strings.Lines(swanlockSays(t, dsn, 0, "audit", "--json", "--limit", "2001")) {
		var r pginspect.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 2001 {
		t.Errorf("--json has %d records, want 2001", n)
	}
	swanlockCommand(t, env(newDatabase(t)), "audit").start().want(exitConfig).says("there is no table lock_audit", "swanlock migrate up")

	if got := swanlockSays(t, dsn, 0, "audit", "prune", "--older-than", "50d"); !strings.HasPrefix(got, "deleted 1300 rows that ended before ") {
		t.Errorf("prune says %q", got)
	}
	hasAll(t, "audit", swanlockSays(t, dsn, 0, "audit", "--at", "1s"), "now")
}

// TestAuditAtItsBeginning: the time that the audit shows for the beginning of a hold,
// given to --at, with its day or without, shows that hold.
func TestAuditAtItsBeginning(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	for n := range 5 { // One may just begin with a millisecond.
		target := fmt.Sprintf("held-%d", n)
		heldHere(t, dsn, target, "me")
		lines := strings.Split(swanlockSays(t, dsn, 0, "audit", "--target", target), "\n")
		day, clock, _ := strings.Cut(lines[1][:len("2006-01-02 15:04:05.000")], " ")
		for _, at := range []string{day + " " + clock, clock} {
			if got := swanlockSays(t, dsn, 0, "audit", "--at", at, "--target", target); !strings.Contains(got, target) {
				t.Errorf("--at %q, when it began, says %q", at, got)
			}
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	held := heldHere(t, dsn, "nightly", "me")
	swanlockCommand(t, env(dsn), "kill", "nightly").start().want(exitUsage).says("nobody can be asked here: give --yes")
	swanlockCommand(t, env(dsn), "kill", "--yes", "night*").start().want(exitFailed).says(`nobody holds "night*" in this database`)
	swanlockCommand(t, env(dsn), "kill", "1", "--yes").start().want(exitFailed).says("no session 1 has an advisory lock")
	if err := held.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	hasAll(t, "kill", swanlockSays(t, dsn, 0, "kill", "nightly", "--yes", "--by", "ann"), "nightly", "me", fmt.Sprintf("ended session %d; the audit says killed by ann in 1 row\n", held.BackendPID()))
	if err := held.Refresh(t.Context()); err == nil {
		t.Error("it is still held")
	}
	hasAll(t, "audit", swanlockSays(t, dsn, 0, "audit", "--target", "nightly"), "killed by ann")

	// All readers; and a session by its number.
	one, two := heldHere(t, dsn, "catalog", "me", swanlock.WithShared()), heldHere(t, dsn, "catalog", "me", swanlock.WithShared())
	hasAll(t, "kill", swanlockSays(t, dsn, 0, "kill", "--yes", "--", "catalog"), fmt.Sprint("ended session ", one.BackendPID()), fmt.Sprint("ended session ", two.BackendPID()))
	third := heldHere(t, dsn, "7", "me")
	swanlockCommand(t, env(dsn), "kill", "7", "--yes").start().want(exitFailed).says("if that is a target: --target")
	hasAll(t, "kill", swanlockSays(t, dsn, 0, "kill", fmt.Sprint(third.BackendPID()), "--yes"), "ended session")
	heldHere(t, dsn, "7", "me")
	hasAll(t, "kill", swanlockSays(t, dsn, 0, "kill", "7", "--target", "--yes"), "ended session")
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	var name string
	if err := openDB(t, dsn).QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	execSQL(t, dsn, "ALTER DATABASE "+name+" SET statement_timeout = '4s'", "ALTER DATABASE "+name+" SET client_connection_check_interval = '5s'", "ALTER DATABASE "+name+" SET tcp_keepalives_idle = 60")
	text := swanlockSays(t, dsn, exitFailed, "doctor")
	hasAll(t, "doctor", text, "warning  timeouts", "statement_timeout is 4s, by database "+name, "why: ", "fix: ALTER DATABASE "+name+" RESET statement_timeout\n", "\nnot all is well\n")
	execSQL(t, dsn, "ALTER DATABASE "+name+" RESET statement_timeout")
	hasAll(t, "doctor", swanlockSays(t, dsn, 0, "doctor"), "\nall is well\n")
	var report pginspect.Report
	if err := json.Unmarshal([]byte(swanlockSays(t, dsn, 0, "doctor", "--json")), &report); err != nil || !report.Well || len(report.Findings) < 12 {
		t.Errorf("--json: %+v, %v", report, err)
	}
	swanlockCommand(t, []string{dsnVar + "=postgres://u@127.0.0.1:1/d?sslmode=disable"}, "doctor").start().want(exitUnavailable).says("cannot connect")
	hasAll(t, "doctor --verbose", swanlockSays(t, dsn, 0, "doctor", "--verbose"), "why: A lock belongs to a PostgreSQL session.")
}

// Behind a pooler the doctor finds it.
func TestDoctorPooler(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	for mode, want := range map[string]string{"transaction": "failure  pooler", "statement": "failure  pooler", "session": "ok       pooler"} {
		t.Run(mode, func(t *testing.T) {
			p := swanlockCommand(t, env(pgBouncer(t, dsn, mode)), "doctor").start()
			p.code()
			hasAll(t, "doctor", p.stdout.String(), want)
		})
	}
}
