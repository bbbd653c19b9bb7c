package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// TestLeaseOverARolesOwn: a role's own timeouts may be shorter than a TTL, and come
// back with the end of a transaction in which the lock was taken. The holder counts
// on them then, until a statement has set the lease for good.
func TestLeaseOverARolesOwn(t *testing.T) {
	long := swanlock.WithTTL(time.Minute)
	eachDriver(t, func(t *testing.T, driver string) {
		for _, name := range []string{"idle_session_timeout", "idle_in_transaction_session_timeout"} {
			database := newDatabase(t, name+" = '20s'")
			for _, end := range []string{"COMMIT", "ROLLBACK"} {
				for _, warm := range []string{"first", "warm", "SET LOCAL"} {
					for _, by := range acquirers[:2] {
						t.Run(by.name+" "+name+" "+end+" "+warm, func(t *testing.T) {
							conn := dial(t, driver, database)
							l := by.with(conn)
							if warm != "first" {
								must(t, acquired(t, l, newTarget(t), long).Release(bg))
							}
							run(t, conn, "BEGIN")
							if warm == "SET LOCAL" {
								run(t, conn, "SET LOCAL "+name+" = 0")
							}
							held := acquired(t, l, newTarget(t), long)
							run(t, conn, end)
							wantCounted(t, conn, "after "+end, held)
							must(t, held.Refresh(bg))
							wantSettings(t, conn, "after a refresh", [2]string{"1min", "1min"})
							if d, ok := held.Deadline(); !ok || time.Until(d) < 50*time.Second {
								t.Errorf("after a refresh the holder counts on %v (any end: %v), want a minute", time.Until(d), ok)
							}
							must(t, held.Release(bg))
							if got := one[string](t, conn, "SHOW "+name); got != "20s" {
								t.Errorf("after the release %s is %s", name, got)
							}
						})
					}
				}
			}
		}
	})
}
