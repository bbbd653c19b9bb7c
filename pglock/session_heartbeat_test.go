package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestSessionHeartbeat: the end of the session is found out without a call, and so
// is a lock that was taken away behind its back; the others are kept.
func TestSessionHeartbeat(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		s, conn := newSession(t, driver, pglock.WithHeartbeat(20*time.Millisecond), pglock.WithLogger(nil))
		kept := acquired(t, s, newTarget(t))
		taken, err := s.Acquire(bg, newTarget(t), swanlock.WithTTL(time.Minute))
		must(t, err)

		key := int64(pglock.KeyOf(taken.Info().Target))
		run(t, conn, "SELECT pg_advisory_unlock($1)", key)
		wantIs(t, ended(t, taken), swanlock.ErrLost)
		must(t, kept.Err())

		o.kill(kept.BackendPID())
		wantIs(t, ended(t, kept), swanlock.ErrLost)
	})
}

// TestSessionHeartbeatOnABusyConnection: it breaks neither the caller's statements,
// nor Rows, nor a transaction that has failed, and restarts no TTL; after Close it
// sends nothing.
func TestSessionHeartbeatOnABusyConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		s, conn := newSession(t, driver, pglock.WithHeartbeat(5*time.Millisecond))
		held := acquired(t, s, newTarget(t))
		short := acquired(t, s, newTarget(t), swanlock.WithTTL(1500*time.Millisecond))

		run(t, conn, "SELECT pg_sleep(0.2)")
		rows, err := conn.QueryContext(bg, "SELECT i, pg_sleep(0.02) FROM generate_series(1, 10) i")
		must(t, err)
		n := 0
		for ; rows.Next(); n++ {
			time.Sleep(10 * time.Millisecond)
		}
		must(t, rows.Err())
		must(t, rows.Close())
		if n != 10 {
			t.Errorf("%d rows were read, want 10", n)
		}
		tx, err := conn.BeginTx(bg, nil)
		must(t, err)
		if _, err := tx.ExecContext(bg, "SELECT 1/0"); err == nil {
			t.Fatal("the transaction has not failed")
		}
		time.Sleep(50 * time.Millisecond)
		must(t, tx.Rollback())
		must(t, held.Err())

		wantIs(t, ended(t, short), swanlock.ErrExpired)
		o.wantSoonFree(short.Info().Target)
		must(t, held.Err())
		must(t, s.Close(bg))
		time.Sleep(30 * time.Millisecond)
		var prepared int
		must(t, conn.QueryRowContext(bg, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%pg_locks%' AND statement NOT LIKE '%pg_prepared%'").Scan(&prepared))
		if prepared > 0 {
			t.Errorf("%d statements are prepared after Close", prepared)
		}
	})
}

// TestSessionHeartbeatOption: an interval below a millisecond is refused.
func TestSessionHeartbeatOption(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{-1, time.Microsecond} {
		s := pglock.NewSession(new(sql.Conn), pglock.WithHeartbeat(every))
		if _, err := s.TryAcquire(context.Background(), "x"); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a heartbeat of %v: %v, want an error that says so", every, err)
		}
	}
}

// TestBackgroundInTransaction: what runs in the background neither begins the snapshot of
// the caller's transaction, nor makes it fail.
func TestBackgroundInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		beating, conn := newSession(t, driver, pglock.WithHeartbeat(20*time.Millisecond))
		held := acquired(t, beating, newTarget(t))
		run(t, conn, "BEGIN")
		time.Sleep(100 * time.Millisecond)
		run(t, conn, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE") // before any query
		run(t, conn, "COMMIT")
		must(t, held.Release(bg))

		audited, conn := newSession(t, driver, pglock.WithAudit())
		held = acquired(t, audited, newTarget(t), swanlock.WithTTL(600*time.Millisecond), swanlock.WithAutoRefresh())
		tx, err := conn.BeginTx(bg, &sql.TxOptions{ReadOnly: true})
		must(t, err)
		time.Sleep(900 * time.Millisecond)
		if got := one[int](t, tx, "SELECT 1"); got != 1 {
			t.Errorf("got %d", got)
		}
		must(t, tx.Commit())
		must(t, held.Release(bg))
	})
}

// TestSessionHeartbeatOfAClosedConnection: a connection that is closed before Release
// is found out by the heartbeat, which ends with it. The next user of the session
// unlocks what was left there.
func TestSessionHeartbeatOfAClosedConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		log := &logBook{}
		db, target := openDB(t, driver), newTarget(t)
		conn := connOf(t, db)
		s := pglock.NewSession(conn, pglock.WithHeartbeat(20*time.Millisecond), pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		held := acquired(t, s, target)
		must(t, conn.Close())
		wantIs(t, ended(t, held), swanlock.ErrLost, sql.ErrConnDone)
		warned := log.count("heartbeat")
		time.Sleep(200 * time.Millisecond)
		if now := log.count("heartbeat"); now > warned+1 {
			t.Errorf("the heartbeat goes on: %d warnings, then %d", warned, now)
		}
		again := acquired(t, pglock.NewSession(connOf(t, db)), target)
		must(t, again.Release(bg))
	})
}
