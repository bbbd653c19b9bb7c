package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestWitnessOfAnEarlierUse: on a pgxpool each checkout has a ledger of its own, and the
// session has the witness of an earlier one. A rollback that brings it back is not
// taken for a change that has lasted. Fact 42.
func TestWitnessOfAnEarlierUse(t *testing.T) {
	t.Parallel()
	db := openDB(t, "pgxpool", "pool_max_conns=1")
	short := swanlock.WithTTL(30 * time.Second)
	first, err := db.Conn(bg)
	must(t, err)
	s := pglock.NewSession(first)
	must(t, acquired(t, s, newTarget(t), short).Release(bg))
	must(t, s.Close(bg))
	must(t, first.Close())

	conn := connOf(t, db)
	s = pglock.NewSession(conn)
	leased := acquired(t, s, newTarget(t), short)
	held := acquired(t, s, newTarget(t))
	run(t, conn, "BEGIN")
	must(t, leased.Release(bg))
	run(t, conn, "ROLLBACK")
	wantCounted(t, conn, "after the rollback", held)
	must(t, held.Refresh(bg))
	wantCounted(t, conn, "after a refresh", held)
	wantSettings(t, conn, "after a refresh", [2]string{"0", "0"})
	must(t, s.Close(bg))
}
