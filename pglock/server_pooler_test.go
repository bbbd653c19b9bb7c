package pglock_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestPoolerLosesStatements: a pooler that knows nothing of prepared statements
// sends them where they are missing. That is found at the first acquire.
func TestPoolerLosesStatements(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		conn := connOf(t, openURL(t, "pooled "+driver, server(t).URL()))
		pgtest.PoolerOf(t, conn).Forgetful = true
		target := newTarget(t)
		_, err := pglock.NewSession(conn).TryAcquire(bg, target)
		wantIs(t, err, pglock.ErrPooler)
		o.wantHeld(target)
	})
}

// TestPoolerIsFoundOut: behind a pooler in transaction mode a lock is held by a session
// that the next statement may not reach. The first refresh or release that
// meets another backend finds it out, and frees what was held on either.
func TestPoolerIsFoundOut(t *testing.T) {
	finders := map[string]func(l swanlock.Locker, target string, held *pglock.PostgresLock) error{
		"Refresh": func(_ swanlock.Locker, _ string, held *pglock.PostgresLock) error { return held.Refresh(bg) },
		"Release": func(_ swanlock.Locker, _ string, held *pglock.PostgresLock) error { return held.Release(bg) },
		"a second acquire": func(l swanlock.Locker, target string, _ *pglock.PostgresLock) error {
			_, err := l.TryAcquire(bg, target)
			return err
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for _, by := range acquirers {
			for finder, find := range finders {
				for _, ttl := range []time.Duration{0, time.Minute} {
					for first := range 2 {
						t.Run(fmt.Sprintf("%s %s with TTL %v on backend %d", by.name, finder, ttl, first), func(t *testing.T) {
							o := o.in(t)
							conn := connOf(t, openURL(t, "pooled "+driver, server(t).URL()))
							p := pgtest.PoolerOf(t, conn)
							p.Next, p.Fixed = 0, true
							pids := []int{pidOf(t, conn), 0}
							p.Next = 1
							pids[1] = pidOf(t, conn)
							p.Next = first

							// One lock on each backend, then the first meets the other.
							l, target, other := by.with(conn), newTarget(t), newTarget(t)
							held := acquired(t, l, target, swanlock.WithTTL(ttl))
							p.Next = 1 - first
							elsewhere := acquired(t, l, other)
							o.wantHeld(target, pids[first])
							o.wantHeld(other, pids[1-first])
							p.Fixed = false
							wantIs(t, find(l, target, held), pglock.ErrPooler)
							o.wantSoonFree(target)
							o.wantSoonFree(other)
							wantIs(t, held.Err(), pglock.ErrPooler, swanlock.ErrLost)
							wantIs(t, elsewhere.Err(), swanlock.ErrLost)
							if finder != "Release" {
								wantIs(t, held.Release(bg), pglock.ErrPooler)
							}
							_, err := l.TryAcquire(bg, target)
							if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
								t.Errorf("got %v from a connection that was given up", err)
							}
						})
					}
				}
			}
		}
	})
}

// TestPoolBehindAPooler: a Pool refuses a pooler in transaction mode when it
// opens, before anything is set on the pooler's connections: two of its own that
// share a backend give it away, and one that is on two.
func TestPoolBehindAPooler(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, alternates := range []bool{true, false} {
			shared := pgtest.NewPooler(t, driver, server(t).URL())
			shared.Fixed = !alternates
			db := shared.OpenDB(t)
			if alternates {
				db.SetMaxOpenConns(1) // so that nothing else can tell
			}
			p := newPool(t, db)
			_, err := p.TryAcquire(bg, newTarget(t), swanlock.WithTTL(time.Minute))
			wantIs(t, err, pglock.ErrPooler)
			for range 2 {
				if got := one[string](t, db, "SHOW idle_session_timeout"); got != "0" {
					t.Errorf("idle_session_timeout is left at %s", got)
				}
				// But for what pgx prepares by itself.
				if n := one[int](t, db, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%pg_cata' || 'log.%' AND statement <> 'SELECT pg_cata' || 'log.pg_backend_pid()::integer AS pid'"); n > 0 {
					t.Errorf("%d statements are left prepared", n)
				}
			}
		}
	})
}
