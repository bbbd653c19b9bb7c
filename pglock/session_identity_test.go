package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// newPgxpool returns a pgxpool with the library's own limits.
func newPgxpool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(bg, url)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// An editing connector makes connections of another that send what edit makes of each
// statement.
type editingConnector struct {
	driver.Connector
	edit func(query string) string
}

func (c editingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &editing{evil{Conn: conn, change: strings.NewReplacer()}, c.edit}, nil
}

type editing struct {
	evil
	edit func(query string) string
}

func (c *editing) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return c.evil.PrepareContext(ctx, c.edit(query))
}

func (c *editing) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.evil.QueryContext(ctx, c.edit(query), args)
}

// editedPgxpool is a *sql.DB on a pgxpool.
func editedPgxpool(t *testing.T, edit func(string) string) (*sql.DB, *pgxpool.Pool) {
	t.Helper()
	pool := newPgxpool(t, server(t).URL())
	db := sql.OpenDB(editingConnector{stdlib.GetPoolConnector(pool), edit})
	db.SetMaxIdleConns(0)
	t.Cleanup(func() { db.Close() })
	return db, pool
}

// fails makes the server refuse each statement that has the text, which is a
// function's name.
func fails(query string, functions ...string) string {
	for _, name := range functions {
		query = strings.ReplaceAll(query, "pg_catalog."+name+"(", "nowhere."+name+"(")
	}
	return query
}

// wantUntouched checks that the application's sessions have nothing of ours.
func wantUntouched(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	conns := pool.AcquireAllIdle(bg)
	for _, conn := range conns {
		defer conn.Release()
		var pid, locks int
		var idle, inTransaction string
		must(t, conn.QueryRow(bg, `SELECT pg_backend_pid(), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
			current_setting('idle_session_timeout'), current_setting('idle_in_transaction_session_timeout')`).Scan(&pid, &locks, &idle, &inTransaction))
		if locks != 0 || idle != "0" || inTransaction != "0" {
			t.Errorf("the idle backend %d has %d locks, an idle_session_timeout of %s and %s in a transaction", pid, locks, idle, inTransaction)
		}
	}
}

// TestIdentityByMark: what a checkout leaves on a session is settled by the next that
// gets the session, in whatever way, and nobody is refused.
func TestIdentityByMark(t *testing.T) {
	t.Parallel()
	for _, driver := range anyDriver[2:] {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			for _, by := range acquirers {
				t.Run(by.name, func(t *testing.T) {
					o := observe(t)
					db := openAny(t, driver, server(t).URL())
					db.SetMaxOpenConns(1)
					conn := connOf(t, db)
					pid := pidOf(t, conn)
					target, other := newTarget(t), newTarget(t)
					left := acquired(t, by.with(conn), target, swanlock.WithTTL(time.Minute))
					_, err := by.with(conn).TryAcquire(bg, target)
					wantIs(t, err, swanlock.ErrAlreadyHeld)
					must(t, conn.Close())
					o.wantHeld(target, pid)

					conn = connOf(t, db)
					held := acquired(t, by.with(conn), other)
					o.wantHeld(target)
					o.wantHeld(other, pid)
					wantIs(t, ended(t, left), swanlock.ErrLost, sql.ErrConnDone)
					if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
						t.Errorf("idle_session_timeout is %s on the session, want the caller's own again", got)
					}
					again := acquired(t, by.with(conn), target)
					wantIs(t, left.Release(bg), swanlock.ErrLost)
					o.wantHeld(target, pid)
					must(t, again.Release(bg))
					must(t, held.Release(bg))
					run(t, conn, "SELECT pg_advisory_lock(7, 7)") // the application's own
					must(t, conn.Close())

					conn = connOf(t, db)
					must(t, acquired(t, by.with(conn), target).Release(bg))
					run(t, conn, "SELECT pg_advisory_unlock_all()")
					must(t, conn.Close())
				})
			}
		})
	}
}

// TestIdentityWithoutLocks: a session whose locks were unlocked behind our back
// still has a lease or tickets, which are settled as well.
func TestIdentityWithoutLocks(t *testing.T) {
	t.Parallel()
	o := observe(t)
	db := openDB(t, "pgxpool")
	db.SetMaxOpenConns(1)
	conn := connOf(t, db)
	left := acquired(t, functions{conn}, newTarget(t), swanlock.WithTTL(time.Minute))
	run(t, conn, "SELECT pg_advisory_unlock_all()")
	must(t, conn.Close())
	conn = connOf(t, db)
	target := newTarget(t)
	held := acquired(t, functions{conn}, target)
	wantIs(t, ended(t, left), swanlock.ErrLost)
	if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
		t.Errorf("idle_session_timeout is %s on the session, want the caller's own again", got)
	}
	o.wantHeld(target, pidOf(t, conn))
	must(t, held.Release(bg))
}

// TestIdentityWithoutMark: a rollback took the mark, and left the lock.
func TestIdentityWithoutMark(t *testing.T) {
	t.Parallel()
	for _, driver := range anyDriver[2:] {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			o, target := observe(t), newTarget(t)
			db := openAny(t, driver, server(t).URL())
			db.SetMaxOpenConns(1)
			conn := connOf(t, db)
			run(t, conn, "BEGIN")
			left := acquired(t, functions{conn}, target)
			run(t, conn, "ROLLBACK")
			must(t, conn.Close())
			o.wantHeld(target, left.BackendPID())
			conn = connOf(t, db)
			run(t, conn, "SELECT pg_advisory_lock(7, 7)") // the application's own
			held := acquired(t, functions{conn}, target)
			wantIs(t, ended(t, left), swanlock.ErrLost)
			must(t, held.Release(bg))
			o.wantHeld(target) // it was not taken twice
		})
	}
}

// TestIdentityOfManyAtOnce: several that come to an abandoned session at once find
// one ledger.
func TestIdentityOfManyAtOnce(t *testing.T) {
	t.Parallel()
	o := observe(t)
	db := openDB(t, "pgxpool")
	db.SetMaxOpenConns(1)
	for range 20 {
		conn := connOf(t, db)
		target := newTarget(t)
		acquired(t, functions{conn}, target)
		must(t, conn.Close())

		conn = connOf(t, db)
		var got atomic.Pointer[pglock.PostgresLock]
		var granted, refused atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				l, err := functions{conn}.TryAcquire(bg, target)
				switch {
				case err == nil:
					granted.Add(1)
					got.Store(l.(*pglock.PostgresLock))
				case errors.Is(err, swanlock.ErrAlreadyHeld):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if granted.Load() != 1 || refused.Load() != 7 {
			t.Fatalf("%d have it, %d do not, want 1 and 7", granted.Load(), refused.Load())
		}
		must(t, got.Load().Release(bg))
		o.wantHeld(target)
		must(t, conn.Close())
	}
}

// TestIdentityOfLeftTicket: the ticket of a caller that closed its connection
// is dropped when the session is used again.
func TestIdentityOfLeftTicket(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		first := acquired(t, holder, target)
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		conn := connOf(t, db)
		pid := pidOf(t, conn)
		waits := make(chan error, 1)
		go func() {
			_, err := pglock.NewSession(conn).Acquire(shortly(t), target)
			waits <- err
		}()
		eventually(t, "it waits", func() bool { return o.locksOf(pid) > 0 })
		must(t, conn.Close())
		if err := <-waits; err == nil {
			t.Fatal("a lock on a connection that was closed")
		}
		conn = connOf(t, db)
		acquired(t, functions{conn}, newTarget(t))
		eventually(t, "only the new lock is there", func() bool { return o.locksOf(pid) == 1 })
		must(t, first.Release(bg))
	})
}

// TestIdentityOfOthers: what another process has left on a session is not ours to
// settle.
func TestIdentityOfOthers(t *testing.T) {
	t.Parallel()
	db := openDB(t, "pgxpool")
	conn := connOf(t, db)
	run(t, conn, "SET swanlock.session = 'another/1'")
	run(t, conn, "SELECT pg_advisory_lock(1, 2)")
	_, err := functions{conn}.TryAcquire(bg, newTarget(t))
	wantIs(t, err, pglock.ErrPooler)
	run(t, conn, "SELECT pg_advisory_unlock(1, 2)")
	must(t, acquired(t, functions{conn}, newTarget(t)).Release(bg))
}

// TestPoolOnSmallPgxpool: a pgxpool of four connections, which is its default on a
// small machine, is enough for a Pool: nothing waits for what it has itself.
func TestPoolOnSmallPgxpool(t *testing.T) {
	t.Parallel()
	pgx := newPgxpool(t, pgtest.WithParams(t, server(t).URL(), "pool_max_conns=4"))
	db := stdlib.OpenDBFromPool(pgx)
	t.Cleanup(func() { db.Close() })
	pool, err := pglock.NewPool(db)
	must(t, err)
	defer pool.Close(shortly(t))
	ctx := shortly(t)
	targets := []string{newTarget(t), newTarget(t), newTarget(t)}
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			for range 5 {
				held, err := pool.Acquire(ctx, targets[i%3])
				if err != nil {
					t.Error(err)
					return
				}
				if err := held.Release(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	must(t, pool.Close(ctx))
	wantUntouched(t, pgx)
}

// TestIdentityAfterARollback: a rollback brings back the mark of an earlier user of the
// backend. The session is known all the same, with its connection and without.
func TestIdentityAfterARollback(t *testing.T) {
	t.Parallel()
	for _, driver := range append(slices.Clone(drivers), "pgxpool") {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			o := observe(t)
			db := openDB(t, driver, "application_name=identity")
			if driver == "pgxpool" {
				db = openDB(t, driver, "pool_max_conns=1")
			}
			db.SetMaxOpenConns(1)
			first, err := db.Conn(bg)
			must(t, err)
			l, err := pglock.TryAcquire(bg, first, newTarget(t))
			must(t, err)
			must(t, l.Release(bg))
			must(t, first.Close())

			target := newTarget(t)
			second, err := db.Conn(bg)
			must(t, err)
			tx, err := second.BeginTx(bg, nil)
			must(t, err)
			held, err := pglock.TryAcquire(bg, second, target, swanlock.WithTTL(10*time.Minute))
			must(t, err)
			must(t, tx.Rollback())
			also, err := pglock.TryAcquire(bg, second, newTarget(t))
			must(t, err)
			must(t, also.Release(bg))
			must(t, second.Close()) // without Release: it is settled next time

			third := connOf(t, db)
			next, err := pglock.TryAcquire(bg, third, target)
			must(t, err)
			if held.Err() == nil {
				t.Error("two holders")
			}
			must(t, next.Release(bg))
			held.Release(bg)
			o.wantHeld(target)
		})
	}
}
