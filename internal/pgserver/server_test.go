//go:build unix

package pgserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestConnect(t *testing.T) {
	s := Default()
	version := strconv.Itoa(s.Version())
	admin := open(t, "pgx", s.URL())
	for _, statement := range []string{"DROP DATABASE IF EXISTS app", "CREATE DATABASE app"} { // with -count, the server is there already
		if _, err := admin.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, driver := range []string{"postgres", "pgx"} {
		for _, tt := range []struct {
			name, url, address, database string
		}{
			{"TCP", s.URL("application_name=a b+c&d=e"), "127.0.0.1", "postgres"},
			{"socket", s.SocketURL("application_name=a b+c&d=e"), "", "postgres"},
			{"TCP dbname", s.URL("application_name=a b+c&d=e", "dbname=template1"), "127.0.0.1", "template1"},
			{"TCP dbname that sorts first", s.URL("application_name=a b+c&d=e", "dbname=app"), "127.0.0.1", "app"},
			{"socket dbname", s.SocketURL("application_name=a b+c&d=e", "dbname=template1"), "", "template1"},
		} {
			t.Run(driver+" "+tt.name, func(t *testing.T) {
				got := query(t, open(t, driver, tt.url), `SELECT concat_ws(',', current_user, current_database(),
					inet_server_addr(), current_setting('application_name'), current_setting('server_version_num'))`)
				want := "postgres," + tt.database + ","
				if tt.address != "" {
					want += tt.address + ","
				}
				want += "a b+c&d=e," + version
				if got != want {
					t.Errorf("%s: got %q, want %q", tt.url, got, want)
				}
			})
		}
	}
}

func TestSettings(t *testing.T) {
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("LC_MESSAGES", "de_DE.UTF-8")
	s := start(t, WithSetting("idle_session_timeout", "4711"), WithSetting("search_path", `a'b\c`))
	db := open(t, "pgx", s.URL())
	for name, want := range map[string]string{
		"idle_session_timeout":       "4711ms",
		"search_path":                `a'b\c`,
		"fsync":                      "off",
		"synchronous_commit":         "on",
		"full_page_writes":           "off",
		"max_connections":            "200",
		"dynamic_shared_memory_type": "mmap",
		"listen_addresses":           "127.0.0.1",
		"unix_socket_directories":    s.Dir(),
		"server_encoding":            "UTF8",
		"lc_messages":                "C",
		"TimeZone":                   "UTC",
	} {
		if got := query(t, db, "SHOW "+name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestNotRoot(t *testing.T) {
	s := Default()
	for _, file := range []string{s.Dir(), "/proc/" + strconv.Itoa(s.PID()), "/proc/" + strconv.Itoa(s.guard.cmd.Process.Pid)} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid == 0 {
			t.Errorf("%s is root's", file)
		}
	}
	info, _ := os.Stat(s.Dir())
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("%s: mode is %o, want 700", s.Dir(), got)
	}
}

// The leak check of a test finds nothing of a server that runs on after it.
func TestNoGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := start(t)
	goleak.VerifyNone(t, before)
	if err := s.Restart(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

// A server runs on when nothing but its URL is left.
func TestForgottenServer(t *testing.T) {
	temp := openTemp(t)
	url := func() string {
		s, err := Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.URL()
	}()
	for range 5 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	query(t, open(t, "pgx", url), "SELECT 'here'")
	guards.Range(func(g, _ any) bool {
		if guard := g.(*guard); filepath.Dir(guard.dir) == temp {
			stop(t, &Server{guard: guard, pid: postmaster(t, guard.dir)})
		}
		return true
	})
	checkEmpty(t, temp)
}

func TestStopTwice(t *testing.T) {
	s := start(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			checkGone(t, s.Dir())
		})
	}
	wg.Wait()
	if got := s.PID(); got != 0 {
		t.Errorf("PID of a stopped server is %d, want 0", got)
	}
	if err := s.Restart(t.Context(), Fast); err == nil || !strings.Contains(err.Error(), "has been stopped") {
		t.Errorf("restart of a stopped server: got %v, want that it has been stopped", err)
	}
}

func TestParallelStarts(t *testing.T) {
	var wg sync.WaitGroup
	var addrs sync.Map
	for range 4 {
		wg.Go(func() {
			s, err := Start(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			if _, taken := addrs.LoadOrStore(s.Addr(), s); taken {
				t.Errorf("two servers have %s", s.Addr())
			}
			stop(t, s)
		})
	}
	wg.Wait()
}

func TestPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port

	calls := 0
	s := start(t, func(o *options) {
		o.ports = func() (int, error) {
			if calls++; calls < 3 {
				return taken, nil
			}
			return freePort()
		}
	})
	if calls != 3 || s.Addr() == l.Addr().String() {
		t.Errorf("started on %s after %d ports, want another than %s after 3", s.Addr(), calls, l.Addr())
	}
	query(t, open(t, "pgx", s.URL()), "SELECT 'here'")

	none, err := Start(t.Context(), func(o *options) { o.ports = func() (int, error) { return taken, nil } })
	if err == nil {
		stop(t, none)
		t.Error("started on a port that is taken")
	} else if !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("the error does not say that the port is taken: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        string // from the server's log
	}{
		{"shared_buffers", "much", `invalid value for parameter "shared_buffers": "much"`},
		{"no_such_setting", "on", `unrecognized configuration parameter "no_such_setting"`},
		{"ssl", "on", `could not load server certificate file "server.crt"`}, // found only when it starts
	} {
		t.Run(tt.name, func(t *testing.T) {
			temp := openTemp(t)
			s, err := Start(t.Context(), WithSetting(tt.name, tt.value))
			if err == nil {
				stop(t, s)
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), BinEnv) {
				t.Errorf("the error has neither the log's %q nor what to do: %v", tt.want, err)
			}
			checkEmpty(t, temp)
		})
	}
}

func TestStartIsCancelled(t *testing.T) {
	temp := openTemp(t)
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		s, err := Start(ctx)
		cancel()
		if err == nil {
			stop(t, s)
			t.Logf("started within %v", after)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: got %v, want the context's error", after, err)
		}
		checkEmpty(t, temp)
	}
}

func TestRestart(t *testing.T) {
	s := start(t)
	db := open(t, "pgx", s.URL())
	query(t, db, "WITH w AS (SELECT set_config('x.y', 'z', false)) SELECT * FROM w")
	mustExec(t, db, "CREATE TABLE kept (mode text)")
	mustExec(t, db, "ALTER SYSTEM SET max_connections = 33")
	addr := s.Addr()
	for i, mode := range []Mode{Fast, Immediate} {
		mustExec(t, db, fmt.Sprintf("INSERT INTO kept VALUES ('%s')", mode))
		pid := s.PID()
		if err := s.Restart(t.Context(), mode); err != nil {
			t.Fatal(err)
		}
		if s.PID() == pid || s.Addr() != addr {
			t.Errorf("%s: postmaster %d on %s became %d on %s, want another on the same port", mode, pid, addr, s.PID(), s.Addr())
		}
		for _, url := range []string{s.URL(), s.SocketURL()} {
			db = open(t, "postgres", url)
			if got, want := query(t, db, "SELECT count(*) FROM kept"), strconv.Itoa(i+1); got != want {
				t.Errorf("%s: %s rows were kept, want %s", mode, got, want)
			}
		}
		if got := query(t, db, "SHOW max_connections"); got != "33" {
			t.Errorf("%s: max_connections is %s, want 33, as ALTER SYSTEM set it", mode, got)
		}
		log, _ := os.ReadFile(s.logFile())
		if crashed := strings.Contains(string(log), "was not properly shut down"); crashed != (mode == Immediate) {
			t.Errorf("%s: recovered from a crash: %v", mode, crashed)
		}
	}
	if err := s.Restart(t.Context(), "slow"); err == nil {
		t.Error("restarted in mode slow")
	}
	if got := query(t, db, "SELECT count(*) FROM kept"); got != "2" {
		t.Errorf("a mode that does not exist disturbed the server: %s rows", got)
	}
}

// A server whose postmaster was killed can be brought back, once the last of its backends has gone.
func TestRestartAfterKill(t *testing.T) {
	s := start(t)
	db := open(t, "pgx", s.URL())
	mustExec(t, db, "CREATE TABLE kept ()")
	backend, err := strconv.Atoi(query(t, db, "SELECT pg_backend_pid()"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kill := range []struct {
		pid    int
		signal syscall.Signal
	}{{backend, syscall.SIGSTOP}, {s.PID(), syscall.SIGKILL}} {
		if err := syscall.Kill(kill.pid, kill.signal); err != nil {
			t.Fatal(err)
		}
	}
	time.AfterFunc(300*time.Millisecond, func() { syscall.Kill(backend, syscall.SIGCONT) })
	begin := time.Now()
	if err := s.Restart(t.Context(), Immediate); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("restarted after %v, while a backend of the old postmaster was there", took)
	}
	mustExec(t, open(t, "pgx", s.URL()), "SELECT FROM kept")
}

// Tests of recovery and failover make a standby this way.
func TestRestartAsStandby(t *testing.T) {
	s := start(t)
	if err := os.WriteFile(filepath.Join(s.Dir(), "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context(), Fast); err != nil {
		t.Fatal(err)
	}
	if got := query(t, open(t, "pgx", s.URL()), "SELECT pg_is_in_recovery()"); got != "true" {
		t.Errorf("in recovery: got %s, want true", got)
	}
}

func mustExec(t *testing.T, db *sql.DB, sql string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := Start(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkStop(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s, err := Start(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Stop(); err != nil {
			b.Fatal(err)
		}
	}
}

// postmaster returns the process id of the postmaster of the server in dir.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
