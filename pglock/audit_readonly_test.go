package pglock_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestAuditInAReadOnlyTransaction: where the caller has a transaction open that may
// only read, no row can be written. That is ErrAudit, not a standby, and costs neither
// the transaction nor a lock.
func TestAuditInAReadOnlyTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		conn := dial(t, driver, param)
		s := pglock.NewSession(conn, pglock.WithAudit())
		kept := acquired(t, s, newTarget(t), swanlock.WithTTL(time.Minute))
		freed := acquired(t, s, newTarget(t))
		tx, err := conn.BeginTx(bg, &sql.TxOptions{ReadOnly: true})
		must(t, err)
		defer tx.Rollback()
		want := func(what string, err error) {
			t.Helper()
			if wantIs(t, err, pglock.ErrAudit); errors.Is(err, pglock.ErrStandby) || errors.Is(err, swanlock.ErrLost) {
				t.Errorf("%s: %v", what, err)
			}
		}
		target := newTarget(t)
		_, err = s.TryAcquire(bg, target)
		want("TryAcquire", err)
		_, err = s.Acquire(shortly(t), target, swanlock.WithShared())
		want("Acquire", err)
		want("Refresh", kept.Refresh(bg))
		want("Release", freed.Release(bg))
		o.wantHeld(target)
		o.wantHeld(freed.Info().Target)
		o.wantHeld(kept.Info().Target, kept.BackendPID())
		must(t, acquired(t, pglock.NewSession(conn), target).Release(bg)) // It has no row.
		must(t, tx.Commit())
		must(t, kept.Refresh(bg))
		must(t, kept.Release(bg))
		held := acquired(t, s, target)
		run(t, conn, "SET default_transaction_read_only = on")
		wantIs(t, held.Refresh(bg), pglock.ErrAudit, pglock.ErrStandby)
		wantIs(t, held.Release(bg), pglock.ErrAudit, pglock.ErrStandby)
		o.wantHeld(target)
	})
}
