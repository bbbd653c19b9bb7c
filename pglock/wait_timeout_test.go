package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

func needsTransactionTimeout(t *testing.T) {
	t.Helper()
	if one[int](t, openDB(t, "pgx"), "SELECT current_setting('server_version_num')::int") < 170000 {
		t.Skip("this server has no transaction_timeout")
	}
}

// TestWaitOfAShortTransactionTimeout: the server ends a session whose transaction takes
// longer than transaction_timeout (PostgreSQL 17+), so no wait lasts that long.
func TestWaitOfAShortTransactionTimeout(t *testing.T) {
	needsTransactionTimeout(t)
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		other, _ := newSession(t, driver)
		held := acquired(t, other, target)
		const short = "transaction_timeout=500"
		o, conn, p := observe(t), dial(t, driver, short), newPool(t, openDB(t, driver, short))
		session, kept := pidOf(t, conn), acquired(t, p, newTarget(t))
		for _, l := range []swanlock.Locker{pglock.NewSession(conn), p} {
			ctx, cancel := context.WithTimeout(bg, 2*time.Second)
			_, err := l.Acquire(ctx, target)
			cancel()
			wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		}
		if !o.alive(session) {
			t.Error("the server has ended the session")
		}
		must(t, kept.Release(bg))
		must(t, held.Release(bg))
	})
}
