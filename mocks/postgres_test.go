package mocks_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// ways are the ways in which pglock comes to a connection. The script is the
// same for all.
var ways = map[string]func(conn *sql.Conn) swanlock.Locker{
	"conn":    func(conn *sql.Conn) swanlock.Locker { return onConn{conn} },
	"session": func(conn *sql.Conn) swanlock.Locker { return pglock.NewSession(conn, quiet) },
	"audited": func(conn *sql.Conn) swanlock.Locker { return pglock.NewSession(conn, quiet, pglock.WithAudit()) },
}

var quiet = pglock.WithLogger(slog.New(slog.DiscardHandler))

// onConn is pglock's package functions as a Locker.
type onConn struct{ conn *sql.Conn }

func (c onConn) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	if l, err := pglock.TryAcquire(ctx, c.conn, target, opts...); err == nil {
		return l, nil
	} else {
		return nil, err
	}
}

func (c onConn) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	if l, err := pglock.Acquire(ctx, c.conn, target, opts...); err == nil {
		return l, nil
	} else {
		return nil, err
	}
}

// everyWay runs f for each way, with and without a TTL.
func everyWay(t *testing.T, f func(t *testing.T, l swanlock.Locker, pg *mocks.Postgres, opts ...swanlock.Option)) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			conn, pg := mocks.NewConn(t)
			f(t, way(conn), pg)
		})
		t.Run(name+" with a TTL", func(t *testing.T) {
			conn, pg := mocks.NewConn(t)
			f(t, way(conn), pg, swanlock.WithTTL(time.Hour))
		})
	}
}

func take(t *testing.T, l swanlock.Locker, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	lock, err := l.TryAcquire(context.Background(), "t", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func TestLife(t *testing.T) {
	everyWay(t, func(t *testing.T, l swanlock.Locker, pg *mocks.Postgres, opts ...swanlock.Option) {
		ctx := context.Background()
		for range 2 { // the second time on warm statements
			pg.ExpectTryAcquire("t")
			pg.ExpectRefresh("t")
			pg.ExpectTryAcquire("t").AlreadyHeld()
			pg.ExpectRelease("t")
			lock := take(t, l, opts...)
			if !pg.Holds("t") {
				t.Error("granted, and not held")
			}
			if err := lock.Refresh(ctx); err != nil {
				t.Error(err)
			}
			if _, err := l.TryAcquire(ctx, "t", opts...); !errors.Is(err, swanlock.ErrAlreadyHeld) {
				t.Errorf("got %v, want %v", err, swanlock.ErrAlreadyHeld)
			}
			if err := lock.Release(ctx); err != nil {
				t.Error(err)
			}
			if pg.Holds("t") || pg.Ended() {
				t.Errorf("released: holds %v, ended %v", pg.Holds("t"), pg.Ended())
			}
		}
	})
}

// The script and the code may spell a target in two ways.
func TestSpellings(t *testing.T) {
	ctx := context.Background()
	conn, pg := mocks.NewConn(t)
	pg.ExpectTryAcquire("/lake/t1").WithAudit("me")
	held, err := pglock.NewSession(conn, pglock.WithAudit()).TryAcquire(ctx, "lake//t1", swanlock.WithOwner("me"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := held.Info().Target, "lake//t1"; got != want {
		t.Errorf("Info: got the target %q, want %q, as the caller spelled it", got, want)
	}
	if !pg.Holds("lake/t1/") {
		t.Error("Holds of another spelling: got false, want true")
	}
	pg.ExpectRelease("lake/./t1")
	if err := held.Release(ctx); err != nil {
		t.Error(err)
	}
}

func TestNotGranted(t *testing.T) {
	io := errors.New("connection reset")
	for name, c := range map[string]struct {
		script func(*mocks.ExpectedTryAcquire)
		want   error
		ended  bool
	}{
		"HeldElsewhere":   {func(e *mocks.ExpectedTryAcquire) { e.HeldElsewhere() }, swanlock.ErrNotAcquired, false},
		"Standby":         {func(e *mocks.ExpectedTryAcquire) { e.Standby() }, pglock.ErrStandby, false},
		"FenceTooOld":     {func(e *mocks.ExpectedTryAcquire) { e.FenceInTransaction() }, pglock.ErrFenceInTransaction, false},
		"Fails":           {func(e *mocks.ExpectedTryAcquire) { e.Fails(mocks.SQLState("53200")) }, pglock.ErrLockTableFull, false},
		"FailsAfterGrant": {func(e *mocks.ExpectedTryAcquire) { e.FailsAfterGrant(mocks.SQLState("57014")) }, mocks.SQLState("57014"), false},
		"NoState":         {func(e *mocks.ExpectedTryAcquire) { e.FailsAfterGrant(io) }, io, true},
		"BadConn":         {func(e *mocks.ExpectedTryAcquire) { e.Fails(driver.ErrBadConn) }, driver.ErrBadConn, true},
	} {
		t.Run(name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, l swanlock.Locker, pg *mocks.Postgres, opts ...swanlock.Option) {
				c.script(pg.ExpectTryAcquire("t"))
				_, err := l.TryAcquire(context.Background(), "t", opts...)
				if name == "BadConn" && errors.Is(err, sql.ErrConnDone) {
					err = driver.ErrBadConn // what database/sql makes of it on a prepared statement
				}
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if pg.Holds("t") || pg.Ended() != c.ended {
					t.Errorf("holds %v, ended %v", pg.Holds("t"), pg.Ended())
				}
			})
		})
	}
}

func TestAcquireWaits(t *testing.T) {
	everyWay(t, func(t *testing.T, l swanlock.Locker, pg *mocks.Postgres, opts ...swanlock.Option) {
		pg.ExpectTryAcquire("t").HeldElsewhere()
		pg.ExpectTryAcquire("t").HeldElsewhere()
		pg.ExpectTryAcquire("t").Granted()
		lock, err := l.Acquire(context.Background(), "t", opts...)
		if err != nil {
			t.Fatal(err)
		}
		pg.ExpectRelease("t")
		lock.Release(context.Background())

		pg.ExpectTryAcquire("t").StaysHeldElsewhere()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if _, err := l.Acquire(ctx, "t", opts...); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		pg.ExpectTryAcquire("t").Granted()
		take(t, l, opts...)
	})
}

func TestLosses(t *testing.T) {
	ctx, io := context.Background(), errors.New("connection reset")
	type call = func(l swanlock.DistributedLock) error
	refresh := func(l swanlock.DistributedLock) error { return l.Refresh(ctx) }
	release := func(l swanlock.DistributedLock) error { return l.Release(ctx) }
	for name, c := range map[string]struct {
		script func(pg *mocks.Postgres)
		call   call
		want   error // nil: the call succeeds
		held   bool
		ended  bool
	}{
		"refresh: lost": {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").Lost() },
			refresh, swanlock.ErrLost, false, false},
		"refresh: another backend": {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").ByAnotherBackend() },
			refresh, pglock.ErrPooler, false, true},
		"refresh: the server fails": {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").Fails(mocks.SQLState("57014")) },
			refresh, mocks.SQLState("57014"), true, false},
		"refresh: it fails, and the lock is gone": {func(pg *mocks.Postgres) {
			pg.ExpectRefresh("t").Fails(mocks.SQLState("57014"))
			pg.ExpectProbe("t").Lost()
		}, refresh, swanlock.ErrLost, false, false},
		"refresh: the connection fails": {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").Fails(io) },
			refresh, swanlock.ErrLost, false, true},
		"release: lost": {func(pg *mocks.Postgres) { pg.ExpectRelease("t").Lost() },
			release, swanlock.ErrLost, false, false},
		"release: another backend": {func(pg *mocks.Postgres) { pg.ExpectRelease("t").ByAnotherBackend() },
			release, pglock.ErrPooler, false, true},
		"release: another backend, named": {func(pg *mocks.Postgres) {
			pg.ExpectRelease("t").ByAnotherBackend()
			pg.ExpectTerminate("t")
		}, release, pglock.ErrPooler, false, true},
		"release: the server fails once": {func(pg *mocks.Postgres) { pg.ExpectRelease("t").Fails(mocks.SQLState("57014")) },
			release, nil, false, false},
		"release: the connection fails": {func(pg *mocks.Postgres) { pg.ExpectRelease("t").Fails(io) },
			release, swanlock.ErrLost, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, l swanlock.Locker, pg *mocks.Postgres, opts ...swanlock.Option) {
				pg.ExpectTryAcquire("t").Granted()
				c.script(pg)
				lock := take(t, l, opts...)
				err := c.call(lock)
				audited := strings.Contains(t.Name(), "audited")
				if c.want == nil && audited && errors.Is(err, mocks.SQLState("57014")) {
					err = nil // the lock is free, and the caller told that the row is not closed
				}
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if pg.Holds("t") != c.held || pg.Ended() != c.ended {
					t.Errorf("holds %v, ended %v; want %v, %v", pg.Holds("t"), pg.Ended(), c.held, c.ended)
				}
				if c.held {
					pg.ExpectRelease("t")
					lock.Release(ctx)
				}
			})
		})
	}
}

func TestOptions(t *testing.T) {
	ctx := context.Background()
	conn, pg := mocks.NewConn(t)
	s := pglock.NewSession(conn, pglock.WithAudit())
	pg.ExpectTryAcquire("t").WithTTL(1500 * time.Millisecond).WithExclusive().WithFence().WithAudit("me").GrantedWithFence(41)
	pg.ExpectRelease("t")
	pg.ExpectTryAcquire("t").WithShared().WithTTL(0).WithAudit("you")
	pg.ExpectRelease("t")
	pg.ExpectTryAcquire("t").WithTTL(time.Hour + 1500*time.Microsecond)
	pg.ExpectRelease("t")
	lock := take(t, s, swanlock.WithTTL(1500*time.Millisecond), swanlock.WithFence(), swanlock.WithOwner("me"))
	if got := lock.Info().Fence; got != 41 {
		t.Errorf("fence %d, want 41", got)
	}
	lock.Release(ctx)
	lock = take(t, s, swanlock.WithShared(), swanlock.WithOwner("you"))
	if got := lock.Info().Fence; got != 0 {
		t.Errorf("a shared lock's fence is %d", got)
	}
	lock.Release(ctx)
	onConn, err := pglock.TryAcquire(ctx, conn, "t", swanlock.WithTTL(time.Hour+1500*time.Microsecond))
	if err != nil {
		t.Fatal(err)
	}
	onConn.Release(ctx)
}

func TestSettings(t *testing.T) {
	conn, pg := mocks.NewConn(t)
	pg.SetConfig("idle_in_transaction_session_timeout", "1min")
	pg.ExpectTryAcquire("t")
	pg.ExpectRelease("t")
	settings := func() string {
		return pg.CurrentSetting("idle_session_timeout") + " " + pg.CurrentSetting("idle_in_transaction_session_timeout")
	}
	lock := take(t, pglock.NewSession(conn), swanlock.WithTTL(time.Second))
	if got, want := settings(), "1000 1000"; got != want {
		t.Errorf("held: %q, want %q", got, want)
	}
	lock.Release(context.Background())
	if got, want := settings(), "0 1min"; got != want {
		t.Errorf("released: %q, want %q", got, want)
	}
	pg.ExpectTryAcquire("t").FailsAfterGrant(mocks.SQLState("57014"))
	pglock.TryAcquire(context.Background(), conn, "t", swanlock.WithTTL(time.Second))
	if got, want := settings(), "0 1min"; got != want { // unlike locks, they go with a statement that fails
		t.Errorf("failed: %q, want %q", got, want)
	}
}

// The subject's own statements have their place in the script.
func TestOwnStatements(t *testing.T) {
	ctx := context.Background()
	conn, pg := mocks.NewConn(t)
	pg.ExpectTryAcquire("t")
	pg.ExpectBegin()
	pg.ExpectPrepare("SELECT n").ExpectQuery().WithArgs(1).WillReturnRows(sqlmock.NewRows([]string{"n"}).AddRow(7))
	pg.ExpectExec("DELETE").WillReturnError(io.ErrShortWrite)
	pg.ExpectRollback()
	pg.ExpectQuery("SELECT m").WillReturnRows(sqlmock.NewRows([]string{"m"}).AddRow(8))
	pg.ExpectRelease("t")

	lock := take(t, pglock.NewSession(conn))
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := tx.Prepare("SELECT n FROM x WHERE id = $1")
	if err != nil {
		t.Fatal(err)
	}
	var n, m int
	if err := stmt.QueryRow(1).Scan(&n); err != nil || n != 7 {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := tx.Exec("DELETE FROM x"); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	if err := conn.QueryRowContext(ctx, "SELECT m FROM x").Scan(&m); err != nil || m != 8 {
		t.Errorf("got %d, %v", m, err)
	}
	if err := lock.Release(ctx); err != nil {
		t.Error(err)
	}
}

func TestInAnyOrder(t *testing.T) {
	conn, pg := mocks.NewConn(t)
	pg.MatchExpectationsInOrder(false)
	pg.ExpectTryAcquire("a").HeldElsewhere()
	pg.ExpectTryAcquire("t")
	take(t, pglock.NewSession(conn))
	if _, err := pglock.TryAcquire(context.Background(), conn, "a"); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("got %v", err)
	}
}

// A pool's connections are sessions of their own.
func TestDB(t *testing.T) {
	ctx := context.Background()
	first, pg := mocks.NewConn(t)
	second, err := pg.DB().Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	pg.ExpectTryAcquire("t").WithShared()
	pg.ExpectTryAcquire("t").WithShared()
	a, err := pglock.TryAcquire(ctx, first, "t", swanlock.WithShared())
	if err != nil {
		t.Fatal(err)
	}
	b, err := pglock.TryAcquire(ctx, second, "t", swanlock.WithShared())
	if err != nil {
		t.Fatal(err)
	}
	if a.BackendPID() == b.BackendPID() {
		t.Errorf("both sessions have process %d", a.BackendPID())
	}
}
