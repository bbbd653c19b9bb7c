package pginspect_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

const day = 24 * time.Hour

// aged makes the open row of target one that was last proven a hundred days ago.
func aged(t *testing.T, on *sql.DB, target string) {
	t.Helper()
	exec(t, on, "UPDATE lock_audit SET acquired_at = now() - interval '100 days', refreshed_at = now() - interval '100 days' WHERE target = $1", target)
}

// TestPruneAndAReleaseInATransaction: a lock that is free, and whose row a
// transaction has closed that is still open, ended just now. Prune neither waits for
// that transaction nor deletes the row.
func TestPruneAndAReleaseInATransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		must(t, migrate(on))
		c := conn(t, on)
		s := pglock.NewSession(c, pglock.WithAudit())
		defer s.Close(bg)
		held, err := s.TryAcquire(bg, "leader")
		must(t, err)
		aged(t, on, "leader")
		exec(t, c, "BEGIN")
		must(t, held.Release(bg))
		ctx, cancel := context.WithTimeout(bg, patience)
		defer cancel()
		done, err := pginspect.Prune(ctx, on, pginspect.PruneQuery{Before: time.Now().Add(-90 * day)})
		must(t, err)
		want(t, "deleted", done.Deleted, int64(0))
		exec(t, c, "COMMIT")
		want(t, "end", record(t, on, "leader").End, "released")
	})
}

// TestPruneAndARelease: a lock that is released while Prune looks at its row ended
// just now, so the row stays. A policy of the table's makes Prune's look last.
func TestPruneAndARelease(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		admin, role := connect(t, driver, newDatabase(t)), newRole(t)
		must(t, migrate(admin))
		exec(t, admin, "GRANT SELECT, DELETE ON lock_audit TO "+role)
		t.Cleanup(func() { exec(t, admin, "DROP OWNED BY "+role) })
		exec(t, admin, "CREATE FUNCTION slow(before boolean) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN IF before AND position(''DELETE'' IN current_query()) > 0 THEN PERFORM pg_advisory_xact_lock_shared(1, 1); END IF; RETURN true; END'")
		exec(t, admin, "CREATE POLICY slow ON lock_audit USING (slow(released_at IS NULL))")
		exec(t, admin, "ALTER TABLE lock_audit ENABLE ROW LEVEL SECURITY")
		_, held := acquire(t, admin, "leader", audited)
		aged(t, admin, "leader")

		gate := conn(t, admin)
		exec(t, gate, "SELECT pg_advisory_lock(1, 1)")
		on := connect(t, driver, one[string](t, admin, "SELECT current_database()"), role)
		pruned := make(chan error, 1)
		go func() {
			done, err := pginspect.Prune(bg, on, pginspect.PruneQuery{Before: time.Now().Add(-90 * day)})
			if err == nil && done.Deleted > 0 {
				err = fmt.Errorf("it deleted %d rows", done.Deleted)
			}
			pruned <- err
		}()
		eventually(t, "a look at the row", func() bool {
			return one[bool](t, admin, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND usename = $1)", role)
		})
		must(t, held.Release(bg))
		exec(t, gate, "SELECT pg_advisory_unlock(1, 1)")
		must(t, <-pruned)
		exec(t, admin, "ALTER TABLE lock_audit DISABLE ROW LEVEL SECURITY")
		want(t, "rows", one[int](t, admin, "SELECT count(*) FROM lock_audit WHERE target = 'leader' AND end_reason = 'released'"), 1)
	})
}

// TestPruneUnderAnyIsolation: several hosts may prune at once, whatever the isolation
// level that the database gives them.
func TestPruneUnderAnyIsolation(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				admin := connect(t, driver, newDatabase(t))
				must(t, migrate(admin))
				exec(t, admin, `INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason)
					SELECT 't', 1, 'me', 0, 'shared', 1, now(), at, at, at, 'released' FROM (SELECT now() - interval '100 days' AS at FROM generate_series(1, 2000)) s`)
				name := one[string](t, admin, "SELECT current_database()")
				exec(t, admin, fmt.Sprintf("ALTER DATABASE %s SET default_transaction_isolation = '%s'", name, level))
				var wg sync.WaitGroup
				for range 3 {
					on := connect(t, driver, name)
					wg.Go(func() {
						if _, err := pginspect.Prune(bg, on, pginspect.PruneQuery{Before: time.Now().Add(-90 * day), Batch: 100}); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				want(t, "rows", one[int](t, admin, "SELECT count(*) FROM lock_audit"), 0)
			})
		})
	}
}

// A meddler does something before the first statement that has a text in it.
type meddler struct {
	pginspect.DB
	text string
	do   func()
}

func (m *meddler) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if m.do != nil && strings.Contains(query, m.text) {
		m.do()
		m.do = nil
	}
	return m.DB.QueryRowContext(ctx, query, args...)
}

// TestKillOfWhatIsReleased: a lock that its holder releases just before Kill ends
// nothing is no lock that somebody killed.
func TestKillOfWhatIsReleased(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, audited)
		m := &meddler{on, "pg_terminate_backend", func() { must(t, held.Release(bg)) }}
		if _, err := pginspect.Kill(bg, m, of(t, on, target)[0].Session, "ann"); !errors.Is(err, pginspect.ErrNoSession) {
			t.Errorf("got %v, want %v", err, pginspect.ErrNoSession)
		}
		want(t, "rows with a name", one[int](t, on, "SELECT count(*) FROM lock_audit WHERE target = $1 AND ended_by IS NOT NULL", target), 0)
		r := record(t, on, target)
		want(t, "end", r.End, "released")
		want(t, "by", r.EndedBy, "")
	})
}

// TestKilledByNobody: who meant to end a session, and was cut short before that, has
// not ended a lock that was released later.
func TestKilledByNobody(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, audited)
		exec(t, on, "UPDATE lock_audit SET ended_by = 'ann' WHERE target = $1", target)
		want(t, "by, while it is held", record(t, on, target).EndedBy, "ann")
		must(t, held.Release(bg))
		want(t, "by", record(t, on, target).EndedBy, "")
	})
}

// TestKillReadOnly: a role whose transactions are read-only ends a session, too; it
// writes nothing, as one without the right to.
func TestKillReadOnly(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, append(audited, pglock.WithHeartbeat(50*time.Millisecond)))
		readOnly := openURL(t, driver, address(t, "", "")+"&default_transaction_read_only=on")
		killed, err := pginspect.Kill(bg, readOnly, of(t, on, target)[0].Session, "ann")
		must(t, err)
		want(t, "rows", killed.Rows, 0)
		select {
		case <-held.Done():
		case <-time.After(patience):
			t.Error("the holder does not learn it")
		}
	})
}

// TestHistoryBetweenMicroseconds: bounds that no row can have, since the server counts
// microseconds, are bounds all the same.
func TestHistoryBetweenMicroseconds(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		addRow(t, on, target, "o", time.Hour, time.Minute)
		began := record(t, on, target).AcquiredAt
		for _, tt := range []struct {
			since, until time.Time
			want         int
		}{
			{since: began, want: 1}, {since: began.Add(1), want: 0}, {since: began.Add(-1), want: 1},
			{until: began, want: 0}, {until: began.Add(1), want: 1}, {until: began.Add(-1), want: 0},
		} {
			page, err := pginspect.History(bg, on, pginspect.Query{Target: target, Since: tt.since, Until: tt.until})
			must(t, err)
			if got := len(page.Records); got != tt.want {
				t.Errorf("from %v until %v: got %d records, want %d", tt.since, tt.until, got, tt.want)
			}
		}
	})
}

// TestOrphanOfAnEarlierSession: a later session with the same process id, which holds
// the lock without an audit, does not hold the row of the dead one.
func TestOrphanOfAnEarlierSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		acquire(t, on, target, audited)
		want(t, "state", record(t, on, target).State, pginspect.Held)
		exec(t, on, "UPDATE lock_audit SET backend_start = backend_start - interval '1 hour' WHERE target = $1", target)
		want(t, "state", record(t, on, target).State, pginspect.Orphaned)
	})
}
