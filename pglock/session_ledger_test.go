package pglock_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestSessionAlreadyHeld: PostgreSQL lets a session take a lock twice and then
// wants two unlocks, so the second caller on the session is refused, through
// every locker and in every mode. An upgrade could deadlock. Facts 5 and 14.
func TestSessionAlreadyHeld(t *testing.T) {
	modes := map[string][]swanlock.Option{"exclusive": nil, "shared": {swanlock.WithShared()}}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for _, first := range acquirers {
			for _, second := range acquirers {
				conn := dial(t, driver)
				pid := pidOf(t, conn)
				for mode, opts := range modes {
					for again, optsAgain := range modes {
						t.Run(first.name+" "+mode+" then "+second.name+" "+again, func(t *testing.T) {
							o := o.in(t)
							target := newTarget(t)
							held := acquired(t, first.with(conn), target, opts...)
							l := second.with(conn)
							_, err := l.TryAcquire(bg, target, optsAgain...)
							wantIs(t, err, swanlock.ErrAlreadyHeld, swanlock.ErrNotAcquired)
							_, err = l.Acquire(shortly(t), target, optsAgain...) // at once: it would wait for ever
							wantIs(t, err, swanlock.ErrAlreadyHeld)
							if err := held.Err(); err != nil {
								t.Errorf("the lock that was there ended: %v", err)
							}
							o.wantHeld(target, pid)
							must(t, held.Release(bg))
							o.wantHeld(target)

							held = acquired(t, l, target, optsAgain...)
							must(t, held.Release(bg))
							o.wantHeld(target)
						})
					}
				}
			}
		}
	})
}

// TestLedgerOfReusedConnection: sql.Conn.Close gives the session, lock and all,
// back to the pool. Its next user must not think that it acquired what the
// session had held all along. Facts 2 and 5.
func TestLedgerOfReusedConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for _, ttl := range []time.Duration{0, time.Minute} {
				t.Run(by.name+" "+ttl.String(), func(t *testing.T) {
					o := observe(t)
					db := openDB(t, driver)
					db.SetMaxOpenConns(1)
					conn := connOf(t, db)
					pid := pidOf(t, conn)
					same, other := newTarget(t), newTarget(t)
					first := acquired(t, by.with(conn), same, swanlock.WithTTL(ttl))
					forgotten := acquired(t, by.with(conn), other)
					must(t, conn.Close())
					o.wantHeld(same, pid)

					conn = connOf(t, db)
					if got := pidOf(t, conn); got != pid {
						t.Fatalf("the pool gave backend %d, want %d again", got, pid)
					}
					second := acquired(t, by.with(conn), same)
					o.wantHeld(same, pid)
					o.wantHeld(other) // It was unlocked for the former owner.
					wantIs(t, ended(t, first), swanlock.ErrLost, sql.ErrConnDone)
					wantIs(t, ended(t, forgotten), swanlock.ErrLost)
					wantIs(t, first.Refresh(bg), swanlock.ErrLost)
					wantIs(t, first.Release(bg), swanlock.ErrLost)
					if err := second.Err(); err != nil {
						t.Errorf("the new lock ended with the old one: %v", err)
					}
					must(t, second.Refresh(bg))
					o.wantHeld(same, pid)
					must(t, second.Release(bg))
					o.wantHeld(same)
					if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
						t.Errorf("idle_session_timeout is %s on the session, want the caller's own again", got)
					}
				})
			}
		}
	})
}

// TestLockStaleRelease: the handle of a lock whose connection was closed finds it
// lost, and leaves alone what the connection's next owner holds.
func TestLockStaleRelease(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, stale := range map[string]func(*pglock.PostgresLock) error{
			"Release": func(l *pglock.PostgresLock) error { return l.Release(bg) },
			"Refresh": func(l *pglock.PostgresLock) error { return l.Refresh(bg) },
		} {
			t.Run(name, func(t *testing.T) {
				o := observe(t)
				db := openDB(t, driver)
				db.SetMaxOpenConns(1)
				conn := connOf(t, db)
				target := newTarget(t)
				old := acquired(t, pglock.NewSession(conn), target)
				must(t, conn.Close())
				wantIs(t, stale(old), swanlock.ErrLost, sql.ErrConnDone)
				wantIs(t, ended(t, old), swanlock.ErrLost)

				conn = connOf(t, db)
				held := acquired(t, pglock.NewSession(conn), target)
				old.Release(bg)
				if err := held.Err(); err != nil {
					t.Errorf("a stale release ended the next owner's lock: %v", err)
				}
				o.wantHeld(target, pidOf(t, conn))
				must(t, held.Release(bg))
				o.wantHeld(target)
			})
		}
	})
}

// TestLockTakenAwayBehindItsBack: only the server knows whether a lock is still held. Whatever
// took it away is found by Refresh, by Release, and by a second acquire, which
// must not believe a ledger that says "already held". Facts 4 and 24.
func TestLockTakenAwayBehindItsBack(t *testing.T) {
	thefts := []struct {
		name  string
		steal func(t *testing.T, o observer, conn *sql.Conn, held *pglock.PostgresLock)
		kills bool
	}{
		{"DISCARD ALL", func(t *testing.T, _ observer, conn *sql.Conn, _ *pglock.PostgresLock) { run(t, conn, "DISCARD ALL") }, false},
		{"pg_advisory_unlock_all", func(t *testing.T, _ observer, conn *sql.Conn, _ *pglock.PostgresLock) {
			run(t, conn, "SELECT pg_advisory_unlock_all()")
		}, false},
		{"pg_advisory_unlock", func(t *testing.T, _ observer, conn *sql.Conn, held *pglock.PostgresLock) {
			run(t, conn, "SELECT pg_advisory_unlock($1::bigint)", int64(held.Key()))
		}, false},
		{"pg_terminate_backend", func(_ *testing.T, o observer, _ *sql.Conn, held *pglock.PostgresLock) { o.kill(held.BackendPID()) }, true},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for _, by := range acquirers {
			for _, theft := range thefts {
				for _, ttl := range []time.Duration{0, time.Minute} {
					check := func(finder string, find func(t *testing.T, l swanlock.Locker, target string, held *pglock.PostgresLock)) {
						t.Run(by.name+" "+ttl.String()+" "+theft.name+" found by "+finder, func(t *testing.T) {
							o := o.in(t)
							conn := dial(t, driver)
							l, target := by.with(conn), newTarget(t)
							held := acquired(t, l, target, swanlock.WithTTL(ttl))
							theft.steal(t, o, conn, held)
							o.wantHeld(target)
							find(t, l, target, held)
							wantIs(t, ended(t, held), swanlock.ErrLost)
							wantIs(t, held.Refresh(bg), swanlock.ErrLost)
							if errors.Is(held.Err(), swanlock.ErrExpired) {
								t.Errorf("got %v, which did not expire", held.Err())
							}
							o.wantHeld(target)
							if theft.kills {
								_, err := l.TryAcquire(bg, target)
								if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
									t.Errorf("got %v from a dead session, want an error that says so", err)
								}
								return
							}
							again := acquired(t, l, target) // the session is as good as before
							must(t, again.Release(bg))
							o.wantHeld(target)
							if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
								t.Errorf("idle_session_timeout is %s after the loss, want the caller's own again", got)
							}
						})
					}
					check("Refresh", func(t *testing.T, _ swanlock.Locker, _ string, held *pglock.PostgresLock) {
						wantIs(t, held.Refresh(bg), swanlock.ErrLost)
						wantIs(t, held.Release(bg), swanlock.ErrLost)
					})
					check("Release", func(t *testing.T, _ swanlock.Locker, _ string, held *pglock.PostgresLock) {
						wantIs(t, held.Release(bg), swanlock.ErrLost)
						must(t, held.Release(bg)) // a second call has nothing to say
					})
					check("a second acquire", func(t *testing.T, l swanlock.Locker, target string, _ *pglock.PostgresLock) {
						again, err := l.TryAcquire(bg, target)
						if theft.kills {
							if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
								t.Fatalf("got %v from a dead session, want an error that says so", err)
							}
							return
						}
						must(t, err)
						o.wantHeld(target, again.(*pglock.PostgresLock).BackendPID())
						must(t, again.Release(bg))
					})
				}
			}
		}
	})
}
