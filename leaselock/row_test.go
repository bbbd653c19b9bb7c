package leaselock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// TestRow: the table tells who holds a target, and how that was spelled.
func TestRow(t *testing.T) {
	db := open(t, "pgx", server(t).URL(), nil)
	target := "./" + t.Name()
	for _, owner := range []string{"me", "another"} { // makes the row, and takes it over
		held := mustTry(t, newLocker(t, db), target, swanlock.WithOwner(owner))
		got := one[string](t, db, "SELECT format('%s %s %s', target, owner, fence) FROM lock_leases WHERE key = $1 AND token IS NOT NULL AND ends_at > clock_timestamp()",
			int64(swanlock.KeyOf(target)))
		if want := fmt.Sprintf("%s %s %d", target, owner, held.Info().Fence); got != want {
			t.Errorf("the row has %s, want %s", got, want)
		}
		must(t, held.Release(bg))
	}
}

// TestReadOnly: Acquire does not wait for a server that refuses to write, unless there
// was an outage before: it is a standby, or its user is to change nothing.
func TestReadOnly(t *testing.T) {
	for _, driver := range drivers {
		l := newLocker(t, open(t, driver, server(t).URL()+"&default_transaction_read_only=on", nil))
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		if _, err := l.Acquire(ctx, t.Name()); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("%s: got %v, want the server's error", driver, err)
		}
		cancel()
	}
}
