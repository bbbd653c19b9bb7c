package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestSessionConformance runs the suite that every locker passes, on each way to
// acquire.
func TestSessionConformance(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				newLocker := func(t *testing.T) swanlock.Locker { return by.with(connOf(t, pgtest.UsedDB(t, driver))) }
				locktest.Run(t, newLocker, locktest.ShortTTL(600*time.Millisecond), locktest.Fair(), locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
					o.in(t).kill(held.(*pglock.PostgresLock).BackendPID())
				}))
			})
		}
	})
}
