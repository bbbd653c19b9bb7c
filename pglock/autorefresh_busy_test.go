package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// TestAutoRefreshAfterAStatement: a statement of the connection's owner runs for longer
// than a third of the TTL, and ends long before the TTL does. The refresh that had to
// wait for it is sent then.
func TestAutoRefreshAfterAStatement(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				late := watchScheduler(t)
				conn := dial(t, driver, auditParam(t))
				held := acquired(t, by.with(conn), newTarget(t), swanlock.WithTTL(3*time.Second), swanlock.WithAutoRefresh())
				time.Sleep(900 * time.Millisecond)
				run(t, conn, "SELECT pg_sleep(1.3)")
				time.Sleep(2 * time.Second)
				if err := held.Err(); err != nil && late() < 500*time.Millisecond {
					t.Errorf("the lock has ended: %v", err)
				}
				held.Release(bg)
			})
		}
	})
}

func auditParam(t *testing.T) string {
	param, _ := auditDatabase(t)
	return param
}
