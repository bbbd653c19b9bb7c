package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// beSwanlock makes the test binary the command itself.
const beSwanlock = "BE_SWANLOCK=1"

func TestMain(m *testing.M) {
	if mark := os.Getenv(countSignals); mark != "" {
		os.Exit(count(mark))
	}
	if name, value, _ := strings.Cut(beSwanlock, "="); os.Getenv(name) == value {
		main()
	}
	if signal.Ignored(syscall.SIGHUP) { // by nohup; and so by the processes, unless it is caught here
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	flag.Set("test.parallel", "6") // most tests wait for processes; the command line may say otherwise
	goleak.VerifyTestMain(pgserver.Around(m))
}

// patience is how long a test waits for what should come at once: machines are
// slow and busy.
const patience = 30 * time.Second

// A tested is a process under test.
type tested struct {
	*exec.Cmd
	t              *testing.T
	stdout, stderr bytes.Buffer
	ended          bool
}

// swanlockCommand prepares swanlock with args as a process in a session of its own, so
// that it has no terminal. It uses the default server, unless env says else.
func swanlockCommand(t *testing.T, env []string, args ...string) *tested {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &tested{Cmd: exec.Command(exe, args...), t: t}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "SWANL") {
			p.Env = append(p.Env, e)
		}
	}
	p.Env = append(p.Env, beSwanlock, "GORACE=atexit_sleep_ms=0")
	if env == nil {
		env = []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + migrated(t)}
	}
	p.Env = append(p.Env, env...)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.WaitDelay = time.Second
	return p
}

func (p *tested) start() *tested {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if !p.ended {
			_ = p.Process.Signal(syscall.SIGCONT)
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	return p
}

// code waits for the end and returns the exit code.
func (p *tested) code() int {
	p.t.Helper()
	timer := time.AfterFunc(2*patience, func() { _ = p.Process.Kill() })
	err := p.Wait()
	p.ended = true
	if !timer.Stop() {
		p.t.Fatalf("%q did not end; stderr:\n%s", p.Args[1:], &p.stderr)
	}
	if err != nil && p.ProcessState == nil {
		p.t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

func (p *tested) want(code int) *tested {
	p.t.Helper()
	if got := p.code(); got != code {
		p.t.Errorf("swanlock %q exits with %d, want %d; stderr:\n%s", p.Args[1:], got, code, &p.stderr)
	}
	return p
}

// says checks that stderr is one line with all of texts in it.
func (p *tested) says(texts ...string) *tested {
	p.t.Helper()
	got := p.stderr.String()
	if !strings.HasPrefix(got, "swanlock: ") || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") {
		p.t.Errorf("stderr is not one line of swanlock's:\n%s", got)
	}
	for _, text := range texts {
		if !strings.Contains(got, text) {
			p.t.Errorf("stderr has no %q:\n%s", text, got)
		}
	}
	return p
}

// swanlockRun starts it.
func swanlockRun(t *testing.T, args ...string) *tested {
	t.Helper()
	return swanlockCommand(t, nil, args...).start()
}

var migrateOnce sync.Once

// migrated is the address of the default server's database, with the audit.
func migrated(t *testing.T) string {
	t.Helper()
	dsn := pgserver.Default().URL()
	migrateOnce.Do(func() {
		db, err := openDSN(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		p, err := migrator(db)
		if err == nil {
			_, err = p.Up(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return dsn
}

// openDB is a view from outside.
func openDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := openDSN(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// newDatabase makes an empty one.
func newDatabase(t *testing.T) (dsn string) {
	t.Helper()
	name := fmt.Sprintf("db%d", time.Now().UnixNano())
	if _, err := openDB(t, pgserver.Default().URL()).Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	return pgserver.Default().URL("dbname=" + name)
}

// hold locks target in a session of the test's own, without any of our code but
// the key, and returns what frees it.
func hold(t *testing.T, target string, shared bool) (free func()) {
	t.Helper()
	conn, err := openDB(t, migrated(t)).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := "pg_try_advisory_lock"
	if shared {
		f = "pg_try_advisory_lock_shared"
	}
	var ok bool
	if err := conn.QueryRowContext(t.Context(), "SELECT "+f+"($1)", int64(pglock.KeyOf(target))).Scan(&ok); err != nil || !ok {
		t.Fatalf("%s of %q: %v, %v", f, target, ok, err)
	}
	return sync.OnceFunc(func() {
		_, err := conn.ExecContext(context.Background(), "SELECT pg_advisory_unlock_all()")
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Error(err)
		}
	})
}

// holders are the sessions that hold target, as the server sees it.
func holders(t *testing.T, target string) []int {
	t.Helper()
	d := &demo{db: openDB(t, migrated(t)), key: pglock.KeyOf(target)}
	pids, err := d.holders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// slow marks a test that takes seconds, by its nature.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
}

// eventually waits for what should come soon.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v there is still no %s", patience, what)
		}
	}
}

// file is a path in a folder of the test's own.
func file(t *testing.T) string { return filepath.Join(t.TempDir(), "file") }

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// runHere runs the command in this process.
func runHere(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}
