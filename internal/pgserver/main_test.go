//go:build unix

package pgserver

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	os.Unsetenv(TemplateEnv) // initdb is tested here
	goleak.VerifyTestMain(Around(m))
}

func ExampleDefault() {
	// In the package's tests: func TestMain(m *testing.M) { pgserver.Main(m) }
	db, err := sql.Open("pgx", Default().URL("application_name=example"))
	if err != nil {
		panic(err)
	}
	defer db.Close()
	var name string
	if err := db.QueryRow("SELECT current_setting('application_name')").Scan(&name); err != nil {
		panic(err)
	}
	fmt.Println(name)
	// Output: example
}

func TestDefaultIsShared(t *testing.T) {
	if a, b := Default(), Default(); a != b {
		t.Errorf("two calls gave the servers %s and %s", a.Dir(), b.Dir())
	}
}

// start starts a server that is stopped, and must then be gone, at the end of the test.
func start(t *testing.T, opts ...Option) *Server {
	t.Helper()
	s, err := Start(context.Background(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	checkGone(t, s.Dir())
}

// open opens a database that is closed at the end of the test.
func open(t *testing.T, driver, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// query returns the one text that a query gives.
func query(t *testing.T, db *sql.DB, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var s string
	if err := db.QueryRowContext(ctx, sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// checkGone fails the test if anything of a server's folder is left: a file, a process, or one of our own children
// that nobody waited for.
func checkGone(t *testing.T, dir string) {
	t.Helper()
	left := remains(t, dir)
	for range 100 { // a parallel test's server may be a zombie for a moment
		if len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
		left = remains(t, dir)
	}
	t.Errorf("left of %s: %q", dir, left)
}

func remains(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 0 {
		left = append(left, files...)
	} else if _, err := os.Lstat(dir); err == nil {
		left = append(left, dir)
	}
	for _, pid := range processes(t, dir) {
		cmdline, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
		left = append(left, "process "+pid+": "+string(cmdline))
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, _ := os.ReadFile(file)
		if strings.Contains(string(stat), fmt.Sprintf(") Z %d ", os.Getpid())) {
			left = append(left, "zombie "+string(stat))
		}
	}
	return left
}

// processes returns the ids of the processes that work in dir or below, or have it among their arguments.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		t.Skip("needs /proc")
	}
	var pids []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
		cmdline, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if strings.HasPrefix(cwd, dir) || strings.Contains(string(cmdline), dir) {
			pids = append(pids, filepath.Base(proc))
		}
	}
	return pids
}
