package pglock_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// eachDriver runs f on each of drivers, at the same time.
func eachDriver(t *testing.T, f func(t *testing.T, driver string)) {
	t.Helper()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			f(t, driver)
		})
	}
}

// soon is how long an event may take that nothing but the machine delays.
const soon = 20 * time.Second

// bg is for calls that nothing should cut short.
var bg = context.Background()

// shortly is for calls that nothing but a bug keeps from returning.
func shortly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(bg, soon)
	t.Cleanup(cancel)
	return ctx
}

// newTarget is a target of t's own.
func newTarget(t testing.TB) string { return t.Name() + "/" + rand.Text() }

// openDB opens a pool that is closed with the test. Each parameter is added to
// the server's address.
func openDB(t testing.TB, driver string, params ...string) *sql.DB {
	t.Helper()
	u, err := url.Parse(server(t).URL())
	must(t, err)
	for _, param := range params {
		name, value, _ := strings.Cut(param, "=")
		switch name {
		case "dbname":
			u.Path = value
		case "user":
			u.User = url.User(value)
		default:
			u.RawQuery += "&" + param
		}
	}
	return openURL(t, driver, u.String())
}

func openURL(t testing.TB, driver, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// dial gives a connection that is a PostgreSQL session of its own.
func dial(t testing.TB, driver string, params ...string) *sql.Conn {
	t.Helper()
	return connOf(t, openDB(t, driver, params...))
}

func connOf(t testing.TB, db *sql.DB) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(bg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// newSession is a Session on a connection of its own, closed with the test.
func newSession(t testing.TB, driver string, opts ...pglock.SessionOption) (*pglock.Session, *sql.Conn) {
	t.Helper()
	conn := dial(t, driver)
	s := pglock.NewSession(conn, opts...)
	t.Cleanup(func() { s.Close(bg) })
	return s, conn
}

// must is for what a test takes for granted.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantIs checks err's meaning.
func wantIs(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got error %v, want one that matches %q", err, target)
		}
	}
}

// acquired takes a lock that must be free.
func acquired(t testing.TB, l swanlock.Locker, target string, opts ...swanlock.Option) *pglock.PostgresLock {
	t.Helper()
	held, err := l.TryAcquire(bg, target, opts...)
	must(t, err)
	return held.(*pglock.PostgresLock)
}

// ended waits for the lock's end and returns its error.
func ended(t testing.TB, l swanlock.DistributedLock) error {
	t.Helper()
	select {
	case <-l.Done():
	case <-time.After(soon):
		t.Fatal("Done was not closed")
	}
	if l.Err() == nil {
		t.Fatal("Done is closed, but Err is nil")
	}
	return l.Err()
}

// eventually waits for what the server does in its own time.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", soon, what)
		}
	}
}

// pidOf asks a connection for its backend.
func pidOf(t testing.TB, conn *sql.Conn) int {
	t.Helper()
	return one[int](t, conn, "SELECT pg_backend_pid()")
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// one asks for one value.
func one[T any](t testing.TB, q querier, query string, args ...any) T {
	t.Helper()
	var v T
	if err := q.QueryRowContext(bg, query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// column asks for the values of one column.
func column[T any](t testing.TB, db *sql.DB, query string, args ...any) (values []T) {
	t.Helper()
	rows, err := db.QueryContext(bg, query, args...)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var v T
		must(t, rows.Scan(&v))
		values = append(values, v)
	}
	must(t, rows.Err())
	return values
}

func run(t testing.TB, conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := conn.ExecContext(bg, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// An observer is a session of its own that reads outcomes from the server.
type observer struct {
	t  testing.TB
	db *sql.DB
}

func observe(t testing.TB, params ...string) observer {
	t.Helper()
	return observer{t, openDB(t, "postgres", append(params, "binary_parameters=yes")...)}
}

// in is the same observer for a test of its own.
func (o observer) in(t testing.TB) observer { return observer{t, o.db} }

// ofKey selects the holders of a key from pg_locks as the documentation of
// pg_locks splits it.
const ofKey = `SELECT pid, mode FROM pg_catalog.pg_locks
	WHERE locktype = 'advisory' AND granted AND objsubid = 1
	AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
	AND (classid::bigint << 32) | objid::bigint = $1::bigint`

// holders is the backends that hold the target now.
func (o observer) holders(target string) []int {
	o.t.Helper()
	return column[int](o.t, o.db, "SELECT pid FROM ("+ofKey+") k ORDER BY pid", int64(pglock.KeyOf(target)))
}

// locks is the modes in which backends hold the target now.
func (o observer) locks(target string) map[int]string {
	o.t.Helper()
	rows, err := o.db.QueryContext(bg, ofKey, int64(pglock.KeyOf(target)))
	must(o.t, err)
	defer rows.Close()
	modes := make(map[int]string)
	for rows.Next() {
		var pid int
		var mode string
		must(o.t, rows.Scan(&pid, &mode))
		modes[pid] = mode
	}
	must(o.t, rows.Err())
	return modes
}

// wantHeld checks that exactly these backends hold the target.
func (o observer) wantHeld(target string, pids ...int) {
	o.t.Helper()
	slices.Sort(pids)
	if got := o.holders(target); !slices.Equal(got, pids) {
		o.t.Fatalf("%s is held by backends %v, want %v", target, got, pids)
	}
}

// wantSoonFree waits until nobody holds the target.
func (o observer) wantSoonFree(target string) {
	o.t.Helper()
	eventually(o.t, target+" is free", func() bool { return len(o.holders(target)) == 0 })
}

// locksOf counts the advisory locks of a backend.
func (o observer) locksOf(pid int) int {
	o.t.Helper()
	return one[int](o.t, o.db, "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = $1::int", pid)
}

// alive says whether there is such a backend.
func (o observer) alive(pid int) bool {
	o.t.Helper()
	return one[bool](o.t, o.db, "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1::int)", pid)
}

// kill ends a backend, and waits until it has ended.
func (o observer) kill(pid int) {
	o.t.Helper()
	one[bool](o.t, o.db, "SELECT pg_terminate_backend($1::int)", pid)
	eventually(o.t, "the backend has ended", func() bool { return !o.alive(pid) })
}

// watchScheduler measures by how much the machine makes this process late, so
// that a test can tell a lock that was freed too late from a busy machine.
func watchScheduler(t testing.TB) (late func() time.Duration) {
	const tick = 10 * time.Millisecond
	var worst atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-time.After(tick):
			}
			now := time.Now()
			worst.Store(max(worst.Load(), int64(now.Sub(last)-tick)))
			last = now
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return func() time.Duration { return time.Duration(worst.Load()) }
}

// cancelled is a context that has ended, with a cause of its own.
func cancelled() (context.Context, error) {
	cause := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(bg)
	cancel(cause)
	return ctx, cause
}
