//go:build unix

package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	mrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestLineIsLeft: a waiter that leaves the line, in any way, leaves no ticket
// behind, and those after it move up.
func TestLineIsLeft(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []struct {
			name  string
			leave func(o observer, s *pglock.Session, conn *sql.Conn, cancel context.CancelFunc)
		}{
			{"context", func(_ observer, _ *pglock.Session, _ *sql.Conn, cancel context.CancelFunc) { cancel() }},
			{"killed", func(o observer, _ *pglock.Session, conn *sql.Conn, _ context.CancelFunc) {
				o.kill(one[int](o.t, o.db, "SELECT pid FROM pg_stat_activity WHERE application_name = $1", o.t.Name()))
			}},
			{"session closed", func(_ observer, s *pglock.Session, _ *sql.Conn, _ context.CancelFunc) { s.Close(bg) }},
		} {
			t.Run(how.name, func(t *testing.T) {
				t.Parallel()
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				conn := dial(t, driver, "application_name="+strings.ReplaceAll(t.Name(), " ", "%20"))
				leaver := pglock.NewSession(conn)
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				left := waitsFor(t, o, ctx, leaver, target)
				stays, _ := newSession(t, driver)
				stay := waitsFor(t, o, shortly(t), stays, target)
				how.leave(o, leaver, conn, cancel)
				if out := <-left; out.err == nil {
					t.Error("the waiter that left got the lock")
				}
				o.wantTickets(target, 1)
				must(t, held.Release(bg))
				must(t, (<-stay).get(t).Release(bg))
				o.wantTickets(target, 0)
				o.wantSoonFree(target)
			})
		}
	})
}

// TestLineOfClosedConnection: a place on a connection that its owner gives back
// to the pool during the wait goes when this package next uses the session.
func TestLineOfClosedConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		conn := connOf(t, db)
		left := waitsFor(t, o, bg, pglock.NewSession(conn), target)
		must(t, conn.Close())
		if out := <-left; out.err == nil {
			t.Fatal("got the lock on a closed connection")
		}
		next := pglock.NewSession(connOf(t, db))
		must(t, acquired(t, next, target+"/other").Release(bg))
		o.wantTickets(target, 0)
		must(t, held.Release(bg))
	})
}

// TestLineIsLeftAtOnce: a caller of a pool that gives up does not stay until
// its wait in the server ends: one of five leaves in less than half of that
// time, even on a busy machine.
func TestLineIsLeftAtOnce(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver)), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		quickest := time.Hour
		for range 5 {
			ctx, cancel := context.WithCancel(bg)
			got := waitsFor(t, o, ctx, p, target)
			eventually(t, "it waits in the server", func() bool {
				return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND objid::bigint = $1::bigint & 4294967295)", int64(pglock.KeyOf(target)))
			})
			start := time.Now()
			cancel()
			if out := <-got; out.err == nil {
				t.Fatal("got the lock")
			}
			quickest = min(quickest, time.Since(start))
			o.wantTickets(target, 0)
		}
		if quickest > 250*time.Millisecond {
			t.Errorf("the quickest of five took %v to leave", quickest)
		}
		must(t, held.Release(bg))
	})
}

// TestLineSaysWhoGaveUp: whenever ctx ends, the error has its cause, also if the
// lock was refused just then.
func TestLineSaysWhoGaveUp(t *testing.T) {
	tries := 200
	if testing.Short() {
		tries = 40
	}
	eachDriver(t, func(t *testing.T, driver string) {
		session, _ := newSession(t, driver)
		polling, _ := newSession(t, driver, pglock.WithPolling())
		for name, c := range map[string]struct {
			l     swanlock.Locker
			tries int
		}{
			"pool":            {newPool(t, openDB(t, driver)), tries},
			"polling session": {polling, tries},
			"session":         {session, 20}, // each waits out its wait in the server
		} {
			target := newTarget(t)
			holder, _ := newSession(t, driver)
			held := acquired(t, holder, target)
			for range c.tries {
				ctx, cancel := context.WithCancel(bg)
				time.AfterFunc(mrand.N(400*time.Microsecond), cancel)
				if _, err := c.l.Acquire(ctx, target); err == nil || !errors.Is(err, context.Canceled) || !errors.Is(err, swanlock.ErrNotAcquired) {
					t.Fatalf("%s: got %v, want ErrNotAcquired and the cause", name, err)
				}
			}
			must(t, held.Release(bg))
		}
	})
}
