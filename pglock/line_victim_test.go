package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestLineGrantIsADeadlocksVictim: a waiter that the line has granted the lock
// writes its audit row, for which it waits, and the server ends that wait because
// of a deadlock, before the statement has taken the lock once more. What the waiter
// has after that is a lock that the server knows of.
func TestLineGrantIsADeadlocksVictim(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		target := newTarget(t)
		key := int64(pglock.KeyOf(target))
		holder, err := pglock.TryAcquire(bg, dial(t, driver, param), target)
		must(t, err)

		waiter := pglock.NewSession(dial(t, driver, param, "deadlock_timeout=2000"), pglock.WithAudit()) // It waits for 1.8 s.
		type result struct {
			held swanlock.DistributedLock
			err  error
		}
		came := make(chan result, 1)
		ctx, cancel := context.WithTimeout(bg, soon)
		defer cancel()
		go func() {
			held, err := waiter.Acquire(ctx, target)
			came <- result{held, err}
		}()
		waiting := func(n int) func() bool {
			return func() bool {
				return one[int](t, o.db, `SELECT count(*) FROM pg_locks k WHERE k.locktype = 'advisory' AND k.objsubid = 1 AND NOT k.granted
					AND ((k.classid::bigint << 32) | k.objid::bigint) = $1::bigint`, key) >= n
			}
		}
		eventually(t, "the waiter waits in the server", waiting(1))

		// Another session has locked the table, and then waits for the target.
		tx, err := dial(t, driver, param).BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		run(t, tx, "SET LOCAL deadlock_timeout = 10")
		run(t, tx, "LOCK TABLE public.lock_audit IN ACCESS EXCLUSIVE MODE")
		done := make(chan error, 1)
		go func() {
			_, err := tx.ExecContext(bg, "SELECT pg_advisory_xact_lock($1)", key)
			if err == nil {
				err = tx.Commit()
			}
			done <- err
		}()
		eventually(t, "both wait", waiting(2))
		time.Sleep(100 * time.Millisecond) // The transaction has looked for a deadlock, and will not look again.
		must(t, holder.Release(bg))
		must(t, <-done)
		r := <-came
		must(t, r.err)
		o.wantHeld(target, r.held.(*pglock.PostgresLock).BackendPID())
		must(t, r.held.Release(bg))
	})
}
