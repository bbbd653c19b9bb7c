package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

var isolations = map[string]string{
	"serializable":    "options=-c%20default_transaction_isolation%3Dserializable",
	"repeatable read": "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read",
}

// rounds takes, refreshes and releases a lock so often, on targets of its own.
func rounds(t testing.TB, l swanlock.Locker, n int) {
	for range n {
		held, err := l.TryAcquire(bg, newTarget(t), swanlock.WithTTL(time.Minute))
		if err != nil {
			t.Errorf("acquire: %v", err)
			continue
		}
		if err := held.Refresh(bg); err != nil {
			t.Errorf("refresh: %v", err)
		}
		if err := held.Release(bg); err != nil {
			t.Errorf("release: %v", err)
		}
	}
}

// TestAuditUnderAnyIsolation: where transactions are serializable by default,
// audited locks on different targets make each other's statements fail, and no
// caller notices.
func TestAuditUnderAnyIsolation(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for isolation, param := range isolations {
			for name, lockers := range map[string]func(t *testing.T, db *sql.DB) (a, b swanlock.Locker){
				"Sessions": func(t *testing.T, db *sql.DB) (a, b swanlock.Locker) {
					return pglock.NewSession(connOf(t, db), pglock.WithAudit()), pglock.NewSession(connOf(t, db), pglock.WithAudit())
				},
				"a Pool": func(t *testing.T, db *sql.DB) (a, b swanlock.Locker) {
					p, err := pglock.NewPool(db, pglock.WithAudit())
					must(t, err)
					t.Cleanup(func() { must(t, p.Close(bg)) })
					return p, pglock.NewSession(connOf(t, db), pglock.WithAudit())
				},
			} {
				t.Run(isolation+" "+name, func(t *testing.T) {
					dbname, o := auditDatabase(t)
					db := openDB(t, driver, dbname, param)
					if got := one[string](t, db, "SHOW default_transaction_isolation"); got != isolation {
						t.Fatalf("the isolation is %s", got)
					}
					a, b := lockers(t, db)
					var all sync.WaitGroup
					for _, l := range []swanlock.Locker{a, b} {
						all.Go(func() { rounds(t, l, 300) })
					}
					all.Wait()
					if got := column[string](t, o.db, "SELECT end_reason || ' ' || count(*) FROM lock_audit GROUP BY end_reason"); strings.Join(got, ", ") != "released 600" {
						t.Errorf("the audit's rows are %q", got)
					}
				})
			}
		}
	})
}

// TestAuditRepeated: under repeatable read a statement of ours fails if another
// session changes the row that it waits for. It is sent again.
func TestAuditRepeated(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		conn := connOf(t, openDB(t, driver, dbname, isolations["repeatable read"]))
		s := pglock.NewSession(conn, pglock.WithAudit())
		target := newTarget(t)
		other := acquired(t, s, newTarget(t))
		held := acquired(t, s, target)
		for _, call := range []func(context.Context) error{held.Refresh, held.Release} {
			tx, err := o.db.BeginTx(bg, nil)
			must(t, err)
			_, err = tx.ExecContext(bg, "UPDATE lock_audit SET owner = owner || '!'")
			must(t, err)
			answer := make(chan error)
			go func() { answer <- call(bg) }()
			eventually(t, "it waits for the row", func() bool {
				return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", held.BackendPID())
			})
			must(t, tx.Commit())
			must(t, <-answer)
		}
		o.wantHeld(target)
		wantIs(t, held.Err(), swanlock.ErrReleased)
		o.wantReasons(target, "released")
		must(t, other.Refresh(bg))
	})
}

// TestAuditFailsCallersTransaction: in the caller's transaction nothing is sent again.
// The error says so, and the lock is held.
func TestAuditFailsCallersTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		conn := connOf(t, openDB(t, driver, dbname))
		s := pglock.NewSession(conn, pglock.WithAudit())
		target := newTarget(t)
		held := acquired(t, s, target)
		run(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
		run(t, conn, "SELECT 1")
		run(t, o.db, "UPDATE lock_audit SET owner = owner || '!'")
		err := held.Refresh(bg)
		wantIs(t, err, pglock.ErrAudit, pglock.ErrAbortedTransaction)
		wantIs(t, held.Err(), nil)
		run(t, conn, "ROLLBACK")
		must(t, held.Refresh(bg))
		o.wantHeld(target, held.BackendPID())
		must(t, held.Release(bg))
		o.wantReasons(target, "released")
	})
}

// TestAuditTimeouts: a role whose statements have little time cannot wait for a table
// that is locked. Each call says what could not be written, and what became of the
// lock.
func TestAuditTimeouts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, param := range map[string]string{
			"lock_timeout":      "options=-c%20lock_timeout%3D300",
			"statement_timeout": "options=-c%20statement_timeout%3D2000",
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dbname, o := auditDatabase(t)
				s := pglock.NewSession(connOf(t, openDB(t, driver, dbname, param)), pglock.WithAudit())
				target, free := newTarget(t), newTarget(t)
				other := acquired(t, s, newTarget(t))
				held := acquired(t, s, target)
				tx, err := o.db.BeginTx(bg, nil)
				must(t, err)
				defer tx.Rollback()
				_, err = tx.ExecContext(bg, "LOCK TABLE lock_audit")
				must(t, err)

				_, err = s.TryAcquire(bg, free)
				wantIs(t, err, pglock.ErrAudit)
				o.wantHeld(free)
				wantIs(t, held.Refresh(bg), pglock.ErrAudit)
				wantIs(t, held.Err(), nil)
				o.wantHeld(target, held.BackendPID())
				err = held.Release(bg)
				wantIs(t, err, pglock.ErrAudit)
				if errors.Is(err, swanlock.ErrLost) {
					t.Errorf("a lock that was held until its release is said to be lost: %v", err)
				}
				wantIs(t, held.Err(), swanlock.ErrReleased)
				o.wantHeld(target)
				must(t, tx.Rollback())
				must(t, other.Refresh(bg))
				must(t, other.Release(bg))
			})
		}
	})
}
