package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
)

// A joiner is a pool that knows the line of target, and has a session to spare. While
// others stand in that line, its next acquire joins it and waits in one statement.
type joiner struct {
	*pglock.Pool
	o      observer
	target string
	others [3]*pglock.Session
}

func newJoiner(t *testing.T, driver string, db *sql.DB) joiner {
	t.Helper()
	j := joiner{Pool: newPool(t, db, pglock.WithHeartbeat(time.Hour)), o: observe(t), target: newTarget(t)}
	for i := range j.others {
		j.others[i], _ = newSession(t, driver)
	}
	return j
}

// A joined is a caller of the pool that waits for next's ticket, while another has
// the lock.
type joined struct {
	held  swanlock.DistributedLock
	next  <-chan outcome
	got   <-chan outcome // by the pool
	inOne bool           // it joined the line in the statement that waits; what it knew may be too old on a busy machine
}

// waits has the pool join a line that it has just left.
func (j joiner) waits(t *testing.T, ctx context.Context) joined {
	t.Helper()
	wait := func(l swanlock.Locker) <-chan outcome { return waitsFor(t, j.o, shortly(t), l, j.target) }
	first := acquired(t, j.others[0], j.target)
	second, pools, third := wait(j.others[1]), wait(j.Pool), wait(j.others[2])
	must(t, first.Release(bg))
	held := (<-second).get(t)
	next := wait(j.others[0])
	must(t, held.Release(bg))
	must(t, (<-pools).get(t).Release(bg))
	held = (<-third).get(t)
	before := j.Stats().RoundTrips
	got := waitsFor(t, j.o, ctx, j.Pool, j.target)
	eventually(t, "it waits in the server", func() bool { return len(j.waiting(t)) == 1 })
	return joined{held, next, got, j.Stats().RoundTrips == before}
}

// waiting returns the backends that wait for a ticket of the line.
func (j joiner) waiting(t *testing.T) []int {
	t.Helper()
	return column[int](t, j.o.db, "SELECT pid FROM pg_locks WHERE NOT granted AND objsubid = 2 AND (classid::bigint << 32 | objid::bigint) & -262144 = $1", pglock.TicketSpace(j.target))
}

// served frees the locks of the two that are before the pool, and returns the pool's.
func (w joined) served(t *testing.T) swanlock.DistributedLock {
	t.Helper()
	must(t, w.held.Release(bg))
	must(t, (<-w.next).get(t).Release(bg))
	return (<-w.got).get(t)
}

// until calls f until it has met a wait in one statement.
func (j joiner) until(t *testing.T, f func() (inOne bool)) {
	t.Helper()
	for range 100 {
		if f() {
			return
		}
	}
	t.Error("none of 100 waits joined the line in the statement that waits")
}

// TestPoolJoinsInOneStatement: a caller that knows the line joins it and waits for
// the lock in one statement, and counts as a waiter meanwhile.
func TestPoolJoinsInOneStatement(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		j := newJoiner(t, driver, openDB(t, driver))
		j.until(t, func() bool {
			w := j.waits(t, shortly(t))
			before := j.Stats()
			if w.inOne && (before.Waiters != 1 || before.WaitingSessions != 1) {
				t.Errorf("one caller waits: got %+v", before)
			}
			lock := w.served(t)
			if n := j.Stats().RoundTrips - before.RoundTrips; w.inOne && n != 1 {
				t.Errorf("it took %d statements, want 1", n)
			}
			j.o.wantTickets(j.target, 0)
			must(t, lock.Release(bg))
			j.o.wantSoonFree(j.target)
			return w.inOne
		})
	})
}

// TestPoolJoinKeepsItsPlace: when the server ends the wait of the statement that
// took the ticket, the caller has the place that the statement took.
func TestPoolJoinKeepsItsPlace(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		j := newJoiner(t, driver, openDB(t, driver))
		late, _ := newSession(t, driver)
		j.until(t, func() bool {
			w := j.waits(t, shortly(t))
			after := waitsFor(t, j.o, shortly(t), late, j.target)
			if w.inOne {
				before := j.Stats().RoundTrips
				eventually(t, "the wait was ended", func() bool { return j.Stats().RoundTrips > before+1 })
			}
			j.o.wantTickets(j.target, 3)
			must(t, w.held.Release(bg))
			must(t, (<-w.next).get(t).Release(bg))
			inOrder(t, w.got, after)
			j.o.wantTickets(j.target, 0)
			j.o.wantSoonFree(j.target)
			return w.inOne
		})
	})
}

// TestPoolJoinIsLeft: a caller that gives up, or whose session is killed, while that
// statement waits leaves neither a ticket nor a lock behind.
func TestPoolJoinIsLeft(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		t.Run("context", func(t *testing.T) {
			t.Parallel()
			j := newJoiner(t, driver, openDB(t, driver))
			j.until(t, func() bool {
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				w := j.waits(t, ctx)
				cancel()
				if out := <-w.got; !errors.Is(out.err, swanlock.ErrNotAcquired) {
					t.Errorf("got %v, want ErrNotAcquired", out.err)
				}
				j.o.wantTickets(j.target, 1)
				must(t, w.held.Release(bg))
				must(t, (<-w.next).get(t).Release(bg))
				j.o.wantTickets(j.target, 0)
				j.o.wantSoonFree(j.target)
				eventually(t, "nothing is left", func() bool { s := j.Stats(); return s.Used == 0 && s.Waiters == 0 && s.WaitingSessions == 0 })
				return w.inOne
			})
		})
		t.Run("context, and the answer is late", func(t *testing.T) {
			t.Parallel()
			p := newProxy(t)
			j := newJoiner(t, driver, openURL(t, driver, p.url))
			j.until(t, func() bool {
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				w := j.waits(t, ctx)
				p.Silence()
				cancel()
				if out := <-w.got; !errors.Is(out.err, swanlock.ErrNotAcquired) {
					t.Errorf("got %v, want ErrNotAcquired", out.err)
				}
				p.Resume()
				j.o.wantTickets(j.target, 1)
				must(t, w.held.Release(bg))
				must(t, (<-w.next).get(t).Release(bg))
				j.o.wantTickets(j.target, 0)
				j.o.wantSoonFree(j.target)
				return w.inOne
			})
		})
		t.Run("killed", func(t *testing.T) {
			t.Parallel()
			j := newJoiner(t, driver, openDB(t, driver))
			j.until(t, func() bool {
				w := j.waits(t, shortly(t))
				for _, pid := range j.waiting(t) {
					j.o.kill(pid)
				}
				j.o.wantTickets(j.target, 2) // It has a new place.
				must(t, w.served(t).Release(bg))
				j.o.wantTickets(j.target, 0)
				j.o.wantSoonFree(j.target)
				return w.inOne
			})
		})
	})
}

// TestPoolJoinFails: when the server ends the statement while it takes the ticket, what
// that has taken of the line is given back, and the caller joins it again.
func TestPoolJoinFails(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		schema := evilSchema("join_fails", driver)
		j := newJoiner(t, driver, evilDB(t, driver, schema, `CREATE FUNCTION `+schema+`.pg_try_advisory_lock(h integer, n integer) RETURNS boolean LANGUAGE plpgsql AS $$
			BEGIN
				IF current_query() LIKE '%AS restored%' THEN -- the statement that waits
					PERFORM nextval('`+schema+`.calls');
					RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';
				END IF;
				RETURN pg_catalog.pg_try_advisory_lock(h, n);
			END $$`))
		j.until(t, func() bool {
			w := j.waits(t, shortly(t))
			lock := w.served(t)
			if n := one[int](t, j.o.db, "SELECT count(*) FROM pg_locks WHERE objsubid = 2 AND (classid::bigint << 32 | objid::bigint) & -262144 = $1", pglock.TicketSpace(j.target)); n != 0 {
				t.Errorf("nobody waits, and %d locks of the line are left", n)
			}
			must(t, lock.Release(bg))
			j.o.wantSoonFree(j.target)
			return one[bool](t, j.o.db, "SELECT is_called FROM "+schema+".calls")
		})
	})
}

// TestPoolJoinIsNotFound: when the wait of the statement that took the ticket has ended,
// and nobody can tell which ticket that is, its session is ended.
func TestPoolJoinIsNotFound(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		own := db.OneLine(db.OwnTicket)
		for name, other := range map[string]string{
			"the server fails":        strings.Replace(own, "pg_catalog.pg_backend_pid()::integer AS pid", "1/0 AS pid", 1),
			"another backend answers": strings.Replace(own, "pg_catalog.pg_backend_pid()::integer AS pid", "1 AS pid", 1),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				j := newJoiner(t, driver, changedDB(t, driver, server(t).URL(), own, other))
				j.until(t, func() bool {
					w := j.waits(t, shortly(t))
					if !w.inOne {
						must(t, w.served(t).Release(bg))
						return false
					}
					if out := <-w.got; out.err == nil || errors.Is(out.err, swanlock.ErrNotAcquired) {
						t.Errorf("got %v, want what is wrong", out.err)
					}
					j.o.wantTickets(j.target, 1)
					must(t, w.held.Release(bg))
					must(t, (<-w.next).get(t).Release(bg))
					j.o.wantTickets(j.target, 0)
					j.o.wantSoonFree(j.target)
					return true
				})
			})
		}
	})
}

// TestPoolJoinsBehindAGap: a pool whose own ticket is the highest that it knows of joins
// behind one of another host that is further up, although the number after its own is
// free. It joins in a statement that releases another lock, or passes this one on.
func TestPoolJoinsBehindAGap(t *testing.T) {
	eachAudit(t, func(t *testing.T, driver, param string, o observer, opts ...pglock.PoolOption) {
		for _, passes := range []bool{false, true} {
			p, target := newPool(t, openDB(t, driver, param), opts...), newTarget(t)
			held, other := acquired(t, p, target), acquired(t, p, target+"/other")
			first := waitsFor(t, o, shortly(t), p, target)
			second := waitsFor(t, o, shortly(t), p, target)
			leaver := dial(t, driver, param)
			class, slot := pglock.Slots(target, o.numbers(target)[1]+1)
			run(t, leaver, "SELECT pg_advisory_lock($1, $2)", class, slot)
			next := waitsFor(t, o, shortly(t), pglock.NewSession(dial(t, driver, param), pglock.WithPolling()), target)
			run(t, leaver, "SELECT pg_advisory_unlock_all()")

			travels, later, tickets := other, held, 4
			if passes {
				travels, later, tickets = held, other, 3
			}
			give := pglock.HoldTurn(held)
			after, released := make(chan outcome, 1), make(chan error)
			go func() { after <- outcomeOf(p.Acquire(shortly(t), target)) }()
			go func() { released <- travels.Release(bg) }()
			time.Sleep(100 * time.Millisecond)
			p.JoinedLast(o.numbers(target)[1])
			give()
			must(t, <-released)
			o.wantTickets(target, tickets)
			must(t, later.Release(bg))
			must(t, (<-first).get(t).Release(bg))
			must(t, (<-second).get(t).Release(bg))
			inOrder(t, next, after)
		}
	})
}
