package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

func sh(script string, args ...string) []string {
	return append([]string{"--", "/bin/sh", "-c", script, "sh"}, args...)
}

// runArgs is "run", flags and target, and a script.
func runArgs(head string, script string, args ...string) []string {
	return append(append([]string{"run"}, strings.Fields(head)...), sh(script, args...)...)
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{
		"exit 0":        0,
		"exit 7":        7,
		"exit 255":      255,
		"kill -9 $$":    128 + 9,
		"kill -TERM $$": 128 + 15,
	} {
		p := swanlockRun(t, runArgs("exit-code-"+fmt.Sprint(want), script)...).want(want)
		if got := p.stdout.String() + p.stderr.String(); got != "" {
			t.Errorf("%s: swanlock itself says %q", script, got)
		}
	}
}

// What cannot be run is found out before the server is asked for anything.
func TestCommandNotFound(t *testing.T) {
	t.Parallel()
	none := []string{"NO_SERVER=1"}
	swanlockCommand(t, none, "run", "t", "--", "swanlock-no-such-command").start().want(127).says(`"swanlock-no-such-command" was not found`)
	swanlockCommand(t, none, "run", "t", "--", "/no/such/command").start().want(127).says(`"/no/such/command" was not found`)
	plain := file(t)
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	swanlockCommand(t, none, "run", "t", "--", plain).start().want(126).says("cannot be run: permission denied")
	swanlockCommand(t, none, "run", "t", "--", t.TempDir()).start().want(126).says("cannot be run")
}

// What turns out not to run when it is tried leaves nothing locked.
func TestCommandDoesNotStart(t *testing.T) {
	t.Parallel()
	bad := file(t)
	if err := os.WriteFile(bad, []byte("\x00\x01 no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	swanlockRun(t, "run", "not-started", "--", bad).want(126).says("exec format error")
	if err := os.WriteFile(bad, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	swanlockRun(t, "run", "not-started", "--", bad).want(127).says("no such file")
	if pids := holders(t, "not-started"); len(pids) != 0 {
		t.Errorf("still held by %v", pids)
	}
}

// The command runs while the lock is held, seen from another session, and not
// longer.
func TestHeldWhileItRuns(t *testing.T) {
	t.Parallel()
	mark, target := file(t), "held while it runs"
	p := swanlockRun(t, append([]string{"run", target}, sh(`: >"$1"; while [ -e "$1" ]; do sleep 0.02; done`, mark)...)...)
	eventually(t, "mark", func() bool { return exists(mark) })
	if n := len(holders(t, target)); n != 1 {
		t.Errorf("%d sessions hold the target, want 1", n)
	}
	os.Remove(mark)
	p.want(0)
	if n := len(holders(t, target)); n != 0 {
		t.Errorf("%d sessions still hold the target", n)
	}
}

func TestHeldElsewhere(t *testing.T) {
	t.Parallel()
	mark := file(t)
	free := hold(t, "held", false)
	swanlockRun(t, runArgs("held", `: >"$1"`, mark)...).want(1).says(`"held" is held elsewhere`)
	swanlockRun(t, runArgs("-E 42 held", `: >"$1"`, mark)...).want(42)
	swanlockRun(t, runArgs("-E 0 held", `: >"$1"`, mark)...).want(0)
	swanlockRun(t, runArgs("--conflict-exit-code 43 --shared held", `: >"$1"`, mark)...).want(43)
	if exists(mark) {
		t.Error("the command was run")
	}
	free()
	swanlockRun(t, runArgs("held", `: >"$1"`, mark)...).want(0)
	if !exists(mark) {
		t.Error("the command was not run")
	}
}

func TestShared(t *testing.T) {
	t.Parallel()
	defer hold(t, "shared", true)()
	swanlockRun(t, runArgs("--shared shared", "exit 3")...).want(3)
	swanlockRun(t, runArgs("shared", "exit 3")...).want(1)
}

func TestWait(t *testing.T) {
	t.Parallel()
	mark := file(t)
	free := hold(t, "wait", false)
	p := swanlockRun(t, runArgs("--wait wait", `: >"$1"`, mark)...)
	q := swanlockRun(t, runArgs("--timeout 10m wait", `: >"$1"`, mark)...)
	time.Sleep(500 * time.Millisecond)
	if exists(mark) {
		t.Error("the command ran while the lock was held elsewhere")
	}
	free()
	p.want(0)
	q.want(0)
}

func TestTimeout(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	defer hold(t, "timeout", false)()
	began := time.Now()
	swanlockRun(t, runArgs("--timeout 5s -E 5 timeout", `: >"$1"`, mark)...).want(5).says(`"timeout" was held elsewhere for all of 5s`)
	if took := time.Since(began); took < 5*time.Second {
		t.Errorf("gave up after %v", took)
	}
	if exists(mark) {
		t.Error("the command was run")
	}
}

// A signal ends the wait, and the command is not run.
func TestSignalWhileWaiting(t *testing.T) {
	t.Parallel()
	mark := file(t)
	free := hold(t, "signal while waiting", false)
	defer free()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1} {
		p := swanlockCommand(t, nil, append([]string{"run", "--wait", "signal while waiting"}, sh(`: >"$1"`, mark)...)...)
		name := fmt.Sprintf("waits %d %d", sig, time.Now().UnixNano())
		p.Env = append(p.Env, "PGAPPNAME="+name)
		p.start()
		eventually(t, "session", func() (connected bool) {
			err := openDB(t, migrated(t)).QueryRow("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = $1", name).Scan(&connected)
			return err == nil && connected
		})
		if err := p.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		p.want(128 + int(sig)).says("ended by a signal")
	}
	free()
	if exists(mark) {
		t.Error("the command was run")
	}
}

func TestChildEnvironment(t *testing.T) {
	t.Parallel()
	env := func(flags ...string) string {
		args := append(append([]string{"run"}, flags...), "an env 'target", "--", "/bin/sh", "-c", "env | grep ^SWANLOCK_ | sort")
		p := swanlockCommand(t, nil, args...)
		// As if inside another swanlock run.
		p.Env = append(p.Env, "SWANLOCK_FENCE=1", "SWANLOCK_KEY=2", "SWANLOCK_TARGET=outer")
		return p.start().want(0).stdout.String()
	}
	want := fmt.Sprintf("SWANLOCK_KEY=%d\nSWANLOCK_TARGET=an env 'target\n", pglock.KeyOf("an env 'target"))
	if got := env(); got != want {
		t.Errorf("the command sees\n%swant\n%s", got, want)
	}
	var first, second uint64
	for _, fence := range []*uint64{&first, &second} {
		got := env("--fence")
		if _, err := fmt.Sscanf(got, "SWANLOCK_FENCE=%d\n", fence); err != nil || !strings.HasSuffix(got, "\n"+want) {
			t.Errorf("with --fence the command sees\n%s", got)
		}
	}
	if first < 2 || second <= first {
		t.Errorf("fences %d, %d do not rise", first, second)
	}
}

// The command has stdin for itself, and arguments arrive as they are.
func TestStdin(t *testing.T) {
	t.Parallel()
	in := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(in, []byte("one\ntwo\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := swanlockCommand(t, nil, append([]string{"run", "stdin"}, sh(`read a; echo "$a|$1|$2"; echo oops >&2; cat`, "", "a  b*\n")...)...)
	p.Stdin = f
	p.start().want(0)
	if got, want := p.stdout.String(), "one||a  b*\n\ntwo\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got := p.stderr.String(); got != "oops\n" {
		t.Errorf("stderr %q", got)
	}
}

// An audit that cannot be written any more is told, but it is no loss.
func TestAuditIsGone(t *testing.T) {
	t.Parallel()
	dsn, mark := newDatabase(t), file(t)
	migrateSays(t, dsn, "up")
	p := swanlockCommand(t, env(dsn), runArgs("--audit "+t.Name(), `: >"$1"; while [ -e "$1" ]; do sleep 0.01; done; exit 3`, mark)...).start()
	eventually(t, "command", func() bool { return exists(mark) })
	execSQL(t, dsn, "ALTER TABLE lock_audit RENAME TO lock_audit_old")
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	p.want(3).says("lock_audit")
}

func TestAudit(t *testing.T) {
	t.Parallel()
	target := fmt.Sprint("audited ", time.Now().UnixNano()) // -count runs it again
	swanlockRun(t, "run", "--audit", "--owner", "an auditor", "--ttl", "20s", target, "--", "true").want(0)
	swanlockRun(t, "run", target, "--", "true").want(0)
	var (
		n          int
		owner, end string
		ttl        int64
	)
	err := openDB(t, migrated(t)).QueryRow("SELECT count(*), max(owner), max(end_reason), max(ttl_ms) FROM lock_audit WHERE target = $1", target).Scan(&n, &owner, &end, &ttl)
	if err != nil || n != 1 || owner != "an auditor" || end != "released" || ttl != 20000 {
		t.Errorf("audit: %d rows, owner %q, end %q, ttl %d, %v", n, owner, end, ttl, err)
	}
}

func TestNoAuditTable(t *testing.T) {
	t.Parallel()
	mark := file(t)
	dsn := newDatabase(t)
	env := []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn}
	p := swanlockCommand(t, env, runArgs("--audit unaudited", `: >"$1"`, mark)...).start()
	p.want(78).says("swanlock migrate up")
	if exists(mark) {
		t.Error("the command was run")
	}
	swanlockCommand(t, env, "migrate", "up").start().want(0)
	swanlockCommand(t, env, runArgs("--audit unaudited", `: >"$1"`, mark)...).start().want(0)
	if !exists(mark) {
		t.Error("the command was not run")
	}
}

// No server is ever started or guessed by itself.
func TestNoServer(t *testing.T) {
	t.Parallel()
	none := []string{"NO_SERVER=1"}
	mark := file(t)
	for _, args := range [][]string{runArgs("t", `: >"$1"`, mark), {"migrate", "up"}, {"migrate", "down"}, {"migrate", "status"}} {
		swanlockCommand(t, none, args...).start().want(78).
			says("no PostgreSQL server is configured", "SWANLAKE_LOCK_POSTGRES_CONNECTION", "swanlock dev")
	}
	if exists(mark) {
		t.Error("the command was run")
	}
}

// A server that does not do: said in one line, without the password.
func TestBadServer(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-w0rd"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good := pgserver.Default().Addr()
	for _, tt := range []struct {
		dsn  string
		code int
	}{
		{"postgres://u:" + secret + "@" + closed + "/d?sslmode=disable", 69},
		{"postgres://u:" + secret + "@" + silent.Addr().String() + "/d?sslmode=disable&connect_timeout=1", 69},
		{"postgres://postgres:" + secret + "@" + good + "/no_such_database?sslmode=disable", 69},
		{"postgres://no_such_user:" + secret + "@" + good + "/postgres?sslmode=disable", 69},
		{"postgres://u:" + secret + "@host:port/d", 78},
		{"postgres://u:" + secret + "%zz@host/d", 78},
		{"host=h password='" + secret, 78},
		{"host=h nonsense=" + secret, 78},
		{"password=" + secret + " host", 78},
		{secret, 78},
	} {
		p := swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + tt.dsn}, "run", "t", "--", "true").start().want(tt.code).says()
		if got := p.stderr.String(); strings.Contains(got, secret) {
			t.Errorf("%s: the password is in %q", tt.dsn, got)
		}
	}
}

// A name can hold anything; what swanlock prints of it does nothing to a
// terminal or a log.
func TestHostileTarget(t *testing.T) {
	t.Parallel()
	const controls = "\x1b\u202e\r\x07\u009b"
	for _, target := range []string{"\x1b[2J\x1b[31m", "a\nswanlock: b", "\r\x07", "\u009b2J", "\x9b2J", "\u202egpj.exe", "%s%n%!d", "'; DROP TABLE lock_audit; --", strings.Repeat("y", 100_000)} {
		if utf8.ValidString(target) {
			free := hold(t, target, false)
			p := swanlockRun(t, "run", "--audit", target, "--", "true").want(1).says("is held elsewhere")
			if got := p.stderr.String(); len(got) > 1000 || strings.ContainsAny(got, controls) {
				t.Errorf("stderr: %q", got)
			}
			free()
			swanlockRun(t, "run", "--audit", target, "--", "true").want(0)
		}
		p := swanlockRun(t, "run", target, "--", target)
		if code := p.code(); code != 127 && code != 64 && code != 126 {
			t.Errorf("a command named %.20q: %d, %s", target, code, &p.stderr)
		}
		if got := p.says().stderr.String(); len(got) > 1100 || strings.ContainsAny(got, controls) || !utf8.ValidString(got) {
			t.Errorf("stderr: %q", got)
		}
	}
}

// The driver's own errors about a connection string quote it.
func TestUnreadableDSN(t *testing.T) {
	const secret = "s3cr3t-w0rd"
	for _, dsn := range []string{"postgres://u:" + secret + "@h:x/d", "host=h sslmode=" + secret, "postgres://u:" + secret + "%zz@h/d"} {
		_, err := openDSN(t.Context(), dsn)
		if f, ok := errors.AsType[*failure](err); !ok || f.code != 78 || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

// keepsAtLeast checks that run keeps the lock for least after a command that takes
// less, with the command's exit code.
