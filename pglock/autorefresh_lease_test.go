package pglock_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestAutoRefreshOfAShorterLease: a lock that refreshes itself does so soon enough for
// the session's lease, which another lock, or a rollback, has made shorter than its
// own TTL.
func TestAutoRefreshOfAShorterLease(t *testing.T) {
	const ttl = 1500 * time.Millisecond
	short, long := swanlock.WithTTL(ttl), swanlock.WithTTL(time.Minute)
	eachDriver(t, func(t *testing.T, driver string) {
		for name, begin := range map[string]func(t *testing.T, conn *sql.Conn, l swanlock.Locker) *pglock.PostgresLock{
			"another lock before": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) *pglock.PostgresLock {
				acquired(t, l, newTarget(t), short)
				return acquired(t, l, newTarget(t), long, swanlock.WithAutoRefresh())
			},
			"another lock after": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) *pglock.PostgresLock {
				held := acquired(t, l, newTarget(t), long, swanlock.WithAutoRefresh())
				acquired(t, l, newTarget(t), short)
				return held
			},
			"another lock released in a transaction": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) *pglock.PostgresLock {
				held := acquired(t, l, newTarget(t), long, swanlock.WithAutoRefresh())
				other := acquired(t, l, newTarget(t), short)
				run(t, conn, "BEGIN")
				must(t, other.Release(bg))
				run(t, conn, "ROLLBACK")
				return held
			},
			"a transaction over the role's own": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) *pglock.PostgresLock {
				run(t, conn, "SET idle_session_timeout = '1500ms'")
				run(t, conn, "BEGIN")
				held := acquired(t, l, newTarget(t), long, swanlock.WithAutoRefresh())
				run(t, conn, "ROLLBACK")
				return held
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o := observe(t)
				s, conn := newSession(t, driver)
				held := begin(t, conn, s)
				select {
				case <-held.Done():
					t.Fatalf("a lock that refreshes itself is over: %v", held.Err())
				case <-time.After(2 * ttl):
				}
				o.wantHeld(held.Info().Target, held.BackendPID())
				must(t, held.Release(bg))
			})
		}
	})
}
