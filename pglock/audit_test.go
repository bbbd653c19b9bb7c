package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// An auditRow is what lock_audit says of one lock.
type auditRow struct {
	target, owner, mode            string
	key, ttlMs, fence              int64 // fence -1: none
	pid                            int
	reason                         string // "": open
	acquired, refreshed, released  time.Time
	backendStarted, hasClientsAddr bool
}

// rows are the audit of a target, in order.
func (o observer) rows(target string) (rows []auditRow) {
	o.t.Helper()
	found, err := o.db.QueryContext(bg, `SELECT target, owner, mode, key, ttl_ms, COALESCE(fence, -1), backend_pid,
		COALESCE(end_reason, ''), acquired_at, refreshed_at, released_at, backend_start <= acquired_at, client_addr IS NOT NULL
		FROM lock_audit WHERE key = $1::bigint ORDER BY id`, int64(pglock.KeyOf(target)))
	must(o.t, err)
	defer found.Close()
	for found.Next() {
		var r auditRow
		var released sql.NullTime
		must(o.t, found.Scan(&r.target, &r.owner, &r.mode, &r.key, &r.ttlMs, &r.fence, &r.pid, &r.reason,
			&r.acquired, &r.refreshed, &released, &r.backendStarted, &r.hasClientsAddr))
		r.released = released.Time
		rows = append(rows, r)
	}
	must(o.t, found.Err())
	return rows
}

// wantReasons checks how the target's intervals ended, and that they are sound.
func (o observer) wantReasons(target string, want ...string) []auditRow {
	o.t.Helper()
	rows := o.rows(target)
	var got []string
	for _, r := range rows {
		got = append(got, r.reason)
		if r.refreshed.Before(r.acquired) || r.reason != "" && (r.released.Before(r.acquired) || r.refreshed.After(r.released)) {
			o.t.Errorf("acquired %v, refreshed %v, released %v", r.acquired, r.refreshed, r.released)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		o.t.Fatalf("the audit's ends are %q, want %q", got, want)
	}
	return rows
}

// TestAuditRow: the row says who held what, from when to when, and is there as
// soon as the lock is. Fact 16.
func TestAuditRow(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		s, conn := newSession(t, driver, pglock.WithAudit())
		target := newTarget(t)
		before := one[time.Time](t, conn, "SELECT clock_timestamp()")
		held := acquired(t, s, target, swanlock.WithTTL(90*time.Second), swanlock.WithOwner("o'wner"))
		granted := one[time.Time](t, conn, "SELECT clock_timestamp()")

		r := o.wantReasons(target, "")[0]
		want := auditRow{target: target, owner: "o'wner", mode: "exclusive", key: int64(held.Key()), ttlMs: 90_000,
			fence: int64(held.Info().Fence), pid: pidOf(t, conn), backendStarted: true, hasClientsAddr: true,
			acquired: r.acquired, refreshed: r.acquired}
		if r != want {
			t.Errorf("got row %+v,\nwant %+v", r, want)
		}
		if r.acquired.Before(before) || r.acquired.After(granted) || held.Info().Fence == 0 {
			t.Errorf("acquired at %v with fence %d, want between %v and %v, and a fence", r.acquired, r.fence, before, granted)
		}
		must(t, held.Refresh(bg))
		if r = o.wantReasons(target, "")[0]; r.refreshed.Before(granted) {
			t.Errorf("refreshed at %v, before the refresh", r.refreshed)
		}
		refreshed := one[time.Time](t, conn, "SELECT clock_timestamp()")
		must(t, held.Release(bg))
		if r = o.wantReasons(target, "released")[0]; r.released.Before(refreshed) {
			t.Errorf("released at %v, before the release", r.released)
		}

		// A refused try leaves no row.
		must(t, acquired(t, s, target).Release(bg))
		other, _ := newSession(t, driver)
		held = acquired(t, other, target)
		_, err := s.TryAcquire(bg, target)
		wantIs(t, err, swanlock.ErrNotAcquired)
		must(t, held.Release(bg))
		rows := o.wantReasons(target, "released", "released")
		if rows[1].fence <= rows[0].fence || rows[1].ttlMs != 0 || rows[1].acquired.Before(rows[0].released) {
			t.Errorf("the second row is %+v after %+v", rows[1], rows[0])
		}
	})
}

// TestAuditEnds: the row of a lock says how it ended, at the latest when the
// next holder comes.
func TestAuditEnds(t *testing.T) {
	const ttl = 300 * time.Millisecond
	ends := map[string]struct {
		ttl     time.Duration
		end     func(t *testing.T, o observer, conn *sql.Conn, held *pglock.PostgresLock)
		atOnce  bool
		reasons string
	}{
		"killed":                {0, func(_ *testing.T, o observer, _ *sql.Conn, held *pglock.PostgresLock) { o.kill(held.BackendPID()) }, false, "killed"},
		"killed within its TTL": {time.Minute, func(_ *testing.T, o observer, _ *sql.Conn, held *pglock.PostgresLock) { o.kill(held.BackendPID()) }, false, "killed"},
		"expired on the server": {ttl, func(_ *testing.T, o observer, _ *sql.Conn, held *pglock.PostgresLock) {
			o.wantSoonFree(held.Info().Target)
		}, false, "expired"},
		"expired here, released late": {ttl, func(t *testing.T, _ observer, conn *sql.Conn, held *pglock.PostgresLock) {
			for held.Err() == nil {
				one[int](t, conn, "SELECT 1") // the server's lease starts anew, the holder's does not
			}
			wantIs(t, held.Release(bg), swanlock.ErrExpired)
		}, true, "expired"},
		"lost, found by Refresh": {0, func(t *testing.T, _ observer, conn *sql.Conn, held *pglock.PostgresLock) {
			run(t, conn, "SELECT pg_advisory_unlock_all()")
			wantIs(t, held.Refresh(bg), swanlock.ErrLost)
		}, true, "lost"},
		"lost, found by Release": {0, func(t *testing.T, _ observer, conn *sql.Conn, held *pglock.PostgresLock) {
			run(t, conn, "SELECT pg_advisory_unlock_all()")
			wantIs(t, held.Release(bg), swanlock.ErrLost)
		}, true, "lost"},
		"lost, found by the next holder": {0, func(t *testing.T, _ observer, conn *sql.Conn, _ *pglock.PostgresLock) {
			run(t, conn, "SELECT pg_advisory_unlock_all()")
		}, false, "killed"},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for name, c := range ends {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o, target := observe(t), newTarget(t)
				s, conn := newSession(t, driver, pglock.WithAudit())
				held := acquired(t, s, target, swanlock.WithTTL(c.ttl))
				c.end(t, o, conn, held)
				if c.atOnce {
					o.wantReasons(target, c.reasons)
				} else {
					o.wantReasons(target, "")
				}
				next, _ := newSession(t, driver, pglock.WithAudit())
				last := acquired(t, next, target)
				rows := o.wantReasons(target, c.reasons, "")
				if rows[0].released.After(rows[1].acquired) {
					t.Errorf("the first interval ends at %v, after the second began at %v", rows[0].released, rows[1].acquired)
				}
				must(t, last.Release(bg))
				held.Release(bg) // changes nothing
				o.wantReasons(target, c.reasons, "released")
			})
		}
	})
}

// TestAuditShared: readers overlap. A writer's grant proves that all readers
// are gone, a reader's only that no writer is there.
func TestAuditShared(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		var sessions []*pglock.Session
		for range 3 {
			s, _ := newSession(t, driver, pglock.WithAudit())
			sessions = append(sessions, s)
		}
		first := acquired(t, sessions[0], target, swanlock.WithShared())
		dead := acquired(t, sessions[1], target, swanlock.WithShared())
		for _, r := range o.wantReasons(target, "", "") {
			if r.mode != "shared" || r.fence != -1 {
				t.Errorf("got %s with fence %d, want shared with none", r.mode, r.fence)
			}
		}
		o.kill(dead.BackendPID())
		last := acquired(t, sessions[2], target, swanlock.WithShared())
		o.wantReasons(target, "", "", "") // they cannot be told apart yet
		must(t, first.Release(bg))
		must(t, last.Release(bg))
		must(t, acquired(t, sessions[2], target).Release(bg))
		o.wantReasons(target, "released", "killed", "released", "released")

		o.kill(acquired(t, sessions[0], target).BackendPID())
		must(t, acquired(t, sessions[2], target, swanlock.WithShared()).Release(bg))
		o.wantReasons(target, "released", "killed", "released", "released", "killed", "released")
	})
}

// TestAuditInTransaction: the rows are committed or rolled back with the
// caller's transaction, the lock is not, and no other session waits for the
// transaction's end.
func TestAuditInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, end := range []string{"COMMIT", "ROLLBACK"} {
			t.Run(end, func(t *testing.T) {
				o, target := observe(t), newTarget(t)
				s, conn := newSession(t, driver, pglock.WithAudit())
				next, _ := newSession(t, driver, pglock.WithAudit())
				held := acquired(t, s, target)
				run(t, conn, "BEGIN")
				must(t, held.Release(bg)) // the row is closed, but not for others to see
				o.wantHeld(target)
				ctx, cancel := context.WithTimeout(bg, 2*time.Second)
				defer cancel()
				l, err := next.TryAcquire(ctx, target)
				must(t, err)
				run(t, conn, end)
				must(t, l.Release(bg))
				must(t, acquired(t, next, target).Release(bg))
				rows := o.rows(target)
				if len(rows) != 3 || rows[0].reason != map[string]string{"COMMIT": "released", "ROLLBACK": "killed"}[end] {
					t.Fatalf("got rows %+v", rows)
				}
				for i, r := range rows {
					if r.reason == "" || i > 0 && r.acquired.Before(rows[i-1].released) {
						t.Errorf("row %d, %+v, is open or overlaps the one before", i, r)
					}
				}

				run(t, conn, "BEGIN")
				inside := acquired(t, s, target)
				run(t, conn, "ROLLBACK")
				if n := len(o.rows(target)); n != 3 {
					t.Errorf("%d rows after the rollback, want 3", n)
				}
				must(t, inside.Refresh(bg))
				must(t, inside.Release(bg))
			})
		}
	})
}

// TestAuditClockSetBack: a row from the future, left by a server clock that was
// set back since, does not keep another holder from the lock.
func TestAuditClockSetBack(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		s, _ := newSession(t, driver, pglock.WithAudit())
		held := acquired(t, s, target)
		ahead := func() {
			run(t, o.db, "UPDATE lock_audit SET acquired_at = acquired_at + interval '1 hour', refreshed_at = refreshed_at + interval '1 hour' WHERE key = $1::bigint AND released_at IS NULL",
				int64(held.Key()))
		}
		ahead()
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		held = acquired(t, s, target)
		ahead()
		o.kill(held.BackendPID())
		s, _ = newSession(t, driver, pglock.WithAudit())
		must(t, acquired(t, s, target).Release(bg))
		o.wantReasons(target, "released", "killed", "released")
	})
}

// TestAuditTableDropped: when the table is dropped while a lock is held, a
// refresh and a release say so, and still refresh and release the lock.
func TestAuditTableDropped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := newDatabase(t)
		o, conn := observe(t, db), dial(t, driver, db)
		_, err := provider(o.db).Up(bg)
		must(t, err)
		s, target := pglock.NewSession(conn, pglock.WithAudit()), newTarget(t)
		held := acquired(t, s, target, swanlock.WithTTL(time.Minute))
		_, err = provider(o.db).DownTo(bg, 0)
		must(t, err)
		if one[bool](t, o.db, "SELECT to_regclass('lock_audit') IS NOT NULL") {
			t.Error("the migration's down left the table")
		}
		err = held.Refresh(bg)
		wantIs(t, err, pglock.ErrAudit)
		if errors.Is(err, swanlock.ErrLost) || held.Err() != nil {
			t.Errorf("got %v and %v, want a lock that is held", err, held.Err())
		}
		o.wantHeld(target, held.BackendPID())
		err = held.Release(bg)
		wantIs(t, err, pglock.ErrAudit)
		if errors.Is(err, swanlock.ErrLost) {
			t.Errorf("got %v for a lock that was held until its release", err)
		}
		o.wantHeld(target)
		wantIs(t, held.Err(), swanlock.ErrReleased)
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
			t.Errorf("idle_session_timeout is %s after the release, want the caller's own again", got)
		}
		_, err = provider(o.db).Up(bg)
		must(t, err)
		must(t, acquired(t, s, target).Release(bg))
	})
}
