package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

const markOf = "SELECT COALESCE(current_setting('swanlock.session', true), '')"

// TestMarkMissingGrantsNothing: none of the statements that take a lock takes it on
// a backend that is not marked as this session's, or as another's.
func TestMarkMissingGrantsNothing(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		conn := dial(t, driver)
		q, key := db.New(db.On(conn)), int64(pglock.KeyOf(target))
		wantNot := func(name string, answer int64, err error) {
			t.Helper()
			if must(t, err); answer != -4 {
				t.Errorf("%s: got %d, want -4", name, answer)
			}
			o.wantHeld(target)
		}
		for _, mark := range []string{"", "SET swanlock.session = ''", "SET swanlock.session = 'another'"} {
			if mark != "" {
				run(t, conn, mark)
			}
			pid, err := q.TryAcquire(bg, db.TryAcquireParams{Session: "mine", Key: key})
			wantNot("TryAcquire "+mark, pid, err)
			for _, shared := range []bool{false, true} {
				with, err := q.TryAcquireWith(bg, db.TryAcquireWithParams{Session: "mine", Key: key, Shared: shared, Lease: "60000"})
				wantNot("TryAcquireWith "+mark, with.Answer, err)
				audited, err := q.TryAcquireAudited(bg, db.TryAcquireAuditedParams{Session: "mine", Key: key, Shared: shared, Target: target, Backend: int32(pidOf(t, conn))})
				wantNot("TryAcquireAudited "+mark, audited.Answer, err)
			}
			if n := len(o.rows(target)); n != 0 {
				t.Errorf("%s: %d rows of what was not granted", mark, n)
			}
		}
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
			t.Errorf("got a lease of %s for what was not granted", got)
		}
	})
}

// TestMarkIsTaken: a mark that the caller took, knowingly or by a rollback, is
// made again. What is held meanwhile stays.
func TestMarkIsTaken(t *testing.T) {
	takes := map[string]struct{ before, after string }{
		"DISCARD ALL": {"", "DISCARD ALL"},
		"RESET":       {"", "RESET swanlock.session"},
		"a rollback":  {"BEGIN", "ROLLBACK"},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for _, c := range tripOptions {
				for name, take := range takes {
					t.Run(by.name+" "+c.name+" "+name, func(t *testing.T) {
						o, conn := observe(t), dial(t, driver)
						l, first, second := by.with(conn), newTarget(t), newTarget(t)
						if take.before != "" {
							run(t, conn, take.before)
						}
						held := acquired(t, l, first, c.opts...)
						if got := one[string](t, conn, markOf); got == "" {
							t.Fatal("the backend is not marked")
						}
						run(t, conn, take.after)
						if name != "DISCARD ALL" { // which pgx does not notice by itself
							if got := one[string](t, conn, markOf); got != "" {
								t.Fatalf("the mark is still %q", got)
							}
						}
						next := acquired(t, l, second, c.opts...)
						o.wantHeld(second, next.BackendPID())
						must(t, next.Release(bg))
						if err := held.Release(bg); name != "DISCARD ALL" { // which unlocks
							must(t, err)
						}
						o.wantHeld(first)
						o.wantHeld(second)
					})
				}
			}
		}
	})
}

// clients are two of a pooler's, on one backend.
func clients(t *testing.T, driver string) (first, second *sql.Conn, p *pooler) {
	t.Helper()
	p = pgtest.NewPooler(t, driver, server(t).URL())
	p.Fixed = true
	db := p.OpenDB(t)
	return connOf(t, db), connOf(t, db), p
}

// TestMarkRefusesASharedBackend: while a client has any lock on a backend, no
// other client gets one there, of whatever key: the next statement might free the
// wrong one's. When the first has none any more, the second may.
func TestMarkRefusesASharedBackend(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for _, c := range tripOptions {
				t.Run(by.name+" "+c.name, func(t *testing.T) {
					o := observe(t)
					one, other, _ := clients(t, driver)
					first, second := by.with(one), by.with(other)
					a, b := newTarget(t), newTarget(t)
					held := acquired(t, first, a, c.opts...)
					for _, target := range []string{a, b} {
						_, err := second.TryAcquire(bg, target, c.opts...)
						wantIs(t, err, pglock.ErrPooler)
						if errors.Is(err, swanlock.ErrNotAcquired) {
							t.Errorf("got %v", err)
						}
					}
					o.wantHeld(a, held.BackendPID())
					o.wantHeld(b)
					must(t, held.Release(bg))

					next := acquired(t, second, b, c.opts...)
					_, err := first.TryAcquire(bg, a, c.opts...)
					wantIs(t, err, pglock.ErrPooler)
					o.wantHeld(a)
					must(t, next.Release(bg))

					run(t, other, "SELECT pg_advisory_lock(1, 2)") // nobody knows whose it is
					_, err = first.TryAcquire(bg, a, c.opts...)
					wantIs(t, err, pglock.ErrPooler)
					must(t, acquired(t, second, b, c.opts...).Release(bg))
					run(t, other, "SELECT pg_advisory_unlock(1, 2)")
				})
			}
		}
	})
}

// TestMarkMeetsAnotherBackend: a statement that meets another backend than the
// mark did is not granted.
func TestMarkMeetsAnotherBackend(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for _, c := range tripOptions {
				t.Run(by.name+" "+c.name, func(t *testing.T) {
					o, target := observe(t), newTarget(t)
					conn := connOf(t, openURL(t, "pooled "+driver, server(t).URL()))
					pgtest.PoolerOf(t, conn)
					_, err := by.with(conn).TryAcquire(bg, target, c.opts...)
					wantIs(t, err, pglock.ErrPooler)
					o.wantHeld(target)
				})
			}
		}
	})
}

// TestMarkFails: a first acquire whose mark fails says why, as any other does,
// and keeps the session if it can.
func TestMarkFails(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name+" in a failed transaction", func(t *testing.T) {
				o, target, conn := observe(t), newTarget(t), dial(t, driver)
				pid := pidOf(t, conn)
				run(t, conn, "BEGIN")
				conn.ExecContext(bg, "SELECT 1/0")
				_, err := by.with(conn).TryAcquire(bg, target)
				wantIs(t, err, pglock.ErrAbortedTransaction)
				run(t, conn, "ROLLBACK")
				acquired(t, by.with(conn), target)
				o.wantHeld(target, pid)
			})
			t.Run(by.name+" on a dead session", func(t *testing.T) {
				o, conn := observe(t), dial(t, driver)
				pid := pidOf(t, conn)
				o.kill(pid)
				if _, err := by.with(conn).TryAcquire(bg, newTarget(t)); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("got %v of a session that is dead", err)
				}
				wantIs(t, conn.PingContext(bg), sql.ErrConnDone)
			})
			if driver == "pgx-cancel" { // which waits for longer than we do, and races with the Close of its own connection
				continue
			}
			t.Run(by.name+" without an answer", func(t *testing.T) {
				t.Parallel()
				p := newProxy(t)
				conn := connOf(t, openURL(t, driver, p.url))
				pidOf(t, conn)
				p.muted.Store(true)
				ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
				defer cancel()
				if _, err := by.with(conn).TryAcquire(ctx, newTarget(t)); err == nil {
					t.Error("a lock without an answer")
				}
				eventually(t, "the connection is closed", func() bool { return errors.Is(conn.PingContext(bg), sql.ErrConnDone) })
			})
		}
	})
}
