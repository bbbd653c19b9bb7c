//go:build unix

package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestLineIsNotJumped: a caller that has waited for a lock and wants it again
// goes to the end of the line, also when the lock is free just then because the
// next waiter, a poller here, has not looked yet.
func TestLineIsNotJumped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, kind := range []string{"session", "pool"} {
			t.Run(kind, func(t *testing.T) {
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				var again swanlock.Locker = pglock.NewSession(connOf(t, openDB(t, driver)))
				if kind == "pool" {
					p, err := pglock.NewPool(openDB(t, driver))
					must(t, err)
					t.Cleanup(func() { p.Close(bg) })
					again = p
				}
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				leaves := waitsFor(t, o, ctx, again, target)
				time.Sleep(100 * time.Millisecond)
				cancel()
				if out := <-leaves; out.err == nil {
					t.Fatal("the lock was held")
				}
				o.wantTickets(target, 0)
				next := waitsFor(t, o, shortly(t), pglock.NewSession(connOf(t, openDB(t, driver)), pglock.WithPolling()), target)
				time.Sleep(600 * time.Millisecond) // until it looks only four times a second
				must(t, held.Release(bg))
				after := make(chan outcome, 1)
				go func() { after <- outcomeOf(again.Acquire(shortly(t), target)) }()
				inOrder(t, next, after)
			})
		}
	})
}

// TestLineWaitsAlone: a session that has another lock never waits in the server,
// where that lock would have to wait as well.
func TestLineWaitsAlone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, _ := newSession(t, driver)
		other := acquired(t, s, newTarget(t))
		got := waitsFor(t, o, shortly(t), s, target)
		for range 50 {
			if one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1::int)", other.BackendPID()) {
				t.Fatal("the session waits in the server")
			}
			time.Sleep(5 * time.Millisecond)
		}
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
		must(t, other.Release(bg))
	})
}

// TestLineDropFails: if a ticket cannot be given up, its session is destroyed.
func TestLineDropFails(t *testing.T) {
	t.Parallel()
	o, target := observe(t), newTarget(t)
	holder, _ := newSession(t, "pgx")
	held := acquired(t, holder, target)
	conn := connOf(t, evilDB(t, "pgx", "line_drop", `CREATE FUNCTION line_drop.pg_advisory_unlock(h integer, n integer) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN IF n & 262143 = 0 THEN RETURN pg_catalog.pg_advisory_unlock(h, n); END IF; RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'; END $$`))
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	leaves := waitsFor(t, o, ctx, pglock.NewSession(conn, pglock.WithLogger(nil)), target)
	cancel()
	wantIs(t, (<-leaves).err, swanlock.ErrNotAcquired)
	o.wantTickets(target, 0)
	wantUnusable(t, conn)
	must(t, held.Release(bg))
}

// TestLineFenceFails: a waiter that was granted the lock, but cannot get its
// fence, leaves the lock held neither once nor twice, and the session lives.
func TestLineFenceFails(t *testing.T) {
	t.Parallel()
	o, target := observe(t), newTarget(t)
	holder, _ := newSession(t, "pgx")
	held := acquired(t, holder, target)
	conn := connOf(t, evilDB(t, "pgx", "line_fence", `CREATE FUNCTION line_fence.pg_logical_emit_message(boolean, text, text) RETURNS pg_lsn LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'; END $$`))
	got := waitsFor(t, o, shortly(t), pglock.NewSession(conn), target, swanlock.WithFence())
	must(t, held.Release(bg))
	if out := <-got; out.err == nil || errors.Is(out.err, swanlock.ErrNotAcquired) {
		t.Errorf("got %v, want what the server said", out.err)
	}
	o.wantHeld(target)
	o.wantTickets(target, 0)
	must(t, conn.PingContext(bg))
}

// TestLineBehindAPooler: a waiter that looks, gets the lock or leaves, and
// meets another backend than the one that has its ticket, holds nothing on
// either.
func TestLineBehindAPooler(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, then := range []string{"looks", "gets the lock", "leaves"} {
			t.Run(then, func(t *testing.T) {
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				conn := connOf(t, openURL(t, "pooled "+driver, server(t).URL()))
				pgtest.PoolerOf(t, conn).Fixed = true
				ctx, cancel := context.WithTimeout(bg, 3*time.Second)
				defer cancel()
				got := waitsFor(t, o, ctx, pglock.NewSession(conn, pglock.WithPolling(), pglock.WithLogger(nil)), target)
				must(t, conn.Raw(func(c any) error { // between two looks
					c.(*pooler).Next = 1
					switch then {
					case "gets the lock":
						return held.Release(bg)
					case "leaves":
						cancel()
					}
					return nil
				}))
				if out := <-got; !errors.Is(out.err, pglock.ErrPooler) && !(then == "leaves" && errors.Is(out.err, swanlock.ErrNotAcquired)) {
					t.Errorf("got %v, want ErrPooler", fmt.Sprint(out.err))
				}
				wantUnusable(t, conn)
				o.wantTickets(target, 0)
				if then != "gets the lock" {
					must(t, held.Release(bg))
				}
				o.wantSoonFree(target)
			})
		}
	})
}
