package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// The apparatus of the tests is in the package pgtest. This file has short
// names for the parts that many tests use, and the helpers that need pglock.

const soon = pgtest.Soon

var (
	bg        = pgtest.Background
	drivers   = pgtest.Drivers
	everyMode = pgtest.EveryMode

	eachDriver     = pgtest.EachDriver
	isPQ           = pgtest.IsPQ
	shortly        = pgtest.Shortly
	cancelled      = pgtest.Cancelled
	newTarget      = pgtest.NewTarget
	server         = pgtest.Server
	ownServer      = pgtest.OwnServer
	admit          = pgtest.Admit
	provider       = pgtest.Provider
	newDatabase    = pgtest.NewDatabase
	newRole        = pgtest.NewRole
	openDB         = pgtest.OpenDB
	openURL        = pgtest.OpenURL
	dial           = pgtest.Dial
	connOf         = pgtest.ConnOf
	startChild     = pgtest.StartChild
	must           = pgtest.Must
	wantIs         = pgtest.WantIs
	eventually     = pgtest.Eventually
	run            = pgtest.Run
	pidOf          = pgtest.PIDOf
	watchScheduler = pgtest.WatchScheduler
)

type (
	child  = pgtest.Child
	pooler = pgtest.Pooler
	strict = pgtest.Strict
)

func one[T any](t testing.TB, q pgtest.Querier, query string, args ...any) T {
	t.Helper()
	return pgtest.One[T](t, q, query, args...)
}

func column[T any](t testing.TB, db *sql.DB, query string, args ...any) []T {
	t.Helper()
	return pgtest.Column[T](t, db, query, args...)
}

// A proxy is pgtest's.
type proxy struct {
	*pgtest.Proxy
	url   string
	muted *atomic.Bool
	delay *atomic.Int64
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	p := pgtest.NewProxy(t)
	return &proxy{p, p.URL, &p.Muted, &p.Delay}
}

func (p *proxy) trips(t testing.TB, f func()) int { t.Helper(); return p.Trips(t, f) }

// An observer is pgtest's, which is asked about targets.
type observer struct {
	t  testing.TB
	db *sql.DB
}

func observe(t testing.TB, params ...string) observer {
	t.Helper()
	return observer{t, pgtest.Observe(t, params...).DB}
}

func (o observer) in(t testing.TB) observer { return observer{t, o.db} }

func (o observer) keys() pgtest.Observer { return pgtest.Observer{T: o.t, DB: o.db} }

func (o observer) holders(target string) []int {
	o.t.Helper()
	return o.keys().Holders(int64(pglock.KeyOf(target)))
}

// locks is the modes in which backends hold the target now.
func (o observer) locks(target string) map[int]string {
	o.t.Helper()
	return o.keys().Modes(int64(pglock.KeyOf(target)))
}

func (o observer) wantHeld(target string, pids ...int) {
	o.t.Helper()
	o.keys().WantHeld(int64(pglock.KeyOf(target)), pids...)
}

func (o observer) wantSoonFree(target string) {
	o.t.Helper()
	o.keys().WantSoonFree(int64(pglock.KeyOf(target)))
}

func (o observer) locksOf(pid int) int { o.t.Helper(); return o.keys().LocksOf(pid) }
func (o observer) alive(pid int) bool  { o.t.Helper(); return o.keys().Alive(pid) }
func (o observer) kill(pid int)        { o.t.Helper(); o.keys().Kill(pid) }

// auditDatabase makes a database of the test's own, with the audit's table, whose
// parameter it returns.
func auditDatabase(t testing.TB) (param string, o observer) {
	t.Helper()
	param = pgtest.NewMigratedDatabase(t)
	return param, observe(t, param)
}

// newSession returns a Session on a connection of its own, closed with the test.
func newSession(t testing.TB, driver string, opts ...pglock.SessionOption) (*pglock.Session, *sql.Conn) {
	t.Helper()
	conn := dial(t, driver)
	s := pglock.NewSession(conn, opts...)
	t.Cleanup(func() { s.Close(bg) })
	return s, conn
}

// acquired takes a lock that must be free.
func acquired(t testing.TB, l swanlock.Locker, target string, opts ...swanlock.Option) *pglock.PostgresLock {
	t.Helper()
	held, err := l.TryAcquire(bg, target, opts...)
	must(t, err)
	return held.(*pglock.PostgresLock)
}

// wantUnusable wants conn to be closed, soon: a driver may take its time.
func wantUnusable(t testing.TB, conn *sql.Conn) {
	t.Helper()
	eventually(t, "the connection is closed", func() bool { return errors.Is(conn.PingContext(bg), sql.ErrConnDone) })
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

// An acquirer is one way to take locks on a connection.
type acquirer struct {
	name string
	with func(conn *sql.Conn) swanlock.Locker
}

// acquirers are all of them.
var acquirers = []acquirer{
	{"Session", func(conn *sql.Conn) swanlock.Locker { return pglock.NewSession(conn) }},
	{"functions", func(conn *sql.Conn) swanlock.Locker { return functions{conn} }},
	{"audited", func(conn *sql.Conn) swanlock.Locker { return pglock.NewSession(conn, pglock.WithAudit()) }},
}

// functions are the package's TryAcquire and Acquire as a Locker.
type functions struct{ conn *sql.Conn }

func (f functions) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	l, err := pglock.TryAcquire(ctx, f.conn, target, opts...)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (f functions) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	l, err := pglock.Acquire(ctx, f.conn, target, opts...)
	if err != nil {
		return nil, err
	}
	return l, nil
}
