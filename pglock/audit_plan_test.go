package pglock_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestAuditGoesByIndexes: no statement reads the audit's table from end to end, not
// even one that was planned while the table was new: that plan is kept when the table
// has grown, until it is analyzed.
func TestAuditGoesByIndexes(t *testing.T) {
	const callers, rounds = 8, 30
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		// Once the server knows how small the table is, to read all of it is a good plan.
		run(t, o.db, "ALTER TABLE lock_audit SET (autovacuum_enabled = false)")
		db := openDB(t, driver, param)
		p := newPool(t, db, pglock.WithAudit(), pglock.WithMaxSessions(1))
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for range rounds {
					held, err := p.TryAcquire(bg, fmt.Sprintf("%s/%d", t.Name(), i), swanlock.WithTTL(time.Minute))
					if err == nil {
						err = errors.Join(held.Refresh(bg), held.Release(bg))
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		must(t, p.Close(bg))
		must(t, db.Close()) // The server counts what a session did when it ends.
		eventually(t, "statistics", func() bool {
			return one[int](t, o.db, "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'lock_audit'") == callers*rounds
		})
		// The migrations, which make the indexes, have read it a few times.
		if n := one[int](t, o.db, "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'lock_audit'"); n > rounds {
			t.Errorf("lock_audit was read from end to end %d times", n)
		}
	})
}
