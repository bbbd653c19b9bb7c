package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestTxOutlivesItsLongestWait: where deadlock_timeout is long, so are the waits. A
// context that is cancelled as one has begun does not cost the transaction.
func TestTxOutlivesItsLongestWait(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		other, _ := newSession(t, driver)
		held := acquired(t, other, target)
		tx, err := dial(t, driver, "deadlock_timeout=10000").BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		ctx, cancel := context.WithCancel(bg)
		time.AfterFunc(300*time.Millisecond, cancel)
		_, err = pglock.AcquireTx(ctx, tx, target)
		wantIs(t, err, swanlock.ErrNotAcquired, context.Canceled)
		must(t, held.Release(bg))
		_, err = pglock.TryAcquireTx(bg, tx, target)
		must(t, err)
		must(t, tx.Commit())
	})
}

// TestTxWaitsThroughStatementTimeouts: the waits of a role with a short
// statement_timeout end sooner, and go on.
func TestTxWaitsThroughStatementTimeouts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		other, _ := newSession(t, driver)
		held := acquired(t, other, target)
		tx, err := dial(t, driver, "statement_timeout=200").BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		time.AfterFunc(time.Second, func() { held.Release(bg) })
		_, err = pglock.AcquireTx(shortly(t), tx, target)
		must(t, err)
		must(t, tx.Commit())
	})
}

// TestTxFenceIsNewerThanItsGrant: a transaction that has its id when a wait begins, from
// an earlier one that statement_timeout ended just after the grant, is given no fence:
// another may have had the lock since, with a higher one.
func TestTxFenceIsNewerThanItsGrant(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		tx := begin(t, dial(t, driver))
		older := one[int64](t, tx, "SELECT pg_current_xact_id()::text::bigint")
		info, err := pglock.WaitTx(shortly(t), tx, target, swanlock.WithFence())
		if err == nil {
			t.Errorf("got the fence %d; the transaction had the id %d before the grant", info.Fence, older)
		}
		wantIs(t, err, pglock.ErrFenceInTransaction)
		_, err = pglock.WaitTx(shortly(t), tx, target)
		must(t, err)
		must(t, tx.Commit())
	})
}
