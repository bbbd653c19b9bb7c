package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestAuditClosesDeadRows: which rows a grant closes, and where they end. The
// times are seconds; what is to be closed was written before the grant's own
// row, at 100.
func TestAuditClosesDeadRows(t *testing.T) {
	type row struct {
		name                        string
		mode                        string
		acquired, refreshed, ttl    int // ttl 0: none
		released                    int // 0: open
		wantWriter, wantReader      int // where it is closed; 0: it stays as it is
		writersReason, readersCause string
		after                       bool // written after the grant's own
	}
	rows := []row{
		{name: "a dead writer that nobody followed", mode: "exclusive", acquired: 60, refreshed: 70,
			wantWriter: 100, writersReason: "killed", wantReader: 70, readersCause: "killed"},
		{name: "a dead writer that a writer followed", mode: "exclusive", acquired: 20, refreshed: 22,
			wantWriter: 30, writersReason: "killed", wantReader: 22, readersCause: "killed"},
		{name: "the writer that followed it", mode: "exclusive", acquired: 30, refreshed: 31, released: 40},
		{name: "a dead writer whose TTL was over", mode: "exclusive", acquired: 61, refreshed: 62, ttl: 5,
			wantWriter: 100, writersReason: "expired", wantReader: 62, readersCause: "expired"},
		{name: "a dead writer whose TTL was not over", mode: "exclusive", acquired: 62, refreshed: 63, ttl: 60,
			wantWriter: 100, writersReason: "killed", wantReader: 63, readersCause: "killed"},
		{name: "a dead reader", mode: "shared", acquired: 63, refreshed: 64,
			wantWriter: 100, writersReason: "killed"},
		{name: "a dead writer from the future", mode: "exclusive", acquired: 200, refreshed: 201,
			wantWriter: 200, writersReason: "killed", wantReader: 201, readersCause: "killed"},
		{name: "a writer that came after us", mode: "exclusive", acquired: 90, refreshed: 90, after: true},
	}
	// Rows that overlap would each end where the next began, so each is tested
	// alone.
	at := func(s int) time.Time { return time.Unix(1_700_000_000+int64(s), 0) }
	eachDriver(t, func(t *testing.T, driver string) {
		o, conn := observe(t), dial(t, driver)
		insert := func(target, mode string, acquired, refreshed, ttl, released int) (id int64) {
			reason := sql.NullString{String: "released", Valid: released > 0}
			must(t, o.db.QueryRowContext(bg, `INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason)
				VALUES ($1, $2, 'o', $3, $4, 1, now(), $5, $6, $7, $8) RETURNING id`,
				target, int64(pglock.KeyOf(target)), int64(ttl)*1000, mode, at(acquired), at(refreshed), sql.NullTime{Time: at(released), Valid: released > 0}, reason).Scan(&id))
			return id
		}
		end := func(id int64) (released int, reason string) {
			var when sql.NullTime
			var why sql.NullString
			must(t, o.db.QueryRowContext(bg, "SELECT released_at, end_reason FROM lock_audit WHERE id = $1", id).Scan(&when, &why))
			if when.Valid {
				released = int(when.Time.Unix() - 1_700_000_000)
			}
			return released, why.String
		}
		for _, by := range []string{"exclusive", "shared"} {
			for _, r := range rows {
				t.Run(by+" closes "+r.name, func(t *testing.T) {
					target, elsewhere := newTarget(t), newTarget(t)
					var id, ours int64
					if !r.after {
						id = insert(target, r.mode, r.acquired, r.refreshed, r.ttl, r.released)
					}
					if r.name == "a dead writer that a writer followed" {
						insert(target, "exclusive", 30, 31, 0, 40)
					}
					other := insert(elsewhere, "exclusive", 1, 2, 0, 0)
					ours = insert(target, by, 100, 100, 0, 0)
					if r.after {
						id = insert(target, r.mode, r.acquired, r.refreshed, r.ttl, r.released)
					}
					must(t, db.New(db.On(conn)).CloseDead(bg, fmt.Sprintf("{%d}", ours)))

					want, why := r.wantWriter, r.writersReason
					if by == "shared" {
						want, why = r.wantReader, r.readersCause
					}
					if want == 0 && r.released > 0 {
						want, why = r.released, "released"
					}
					if got, reason := end(id); got != want || reason != why {
						t.Errorf("it ends at %d, %q, want %d, %q", got, reason, want, why)
					}
					for _, id := range []int64{ours, other} {
						if got, reason := end(id); got != 0 {
							t.Errorf("a row that is not dead was ended at %d, %q", got, reason)
						}
					}
				})
			}
		}
		t.Run("a row that another session is closing is left to it", func(t *testing.T) {
			target := newTarget(t)
			id := insert(target, "exclusive", 1, 2, 0, 0)
			tx, err := o.db.BeginTx(bg, nil)
			must(t, err)
			defer tx.Rollback()
			one[int64](t, tx, "SELECT id FROM lock_audit WHERE id = $1 FOR UPDATE", id)
			ctx, cancel := context.WithTimeout(bg, soon)
			defer cancel()
			must(t, db.New(db.On(conn)).CloseDead(ctx, fmt.Sprintf("{%d}", insert(target, "exclusive", 100, 100, 0, 0))))
			if got, reason := end(id); got != 0 {
				t.Errorf("it was ended at %d, %q", got, reason)
			}
		})
	})
}

// TestAuditClosingDeadRowsIsSlow: if the rows take too long to close, only that
// call fails. Its caller leaves when its context ends, and the lock is given
// back in the background.
func TestAuditClosingDeadRowsIsSlow(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		target, other := newTarget(t), newTarget(t)
		conn := dial(t, driver, dbname)
		s := pglock.NewSession(conn, pglock.WithAudit())
		kept := acquired(t, s, other, swanlock.WithTTL(time.Minute))
		dead := pglock.NewSession(dial(t, driver, dbname), pglock.WithAudit())
		o.kill(acquired(t, dead, target).BackendPID())
		run(t, o.db, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN IF NEW.end_reason = 'killed' THEN PERFORM pg_sleep(8); END IF; RETURN NEW; END $$`)
		run(t, o.db, "CREATE TRIGGER slow BEFORE UPDATE ON lock_audit FOR EACH ROW EXECUTE FUNCTION slow()")

		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		late, start := watchScheduler(t), time.Now()
		_, err := s.TryAcquire(ctx, target, swanlock.WithTTL(time.Minute))
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		if took := time.Since(start); took > 4*time.Second+late() {
			t.Errorf("it took %v, with a context of 1 s", took)
		}
		o.wantSoonFree(target)
		wantIs(t, kept.Err(), nil)
		o.wantHeld(other, kept.BackendPID())
		must(t, kept.Refresh(bg))
		must(t, kept.Release(bg))
		must(t, conn.PingContext(bg))
	})
}

// TestAuditClosingDeadRowsFails: if the rows of the dead cannot be closed, the lock is not
// taken, and its own row says that it was given back, or is closed by the next.
func TestAuditClosingDeadRowsFails(t *testing.T) {
	failures := map[string]struct {
		what    string
		session bool // lives
	}{
		"refused": {"RAISE 'no'", true},
		"killed":  {"PERFORM pg_terminate_backend(pg_backend_pid())", false},
	}
	ways := map[string]func(t *testing.T, db *sql.DB, conn *sql.Conn) swanlock.Locker{
		"Session": func(_ *testing.T, _ *sql.DB, conn *sql.Conn) swanlock.Locker {
			return pglock.NewSession(conn, pglock.WithAudit())
		},
		"Pool": func(t *testing.T, db *sql.DB, _ *sql.Conn) swanlock.Locker { return newPool(t, db, pglock.WithAudit()) },
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for name, f := range failures {
			for way, with := range ways {
				if way == "Pool" && !f.session { // it would try other sessions
					continue
				}
				t.Run(way+" "+name, func(t *testing.T) {
					t.Parallel()
					dbname, o := auditDatabase(t)
					target := newTarget(t)
					pool := openDB(t, driver, dbname)
					conn := connOf(t, pool)
					l := with(t, pool, conn)
					must(t, acquired(t, l, newTarget(t)).Release(bg))
					dead := pglock.NewSession(dial(t, driver, dbname), pglock.WithAudit())
					o.kill(acquired(t, dead, target).BackendPID())
					run(t, o.db, fmt.Sprintf(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
						$$ BEGIN IF NEW.end_reason = 'killed' THEN %s; END IF; RETURN NEW; END $$`, f.what))
					run(t, o.db, "CREATE TRIGGER fail BEFORE UPDATE ON lock_audit FOR EACH ROW EXECUTE FUNCTION fail()")

					ctx, cancel := context.WithTimeout(bg, time.Second)
					defer cancel()
					_, err := l.TryAcquire(ctx, target, swanlock.WithTTL(time.Minute))
					if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
						t.Fatalf("got %v, want an error", err)
					}
					if f.session {
						o.wantHeld(target)
						o.wantReasons(target, "", "released")
					} else {
						o.wantSoonFree(target)
						o.wantReasons(target, "", "")
					}
					if way == "Session" {
						if f.session {
							must(t, conn.PingContext(bg))
							if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
								t.Errorf("a lease of %s is left", got)
							}
						} else {
							wantIs(t, conn.PingContext(bg), sql.ErrConnDone)
							l = with(t, pool, connOf(t, pool))
						}
					}
					run(t, o.db, "DROP TRIGGER fail ON lock_audit")
					must(t, acquired(t, l, target).Release(bg))
					want := []string{"killed", "released", "released"}
					if !f.session {
						want[1] = "killed"
					}
					o.wantReasons(target, want...)
				})
			}
		}
	})
}

// TestAuditClosesDeadRowsAfterWait: a waiter closes the row of the dead holder
// that it waited for.
func TestAuditClosesDeadRowsAfterWait(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver, pglock.WithAudit())
		next, _ := newSession(t, driver, pglock.WithAudit())
		held := acquired(t, holder, target)
		time.AfterFunc(100*time.Millisecond, func() { o.kill(held.BackendPID()) })
		l, err := next.Acquire(shortly(t), target)
		must(t, err)
		o.wantReasons(target, "killed", "")
		must(t, l.Release(bg))
	})
}

// TestAuditRowHasBackendStart: the row has the start of the backend that has
// the lock, and another backend that answers is granted nothing.
func TestAuditRowHasBackendStart(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		s, conn := newSession(t, driver, pglock.WithAudit())
		for range 2 {
			held := acquired(t, s, target)
			if !one[bool](t, conn, `SELECT a.backend_start = b.backend_start AND a.backend_pid = b.pid FROM lock_audit a, pg_stat_activity b
				WHERE a.key = $1::bigint AND a.released_at IS NULL AND b.pid = pg_backend_pid()`, int64(pglock.KeyOf(target))) {
				t.Error("the row tells of another backend")
			}
			must(t, held.Release(bg))
		}
		row, err := db.New(db.On(conn)).TryAcquireAudited(bg, db.TryAcquireAuditedParams{Session: one[string](t, conn, markOf), Key: int64(pglock.KeyOf(target)),
			Target: target, Backend: int32(pidOf(t, conn) + 1)})
		if must(t, err); row.Answer != -4 {
			t.Errorf("got %d for another backend's, want -4", row.Answer)
		}
		o.wantHeld(target)
	})
}
