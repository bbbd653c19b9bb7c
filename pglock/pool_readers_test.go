package pglock_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolReaderIsCancelled: a reader's statement that fails, before or after
// it has taken or released the lock, does no harm to the session's other
// readers and locks. A share that it may have left is released with the last
// reader, and not before.
func TestPoolReaderIsCancelled(t *testing.T) {
	for _, function := range []string{"pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"} {
		for _, moment := range []string{"before", "after"} {
			eachDriver(t, func(t *testing.T, driver string) {
				o := observe(t)
				schema := fmt.Sprintf("readers_%s_%s_%s", function, moment, driver)
				first, then := "RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';", "PERFORM pg_catalog."+function+"(k);"
				if moment == "after" {
					first, then = then, first
				}
				db := evilDB(t, driver, schema, `CREATE FUNCTION `+schema+`.`+function+`(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
					BEGIN
						IF nextval('`+schema+`.calls') = 2 THEN `+first+then+` END IF;
						RETURN pg_catalog.`+function+`(k);
					END $$`)
				p, target := newPool(t, db, pglock.WithHeartbeat(time.Hour)), newTarget(t)
				var others, readers []*pglock.PostgresLock
				for range 5 {
					others = append(others, acquired(t, p, newTarget(t)))
				}
				for range 4 {
					l, err := p.TryAcquire(bg, target, swanlock.WithShared())
					if err == nil {
						readers = append(readers, l.(*pglock.PostgresLock))
					}
				}
				want := 4
				if function == "pg_try_advisory_lock_shared" {
					want = 3
				}
				if len(readers) != want {
					t.Fatalf("%d readers were granted the lock, want %d", len(readers), want)
				}
				pid := backendOf(others[0])
				for i, l := range readers {
					o.wantHeld(target, pid)
					must(t, l.Err())
					if err := l.Release(bg); err != nil {
						t.Errorf("release of reader %d: %v", i, err)
					}
				}
				o.wantHeld(target)
				for _, l := range others {
					o.wantHeld(l.Info().Target, pid)
					must(t, l.Release(bg))
				}
				must(t, acquired(t, p, target).Release(bg))
			})
		}
	}
}
