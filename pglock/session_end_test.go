package pglock_test

import (
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestEndOnPgxpool: the driver's Close gives the session back alive, so a session
// that cannot be asked any more is ended on the server, after its holders were told.
// Fact 32.
func TestEndOnPgxpool(t *testing.T) {
	t.Parallel()
	for _, by := range acquirers {
		for _, ttl := range []time.Duration{0, time.Minute} {
			t.Run(by.name+" "+ttl.String(), func(t *testing.T) {
				o := observe(t)
				target, other := newTarget(t), newTarget(t)
				var held, also atomic.Pointer[pglock.PostgresLock]
				var ends atomic.Int32
				db, pool := editedPgxpool(t, func(query string) string {
					if query == db.OneLine(db.EndBackend) {
						ends.Add(1)
						for _, l := range []*pglock.PostgresLock{held.Load(), also.Load()} {
							if l.Err() == nil {
								t.Error("the session ends before its holders are told")
							}
						}
					}
					return fails(query, "pg_advisory_unlock")
				})
				conn := connOf(t, db)
				held.Store(acquired(t, by.with(conn), target, swanlock.WithTTL(ttl)))
				also.Store(acquired(t, by.with(conn), other))
				pid := held.Load().BackendPID()
				wantIs(t, held.Load().Release(bg), swanlock.ErrLost)
				wantIs(t, ended(t, also.Load()), swanlock.ErrLost)
				o.wantSoonFree(target)
				o.wantSoonFree(other)
				eventually(t, "the session has ended", func() bool { return !o.alive(pid) })
				if ends.Load() == 0 {
					t.Error("the session was not asked to end")
				}
				wantUntouched(t, pool)
				acquired(t, by.with(connOf(t, db)), target)
			})
		}
	}
}

// TestEndInTransactionOnPgxpool: in a transaction that has failed nothing can be
// asked. The pgxpool itself closes such a connection.
func TestEndInTransactionOnPgxpool(t *testing.T) {
	t.Parallel()
	o, target := observe(t), newTarget(t)
	pool := newPgxpool(t, server(t).URL())
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	conn := connOf(t, db)
	held := acquired(t, pglock.NewSession(conn), target, swanlock.WithTTL(time.Minute))
	run(t, conn, "BEGIN")
	conn.ExecContext(bg, "SELECT 1/0")
	wantIs(t, held.Release(bg), swanlock.ErrLost)
	o.wantSoonFree(target)
	eventually(t, "the session has ended", func() bool { return !o.alive(held.BackendPID()) })
	wantUntouched(t, pool)
}

// TestEndOfPoolOnPgxpool: a heartbeat that the server refuses ends the session.
func TestEndOfPoolOnPgxpool(t *testing.T) {
	t.Parallel()
	o, target := observe(t), newTarget(t)
	var broken atomic.Bool
	db, pgx := editedPgxpool(t, func(query string) string {
		if broken.Load() && (query == db.OneLine(db.Heartbeat) || query == db.OneLine(db.HeldKeys)) {
			return "SELECT 1/0"
		}
		return query
	})
	pool, err := pglock.NewPool(db, pglock.WithHeartbeat(200*time.Millisecond))
	must(t, err)
	defer pool.Close(shortly(t))
	held, err := pool.TryAcquire(bg, target, swanlock.WithTTL(time.Minute))
	must(t, err)
	broken.Store(true)
	pid := held.(*pglock.PostgresLock).BackendPID()
	wantIs(t, ended(t, held), swanlock.ErrLost)
	o.wantSoonFree(target)
	eventually(t, "the session has ended", func() bool { return !o.alive(pid) })
	broken.Store(false)
	held, err = pool.TryAcquire(bg, target)
	must(t, err)
	must(t, held.Release(bg))
	must(t, pool.Close(bg))
	wantUntouched(t, pgx)
}

// TestEndFromElsewhere: a session that does not answer is ended through another
// connection of the *sql.DB, so that the server need not find out by itself.
func TestEndFromElsewhere(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p := newProxy(t)
		defer p.CloseAll()
		// A heartbeat that is cut off would have the turn until the TTL is over.
		pool, err := pglock.NewPool(openURL(t, driver, p.url), pglock.WithHeartbeat(time.Hour))
		must(t, err)
		held, err := pool.TryAcquire(bg, target, swanlock.WithTTL(20*time.Minute))
		must(t, err)
		pid := held.(*pglock.PostgresLock).BackendPID()
		p.CutOff(t, pid)
		pglock.GiveUp(held, errors.New("no answer"))
		wantIs(t, ended(t, held), swanlock.ErrLost)
		o.wantSoonFree(target)
		eventually(t, "the session has ended", func() bool { return !o.alive(pid) })
		pool.Close(shortly(t))
	})
}

// TestEndIsRefused: a role that may not call pg_terminate_backend has its session
// ended all the same; and one that still lives is ended when it is used again.
func TestEndIsRefused(t *testing.T) {
	t.Parallel()
	for name, refused := range map[string][]string{
		"pg_terminate_backend": {"pg_advisory_unlock", "pg_terminate_backend"},
		"all":                  {"pg_advisory_unlock", "pg_terminate_backend", "textcat"},
	} {
		t.Run(name, func(t *testing.T) {
			o, target := observe(t), newTarget(t)
			var honest atomic.Bool
			db, pool := editedPgxpool(t, func(query string) string {
				if honest.Load() {
					return query
				}
				return fails(query, refused...)
			})
			held := acquired(t, functions{connOf(t, db)}, target)
			pid := held.BackendPID()
			wantIs(t, held.Release(bg), swanlock.ErrLost)
			honest.Store(true)
			if name == "all" {
				o.wantHeld(target, pid)
				_, err := functions{connOf(t, db)}.TryAcquire(bg, target)
				wantIs(t, err, sql.ErrConnDone)
			}
			eventually(t, "the session has ended", func() bool { return !o.alive(pid) })
			o.wantHeld(target)
			pool.Reset()
			must(t, acquired(t, functions{connOf(t, db)}, target).Release(bg))
			wantUntouched(t, pool)
		})
	}
}
