package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// wantRefused checks that an acquire fails for want's reason, that it says what
// to do, that nothing is held, and that the connection is as good as before.
func wantRefused(t *testing.T, o observer, conn *sql.Conn, l swanlock.Locker, want error, says string, opts ...swanlock.Option) {
	t.Helper()
	target := newTarget(t)
	for name, acquire := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
		"TryAcquire": l.TryAcquire, "Acquire": l.Acquire,
	} {
		held, err := acquire(shortly(t), target, opts...)
		if held != nil {
			t.Errorf("%s returned a lock with its error", name)
		}
		wantIs(t, err, want)
		if errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("%s: got %v, which matches ErrNotAcquired: nobody holds the lock", name, err)
		}
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %q, want it to say %q", name, err, says)
		}
		o.wantHeld(target)
	}
	if err := conn.Raw(func(any) error { return nil }); err != nil {
		t.Fatalf("the caller's connection: %v", err)
	}
}

// TestAuditTableMissing: without the table nothing is held, and the error names the
// migration. The lock may have been granted before the row failed. Fact 16.
func TestAuditTableMissing(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := newDatabase(t)
		o, conn := observe(t, db), dial(t, driver, db)
		s := pglock.NewSession(conn, pglock.WithAudit())
		wantRefused(t, o, conn, s, pglock.ErrAudit, "migrat")
		must(t, acquired(t, pglock.NewSession(conn), newTarget(t)).Release(bg)) // it works without

		// A table that refuses the row once the lock was granted.
		run(t, o.db, `CREATE TABLE lock_audit (id bigint, target text, key bigint, owner text, ttl_ms bigint, mode text,
			fence bigint, backend_pid int, backend_start timestamptz, client_addr inet, acquired_at timestamptz,
			refreshed_at timestamptz, released_at timestamptz, end_reason text, CHECK (target = 'never'))`)
		wantRefused(t, o, conn, s, pglock.ErrAudit, "")
		wantRefused(t, o, conn, s, pglock.ErrAudit, "", swanlock.WithTTL(time.Minute))
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
			t.Errorf("a refused acquire left idle_session_timeout at %s", got)
		}
		wantRefused(t, o, conn, s, pglock.ErrAudit, "", swanlock.WithShared())
	})
}

// TestServerTimeouts: a statement that the server cuts short may have taken the
// lock before. The error is the server's, and the session, which lives, holds
// nothing. Fact 1.
func TestServerTimeouts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db, o := auditDatabase(t)
		conn := dial(t, driver, db)
		// The row is written after the grant, and takes too long.
		run(t, o.db, `CREATE TABLE busy (x int); CREATE TABLE how (sql text);
			CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
				'DECLARE s text; BEGIN FOR s IN SELECT sql FROM how LOOP EXECUTE s; END LOOP; RETURN new; END';
			CREATE TRIGGER slow BEFORE INSERT ON lock_audit FOR EACH ROW EXECUTE FUNCTION slow()`)
		blocker, err := o.db.Begin()
		must(t, err)
		defer blocker.Rollback()
		_, err = blocker.Exec("LOCK TABLE busy")
		must(t, err)
		pid := pidOf(t, conn)
		s := pglock.NewSession(conn, pglock.WithAudit())
		for setting, how := range map[string]string{
			"statement_timeout": "SELECT pg_sleep(10)", "lock_timeout": "LOCK TABLE busy",
		} {
			run(t, o.db, "DELETE FROM how")
			run(t, o.db, "INSERT INTO how VALUES ($1)", how)
			run(t, conn, "SET "+setting+" = '300ms'")
			for _, opts := range [][]swanlock.Option{nil, {swanlock.WithTTL(time.Minute)}, {swanlock.WithShared()}} {
				target := newTarget(t)
				_, err := s.TryAcquire(bg, target, opts...)
				if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("%s: got %v, want the server's error", setting, err)
				}
				o.wantHeld(target)
			}
			run(t, conn, "RESET "+setting)
		}
		if got := pidOf(t, conn); got != pid {
			t.Errorf("backend %d became %d", pid, got)
		}
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
			t.Errorf("idle_session_timeout is %s, want the caller's own", got)
		}
	})
}

// TestServerUnprivilegedRole: a role that may not take locks, or not write the audit, is
// told so.
func TestServerUnprivilegedRole(t *testing.T) {
	functions := []string{
		"pg_try_advisory_lock(bigint)", "pg_try_advisory_lock_shared(bigint)", "pg_advisory_unlock(bigint)", "pg_advisory_unlock_shared(bigint)",
	}
	eachDriver(t, func(t *testing.T, driver string) {
		db := newDatabase(t)
		o := observe(t, db)
		role, name := newRole(t, db)
		_, err := provider(o.db).Up(bg)
		must(t, err)
		conn := dial(t, driver, db, role)
		audited := pglock.NewSession(conn, pglock.WithAudit())
		wantRefused(t, o, conn, audited, pglock.ErrAudit, "grant")
		run(t, o.db, "GRANT SELECT, INSERT, UPDATE ON lock_audit TO "+name)
		must(t, acquired(t, audited, newTarget(t)).Release(bg)) // what the message says is enough

		for _, f := range functions {
			run(t, o.db, "REVOKE EXECUTE ON FUNCTION "+f+" FROM PUBLIC")
		}
		for _, by := range acquirers {
			want := pglock.ErrDenied
			if by.name == "audited" {
				want = pglock.ErrAudit // either table or function
			}
			wantRefused(t, o, conn, by.with(conn), want, "permission denied")
			wantRefused(t, o, conn, by.with(conn), want, "permission denied", swanlock.WithShared())
		}
	})
}

// TestAuditReadOnlySession: the audit cannot be written on a session that may only read.
func TestAuditReadOnlySession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, conn := observe(t), dial(t, driver)
		run(t, conn, "SET default_transaction_read_only = on")
		wantRefused(t, o, conn, pglock.NewSession(conn, pglock.WithAudit()), pglock.ErrStandby, "read-only")
		must(t, acquired(t, pglock.NewSession(conn), newTarget(t), swanlock.WithTTL(time.Minute)).Release(bg))
	})
}

// TestSessionAbortedTransaction: in a transaction that has failed nothing can be asked.
// An acquire holds nothing, a refresh leaves the lock as it is, and a release
// frees it by the session's end. Fact 6.
func TestSessionAbortedTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				o, conn := observe(t), dial(t, driver)
				l, target := by.with(conn), newTarget(t)
				held := acquired(t, l, target, swanlock.WithTTL(time.Minute))
				run(t, conn, "BEGIN")
				conn.ExecContext(bg, "SELECT 1/0")

				wantRefused(t, o, conn, by.with(conn), pglock.ErrAbortedTransaction, "roll it back")
				_, err := l.TryAcquire(bg, target) // it may be held or not
				wantIs(t, err, pglock.ErrAbortedTransaction)
				err = held.Refresh(bg)
				wantIs(t, err, pglock.ErrAbortedTransaction)
				if errors.Is(err, swanlock.ErrLost) || held.Err() != nil {
					t.Errorf("got %v and %v, want a lock that is held", err, held.Err())
				}
				o.wantHeld(target, held.BackendPID())

				run(t, conn, "ROLLBACK")
				must(t, held.Refresh(bg))
				must(t, held.Release(bg))
				o.wantHeld(target)

				held = acquired(t, l, target)
				run(t, conn, "BEGIN")
				conn.ExecContext(bg, "SELECT 1/0")
				wantIs(t, held.Release(bg), swanlock.ErrLost, pglock.ErrAbortedTransaction)
				o.wantSoonFree(target)
				wantIs(t, held.Err(), swanlock.ErrLost)
			})
		}
	})
}

// TestSessionUnusableConnection: a nil connection and one that was closed are refused.
func TestSessionUnusableConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		closed := dial(t, driver)
		warm := pglock.NewSession(closed)
		must(t, acquired(t, warm, newTarget(t)).Release(bg))
		must(t, closed.Close())
		dead := dial(t, driver)
		observe(t).kill(pidOf(t, dead))
		for name, conn := range map[string]*sql.Conn{"nil": nil, "closed": closed, "dead": dead} {
			for _, by := range append(acquirers, acquirer{"warm", func(*sql.Conn) swanlock.Locker { return warm }}) {
				for range 2 {
					held, err := by.with(conn).TryAcquire(bg, newTarget(t))
					if held != nil || err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
						t.Errorf("%s, %s: got %v and %v, want an error that says what is wrong", by.name, name, held, err)
					}
					ctx, cancel := context.WithTimeout(bg, soon)
					held, err = by.with(conn).Acquire(ctx, newTarget(t))
					if held != nil || err == nil || errors.Is(err, swanlock.ErrNotAcquired) || ctx.Err() != nil {
						t.Errorf("%s, %s: got %v and %v, want an error that says what is wrong, at once", by.name, name, held, err)
					}
					cancel()
				}
			}
		}
		if err := pglock.NewSession(nil).Close(bg); err == nil {
			t.Error("closing a session without a connection said nothing")
		}
	})
}

// TestServerLockTableFull: when the server has no room for another lock, the error
// says so, and nothing is held. Fact 12.
func TestServerLockTableFull(t *testing.T) {
	t.Parallel()
	small, err := pgserver.Start(bg, pgserver.WithSetting("max_locks_per_transaction", "10"), pgserver.WithSetting("max_connections", "10"))
	must(t, err)
	t.Cleanup(func() { small.Stop() })
	for _, driver := range drivers { // one after the other: the table is the whole server's
		t.Run(driver, func(t *testing.T) {
			conn := connOf(t, openURL(t, driver, small.URL()))
			o := observer{t, openURL(t, "postgres", small.URL())}
			must(t, o.db.Ping()) // once the table is full nobody can connect
			s := pglock.NewSession(conn)
			var all []swanlock.DistributedLock
			for {
				held, err := s.TryAcquire(bg, fmt.Sprintf("full/%d", len(all)))
				if err != nil {
					wantIs(t, err, pglock.ErrLockTableFull)
					break
				}
				if all = append(all, held); len(all) > 100_000 {
					t.Fatal("the lock table never fills")
				}
			}
			if got := o.locksOf(pidOf(t, conn)); got != len(all) {
				t.Errorf("%d locks are held after %d grants and a failure", got, len(all))
			}
			must(t, s.Close(bg)) // frees them all
			runtime.KeepAlive(all)
			if got := o.locksOf(pidOf(t, conn)); got != 0 {
				t.Errorf("%d locks are held after Close", got)
			}
		})
	}
}

// TestAuditTableMissingInTransaction: that the audit's table is missing is told even
// though asking for it has made the caller's transaction fail.
func TestAuditTableMissingInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname := newDatabase(t)
		o := observe(t, dbname)
		conn := dial(t, driver, dbname)
		tx, err := conn.BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		target := newTarget(t)
		_, err = pglock.NewSession(conn, pglock.WithAudit()).TryAcquire(bg, target)
		wantIs(t, err, pglock.ErrAudit)
		o.wantSoonFree(target)
	})
}

// TestSessionDestroyedInTransaction: a lock that a failed acquire has taken in a
// transaction is free before the caller ends the transaction.
func TestSessionDestroyedInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname := newDatabase(t)
		o := observe(t, dbname)
		_, err := provider(o.db).Up(bg)
		must(t, err)
		run(t, o.db, `CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'`)
		run(t, o.db, "CREATE TRIGGER fail BEFORE INSERT ON lock_audit FOR EACH ROW EXECUTE FUNCTION fail()")
		conn := dial(t, driver, dbname)
		tx, err := conn.BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		pid, target := one[int](t, tx, "SELECT pg_backend_pid()"), newTarget(t)
		if _, err := pglock.NewSession(conn, pglock.WithAudit()).TryAcquire(bg, target); err == nil {
			t.Error("the lock is granted though its row was refused")
		}
		eventually(t, "the backend has ended", func() bool { return !o.alive(pid) })
		o.wantSoonFree(target)
	})
}
