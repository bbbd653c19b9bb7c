package pglock_test

import (
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestOneLine: what a wait sends is on one line, prepared or not, since PostgreSQL
// writes each one that times out into its log as it is.
func TestOneLine(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		lockers := map[string]swanlock.Locker{"pool": newPool(t, openDB(t, driver))}
		for _, by := range acquirers {
			lockers[by.name] = by.with(dial(t, driver))
		}
		for name, l := range lockers {
			o, target := observe(t), newTarget(t)
			holder, _ := newSession(t, driver)
			held := acquired(t, holder, target)
			got := waitsFor(t, o, shortly(t), l, target)
			const text = `SELECT query FROM pg_stat_activity WHERE wait_event = 'advisory' AND pid IN (SELECT pid FROM pg_locks
				WHERE NOT granted AND (classid::bigint << 32 | objid::bigint) = $1::bigint)`
			var sent []string
			eventually(t, "it waits in the server", func() bool {
				sent = column[string](t, o.db, text, int64(pglock.KeyOf(target)))
				return len(sent) > 0
			})
			for i, c := range sent[0] {
				if c == '\n' || i > 0 && sent[0][i-1:i+1] == "--" {
					t.Fatalf("%s sends %q", name, sent[0])
				}
			}
			must(t, held.Release(bg))
			must(t, (<-got).get(t).Release(bg))
		}
	})
}
