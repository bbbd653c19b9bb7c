package leaselock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
)

// The tests of this file take the answer from an acquire that the server grants, or
// is about to. When the acquire has returned its error, nothing may be held. The TTL
// is an hour.

// wantNothingHeld wants err to be an error, and the target free once the server has
// done all that it was sent.
func wantNothingHeld(t *testing.T, on *sql.DB, target string, err error) {
	t.Helper()
	if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Fatalf("got %v, want the failure of the connection", err)
	}
	eventually(t, "the server is idle", func() bool {
		return one[int](t, on, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%lock_leases%' AND pid <> pg_backend_pid()") == 0
	})
	other, err := newLocker(t, on).TryAcquire(bg, target)
	if err != nil {
		t.Fatalf("after an error something is held: %v", err)
	}
	must(t, other.Release(bg))
}

// tries asks for the target, and returns once the server shows the wait.
func tries(t *testing.T, on, db *sql.DB, target, wait string) (answer <-chan error) {
	t.Helper()
	errs := make(chan error, 1)
	go func() {
		_, err := newLocker(t, db).TryAcquire(bg, target, swanlock.WithTTL(time.Hour))
		errs <- err
	}()
	eventually(t, "it waits", func() bool {
		return one[bool](t, on, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 IN (wait_event, wait_event_type) AND query LIKE 'INSERT INTO%lock_leases%')", wait)
	})
	return errs
}

// withdraws is long enough for a statement to be on its way.
const withdraws = 300 * time.Millisecond

// lockRow makes the row of target, and keeps others from it until free is called.
func lockRow(t *testing.T, on *sql.DB, target string) (free func() error) {
	t.Helper()
	must(t, mustTry(t, newLocker(t, on), target).Release(bg))
	return lockHeldRow(t, on, target)
}

// lockHeldRow is lockRow for a row that is there.
func lockHeldRow(t *testing.T, on *sql.DB, target string) (free func() error) {
	t.Helper()
	tx, err := on.Begin()
	must(t, err)
	_, err = tx.Exec("UPDATE public.lock_leases SET owner = owner WHERE target = $1", target)
	must(t, err)
	return tx.Rollback
}

// TestCutBehindARow: the connection is cut while the acquire waits for its row.
func TestCutBehindARow(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	on := open(t, "pq", srv.URL(), nil)
	for _, d := range drivers {
		target, net := t.Name()+d, new(network)
		free := lockRow(t, on, target)
		answer := tries(t, on, open(t, d, srv.URL(), net), target, "Lock")
		net.end()
		time.Sleep(withdraws)
		must(t, free())
		wantNothingHeld(t, on, target, <-answer)
	}
}

// TestTimeouts: a release, and an Acquire, are sent again when the row cannot be had for
// a moment, where a timeout of the server keeps them from waiting for it.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	on := open(t, "pq", server(t).URL(), nil)
	for _, setting := range []string{"lock_timeout=200", "statement_timeout=200"} {
		for _, d := range drivers {
			target := t.Name() + d + setting
			l := newLocker(t, open(t, d, server(t).URL(setting), nil))
			held := mustTry(t, l, target, swanlock.WithTTL(time.Hour))
			free := lockHeldRow(t, on, target)
			time.AfterFunc(time.Second, func() { must(t, free()) })
			if err := held.Release(bg); err != nil {
				t.Errorf("%s, %s: Release: %v", d, setting, err)
				continue
			}
			free = lockHeldRow(t, on, target)
			time.AfterFunc(time.Second, func() { must(t, free()) })
			held, err := l.Acquire(bg, target)
			if err != nil {
				t.Errorf("%s, %s: Acquire: %v", d, setting, err)
				continue
			}
			must(t, held.Release(bg))
		}
	}
}

// TestCauseIsNoAnswer: the caller leaves while its acquire waits for its row, because
// another goroutine has failed, with an error that looks like the server's refusal.
func TestCauseIsNoAnswer(t *testing.T) {
	t.Parallel()
	on := open(t, "pq", server(t).URL(), nil)
	for name, cause := range map[string]error{
		"not acquired": swanlock.ErrNotAcquired, "undefined table": &pq.Error{Code: "42P01"}, "serialization failure": &pq.Error{Code: "40001"},
	} {
		for _, d := range drivers {
			target := t.Name() + name + d
			free := lockRow(t, on, target)
			ctx, cancel := context.WithCancelCause(bg)
			time.AfterFunc(withdraws, func() { cancel(cause) })
			freed := time.AfterFunc(2*withdraws, func() { must(t, free()) })
			_, err := newLocker(t, open(t, d, server(t).URL(), nil)).TryAcquire(ctx, target, swanlock.WithTTL(time.Hour))
			is(t, err, swanlock.ErrNotAcquired, cause)
			if freed.Stop() {
				t.Errorf("%s, %s: the call returned before the acquire was withdrawn: %v", name, d, err)
				must(t, free())
			}
		}
	}
}

// TestCutInItsCommit: the connection is cut while the acquire waits for a standby.
func TestCutInItsCommit(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	on := open(t, "pq", srv.URL(), nil)
	standby := synchronous(t, srv, on)
	for _, d := range drivers {
		target, net := t.Name()+d, new(network)
		db := open(t, d, srv.URL(), net)
		must(t, db.Ping())
		resume, err := standby.Pause()
		must(t, err)
		answer := tries(t, on, db, target, "SyncRep")
		net.end()
		time.Sleep(withdraws)
		resume()
		wantNothingHeld(t, on, target, <-answer)
	}
}

// TestQueryTimeout: a pooler gives up an acquire that waits for its row.
func TestQueryTimeout(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	pooled := pgbouncer(t, srv, "query_timeout = 1")
	on := open(t, "pq", srv.URL(), nil)
	free := lockRow(t, on, t.Name())
	answer := tries(t, on, open(t, "pgx", pooled, nil), t.Name(), "Lock") // database/sql sends lib/pq's once more.
	time.Sleep(3 * time.Second)                                           // PgBouncer looks now and then.
	must(t, free())
	wantNothingHeld(t, on, t.Name(), <-answer)
}

// TestPoolerLosesTheServer: PgBouncer has one SQLSTATE for all its errors, also for
// those of a statement that the server has executed.
func TestPoolerLosesTheServer(t *testing.T) {
	t.Parallel()
	srv := server(t)
	on := open(t, "pq", srv.URL(), nil)
	for _, message := range []string{"server conn crashed?", "query timeout", "something new"} {
		c, err := pq.NewConnector(srv.URL() + "&binary_parameters=yes")
		must(t, err)
		db := sql.OpenDB(lossy{c, poolerError(message)})
		t.Cleanup(func() { db.Close() })
		_, err = newLocker(t, db).TryAcquire(bg, t.Name()+message, swanlock.WithTTL(time.Hour))
		wantNothingHeld(t, on, t.Name()+message, err)
	}
}

// TestLateAcquire: a withdrawn acquire that comes later takes nothing.
func TestLateAcquire(t *testing.T) {
	t.Parallel()
	srv := server(t)
	on := open(t, "pq", srv.URL(), nil)
	c, err := pq.NewConnector(srv.URL() + "&binary_parameters=yes")
	must(t, err)
	late := &delayed{Connector: c}
	db := sql.OpenDB(late)
	t.Cleanup(func() { db.Close() })
	_, err = newLocker(t, db).TryAcquire(bg, t.Name(), swanlock.WithTTL(time.Hour))
	must(t, late.arrives())
	wantNothingHeld(t, on, t.Name(), err)
}

// TestLateGrant: the acquire is executed when its caller has left, and could not withdraw
// it. What it took is freed then.
func TestLateGrant(t *testing.T) {
	t.Parallel()
	srv := server(t)
	on := open(t, "pq", srv.URL(), nil)
	c, err := pq.NewConnector(srv.URL() + "&binary_parameters=yes")
	must(t, err)
	held := &heldUp{c, make(chan struct{})}
	db := sql.OpenDB(held)
	t.Cleanup(func() { db.Close() })
	ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
	defer cancel()
	_, err = newLocker(t, db).TryAcquire(ctx, t.Name(), swanlock.WithTTL(time.Hour))
	is(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
	close(held.goOn)
	eventually(t, "the lock was taken, and freed", func() bool {
		return one[int](t, on, "SELECT count(*) FROM lock_leases WHERE target = '"+t.Name()+"'") == 1
	})
	eventually(t, "the lock is free", func() bool {
		other, err := newLocker(t, on).TryAcquire(bg, t.Name())
		return err == nil && other.Release(bg) == nil
	})
}

// A heldUp connector's connections send acquires when they may go on, and nothing else
// until then.
type heldUp struct {
	driver.Connector
	goOn chan struct{}
}

func (c *heldUp) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	return &heldUpConn{lossyConn{Conn: conn}, c.goOn}, err
}

type heldUpConn struct {
	lossyConn
	goOn chan struct{}
}

func (c *heldUpConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	<-c.goOn
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *heldUpConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	select {
	case <-c.goOn:
		return c.lossyConn.ExecContext(ctx, query, args)
	default:
		return nil, poolerError("query timeout")
	}
}

// A poolerError is what a driver sees of PgBouncer.
type poolerError string

func (e poolerError) Error() string  { return string(e) }
func (poolerError) SQLState() string { return "08P01" }

// A lossy connector's connections lose the answers to acquires.
type lossy struct {
	driver.Connector
	err error
}

func (c lossy) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	return &lossyConn{conn, func(query func() (driver.Rows, error)) error {
		rows, err := query()
		if err != nil {
			return err
		}
		rows.Close()
		return c.err
	}}, err
}

// A delayed connector keeps its first acquire back.
type delayed struct {
	driver.Connector
	arrives func() error
}

func (c *delayed) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	return &lossyConn{conn, func(query func() (driver.Rows, error)) error {
		c.arrives = func() error {
			rows, err := query()
			if err != nil {
				return err
			}
			return rows.Close()
		}
		return poolerError("query timeout")
	}}, err
}

type lossyConn struct {
	driver.Conn
	acquire func(query func() (driver.Rows, error)) error
}

func (c *lossyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *lossyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !strings.HasPrefix(query, "INSERT INTO") {
		return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
	}
	return nil, c.acquire(func() (driver.Rows, error) {
		return c.Conn.(driver.QueryerContext).QueryContext(context.WithoutCancel(ctx), query, args)
	})
}
