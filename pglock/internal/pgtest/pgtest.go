package pgtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Soon is how long an event may take that nothing but the machine delays.
const Soon = 20 * time.Second

// Background is for calls that nothing should cut short.
var Background = context.Background()

// Shortly returns a context for calls that nothing but a bug keeps from
// returning. It ends after Soon, or with the test.
func Shortly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(Background, Soon)
	t.Cleanup(cancel)
	return ctx
}

// Cancelled returns a context that has ended, and the cause of that.
func Cancelled() (context.Context, error) {
	cause := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(Background)
	cancel(cause)
	return ctx, cause
}

// NewTarget returns a target of t's own.
func NewTarget(t testing.TB) string { return t.Name() + "/" + rand.Text() }

// OpenDB opens a *sql.DB on the shared server, closed with the test. Each of
// params, a "name=value", is added to the server's address; dbname and user
// replace what is there.
func OpenDB(t testing.TB, driver string, params ...string) *sql.DB {
	t.Helper()
	return OpenURL(t, driver, WithParams(t, Server(t).URL(), params...))
}

// WithParams adds params to a URL as OpenDB does.
func WithParams(t testing.TB, address string, params ...string) string {
	t.Helper()
	u, err := url.Parse(address)
	Must(t, err)
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
	return u.String()
}

// OpenURL opens a *sql.DB, closed with the test.
func OpenURL(t testing.TB, driver, url string) *sql.DB {
	t.Helper()
	db, closeDB, err := Open(driver, url)
	Must(t, err)
	t.Cleanup(func() {
		if err := closeDB(); errors.Is(err, errNotGivenBack) {
			t.Error(err)
		}
	})
	return db
}

// Dial returns a connection that is a PostgreSQL session of its own, closed with
// the test.
func Dial(t testing.TB, driver string, params ...string) *sql.Conn {
	t.Helper()
	return ConnOf(t, OpenDB(t, driver, params...))
}

// ConnOf returns one of db's connections, closed with the test.
func ConnOf(t testing.TB, db *sql.DB) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(Background)
	Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Must fails the test on an error. It is for what a test takes for granted.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WantIs checks that err matches all of targets.
func WantIs(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got error %v, want one that matches %q", err, target)
		}
	}
}

// Eventually waits for what the server does in its own time, for Soon at most. It
// looks less often the longer that takes: most looks are statements.
func Eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); {
		waited := time.Since(start)
		if waited > Soon {
			t.Fatalf("after %v still not: %s", Soon, what)
		}
		time.Sleep(min(max(waited/20, 2*time.Millisecond), 50*time.Millisecond))
	}
}

// A Querier is a *sql.DB, *sql.Conn or *sql.Tx.
type Querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// One returns the one value that a query answers.
func One[T any](t testing.TB, q Querier, query string, args ...any) T {
	t.Helper()
	var v T
	if err := q.QueryRowContext(Background, query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// Column returns the values of the one column that a query answers.
func Column[T any](t testing.TB, db *sql.DB, query string, args ...any) (values []T) {
	t.Helper()
	rows, err := db.QueryContext(Background, query, args...)
	Must(t, err)
	defer rows.Close()
	for rows.Next() {
		var v T
		Must(t, rows.Scan(&v))
		values = append(values, v)
	}
	Must(t, rows.Err())
	return values
}

// An Execer is a *sql.DB, *sql.Conn or *sql.Tx.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Run executes a statement.
func Run(t testing.TB, e Execer, query string, args ...any) {
	t.Helper()
	if _, err := e.ExecContext(Background, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// PIDOf asks a connection for the process id of its backend.
func PIDOf(t testing.TB, conn *sql.Conn) int {
	t.Helper()
	return One[int](t, conn, "SELECT pg_backend_pid()")
}

// WatchScheduler measures by how much the machine makes this process late, so
// that a test can tell a lock that was freed too late from a busy machine.
func WatchScheduler(t testing.TB) (late func() time.Duration) {
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
