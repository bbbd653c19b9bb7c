package pginspect_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgserver.Around(m)) }

var bg = context.Background()

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

func eachDriver(t *testing.T, f func(t *testing.T, driver string)) {
	oneDriver(t, func(t *testing.T, driver string) {
		t.Parallel()
		f(t, driver)
	})
}

// oneDriver is eachDriver, one driver after the other.
func oneDriver(t *testing.T, f func(t *testing.T, driver string)) {
	drivers := []string{"postgres", "pgx"}
	if asked := os.Getenv("SWANLOCK_DRIVERS"); asked != "" && asked != "all" {
		drivers = strings.Split(asked, ",")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) { f(t, driver) })
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// address is that of a database of the shared server, for a role.
func address(t testing.TB, database, role string) string {
	t.Helper()
	u, err := url.Parse(pgserver.Default().URL())
	must(t, err)
	if database != "" {
		u.Path = database
	}
	if role != "" {
		u.User = url.User(role)
	}
	return u.String()
}

// connect opens a database; "" is the default one, which is migrated.
func connect(t testing.TB, driver, database string, role ...string) *sql.DB {
	t.Helper()
	migrateDefault()
	on, err := sql.Open(driver, address(t, database, strings.Join(role, "")))
	must(t, err)
	t.Cleanup(func() { on.Close() })
	return on
}

var migrateDefault = sync.OnceFunc(func() {
	on, err := sql.Open("postgres", pgserver.Default().URL())
	if err == nil {
		err = errors.Join(migrate(on), on.Close())
	}
	if err != nil {
		panic(err)
	}
})

func provider(on *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, on, migrations.FS, goose.WithTableName(migrations.Table))
}

func migrate(on *sql.DB) error {
	p, err := provider(on)
	if err == nil {
		_, err = p.Up(bg)
	}
	return err
}

// migrateTo applies the migrations up to version.
func migrateTo(t testing.TB, on *sql.DB, version int64) {
	t.Helper()
	p, err := provider(on)
	must(t, err)
	_, err = p.UpTo(bg, version)
	must(t, err)
}

// newDatabase makes an empty database, gone with the test.
func newDatabase(t testing.TB) (name string) {
	t.Helper()
	admin := connect(t, "postgres", "")
	name = fmt.Sprintf("inspect_%d", mathrand.Uint64())
	exec(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { exec(t, connectNow(t), "DROP DATABASE "+name+" WITH (FORCE)") })
	return name
}

// connectNow is connect for a cleanup.
func connectNow(t testing.TB) *sql.DB {
	on, err := sql.Open("postgres", pgserver.Default().URL())
	must(t, err)
	t.Cleanup(func() { on.Close() })
	return on
}

// newRole makes a role without rights, gone with the test.
func newRole(t testing.TB) (name string) {
	t.Helper()
	name = fmt.Sprintf("role_%d", mathrand.Uint64())
	exec(t, connect(t, "postgres", ""), "CREATE ROLE "+name+" LOGIN")
	t.Cleanup(func() { exec(t, connectNow(t), "DROP ROLE "+name) })
	return name
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func exec(t testing.TB, on execer, query string, args ...any) {
	t.Helper()
	if _, err := on.ExecContext(bg, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func one[T any](t testing.TB, on pginspect.DB, query string, args ...any) (v T) {
	t.Helper()
	if err := on.QueryRowContext(bg, query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func newTarget(t testing.TB) string { return "/" + t.Name() + "/" + rand.Text() }

// conn is a session of its own.
func conn(t testing.TB, on *sql.DB) *sql.Conn {
	t.Helper()
	c, err := on.Conn(bg)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// acquire takes a lock on a session of its own, freed with the test.
func acquire(t testing.TB, on *sql.DB, target string, sessionOptions []pglock.SessionOption, opts ...swanlock.Option) (*pglock.Session, swanlock.DistributedLock) {
	t.Helper()
	s := pglock.NewSession(conn(t, on), sessionOptions...)
	held, err := s.TryAcquire(bg, target, opts...)
	must(t, err)
	t.Cleanup(func() {
		held.Release(bg)
		s.Close(bg)
	})
	return s, held
}

var audited = []pglock.SessionOption{pglock.WithAudit()}

// wait starts an Acquire on a session of its own, and returns when it is in line.
func wait(t testing.TB, on *sql.DB, target string) (pid int, cancel func()) {
	t.Helper()
	c := conn(t, on)
	pid = one[int](t, c2db{c}, "SELECT pg_backend_pid()")
	s := pglock.NewSession(c)
	ctx, stop := context.WithCancel(bg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if held, err := s.Acquire(ctx, target); err == nil {
			held.Release(bg)
		}
		s.Close(bg)
	}()
	cancel = sync.OnceFunc(func() { stop(); <-done })
	t.Cleanup(cancel)
	eventually(t, "a place in line", func() bool {
		return one[bool](t, on, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND objsubid = 2 AND mode = 'ExclusiveLock' AND objid::bigint & 262143 > 0)", pid)
	})
	return pid, cancel
}

// c2db makes a *sql.Conn a DB.
type c2db struct{ *sql.Conn }

// addRow writes a row of the audit, whose hold began ago before now and ended
// after it had lasted for held; a negative held is a row that nobody closed.
func addRow(t testing.TB, on pginspect.DB, target, owner string, ago, held time.Duration) (id int64) {
	t.Helper()
	return one[int64](t, on, `
		INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason)
		SELECT $1, $2, $3, 0, 'exclusive', 1, at, at, at, CASE WHEN $5::float8 >= 0 THEN at + $5::float8 * interval '1 second' END, CASE WHEN $5 >= 0 THEN 'released' END
		FROM (SELECT now() - $4::float8 * interval '1 second' AS at) t RETURNING id`,
		target, int64(swanlock.KeyOf(target)), owner, ago.Seconds(), held.Seconds())
}

func contextWithCancel() (context.Context, func()) { return context.WithCancel(bg) }

func openURL(t testing.TB, driver, url string) *sql.DB {
	t.Helper()
	on, err := sql.Open(driver, url)
	must(t, err)
	t.Cleanup(func() { on.Close() })
	return on
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func sprint(v any) string { return fmt.Sprint(v) }
