//go:build unix

package pglock_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
)

// numbers are those of the places taken in the line for the target.
func (o observer) numbers(target string) []int {
	o.t.Helper()
	return column[int](o.t, o.db, `SELECT objid::bigint & 262143 FROM pg_catalog.pg_locks
		WHERE locktype = 'advisory' AND objsubid = 2 AND objid::bigint & 262143 > 0 AND granted AND mode = 'ExclusiveLock' AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint
		ORDER BY 1`, pglock.TicketSpace(target))
}

// A line that was empty starts at a random number, so that a number of the line
// before is not mistaken for one of this line.
func TestLineBeginsAnywhere(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		waiter, _ := newSession(t, driver)
		var first []int
		for range 3 {
			held := acquired(t, holder, target)
			got := waitsFor(t, o, shortly(t), waiter, target)
			first = append(first, o.numbers(target)[0])
			must(t, held.Release(bg))
			must(t, (<-got).get(t).Release(bg))
		}
		// Two of them are near by chance once in 400 times, all three once in a million.
		if slices.Max(first)-slices.Min(first) < 200 {
			t.Errorf("lines began with %v", first)
		}
	})
}

// Callers that come at the same time, when nobody waits yet, stand in one line:
// a second line would know nothing of the first.
func TestLineBeginsOnce(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		const many = 8
		sessions := make([]*pglock.Session, many)
		for i := range sessions {
			sessions[i], _ = newSession(t, driver)
			must(t, acquired(t, sessions[i], newTarget(t)).Release(bg))
		}
		holder, _ := newSession(t, driver)
		for range 40 {
			target := newTarget(t)
			held := acquired(t, holder, target)
			got := make(chan outcome, many)
			for _, s := range sessions {
				go func() { got <- outcomeOf(s.Acquire(shortly(t), target)) }()
			}
			o.wantTickets(target, many)
			if n := o.numbers(target); n[many-1]-n[0] > 10*many {
				t.Errorf("they are in several lines: %v", n)
			}
			must(t, held.Release(bg))
			for range many {
				must(t, (<-got).get(t).Release(bg))
			}
		}
	})
}

// A waiter finds the ticket ahead, however far, when the place just before its
// own is given up: by trying the numbers, or by a look at all of them.
func TestLineWithGaps(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, gap := range []int{1, 10, 256, 257, 5000} {
			for _, kind := range []string{"session", "pool"} {
				t.Run(fmt.Sprint(kind, gap), func(t *testing.T) {
					t.Parallel()
					o, target := observe(t), newTarget(t)
					holder, _ := newSession(t, driver)
					held := acquired(t, holder, target)
					// It is next, but not in the server's queue, which would
					// keep the order.
					next := waitsFor(t, o, shortly(t), pglock.NewSession(dial(t, driver), pglock.WithPolling()), target)
					leaver := dial(t, driver)
					class, slot := pglock.Slots(target, o.numbers(target)[0]+gap)
					run(t, leaver, "SELECT pg_advisory_lock($1, $2)", class, slot)
					var late swanlock.Locker
					if kind == "session" {
						late, _ = newSession(t, driver)
					} else {
						late = newPool(t, openDB(t, driver))
					}
					after := waitsFor(t, o, shortly(t), late, target)
					run(t, leaver, "SELECT pg_advisory_unlock_all()")
					time.Sleep(300 * time.Millisecond) // until it waits for the lock, if it has found no ticket
					must(t, held.Release(bg))
					inOrder(t, next, after)
				})
			}
		}
	})
}

// Two waiters for one key on one session, which cannot find its own tickets by
// trying, are served in their order.
func TestLineOfOneSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for range 5 {
			target := newTarget(t)
			holder, _ := newSession(t, driver)
			held := acquired(t, holder, target)
			conn := dial(t, driver)
			first := waitsFor(t, o, shortly(t), pglock.NewSession(conn, pglock.WithPolling()), target)
			second := waitsFor(t, o, shortly(t), pglock.NewSession(conn, pglock.WithPolling()), target)
			must(t, held.Release(bg))
			must(t, (<-first).err)
			wantIs(t, (<-second).err, swanlock.ErrAlreadyHeld) // as soon as the first has it
		}
	})
}

// The only waiter of a pool for a key has its ticket on the session that it
// waits on, and leaves both at once.
func TestPoolFirstWaiterHasASession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour)), newTarget(t)
		holder, _ := newSession(t, driver)
		waits := func(onOwn bool) bool {
			return one[bool](t, o.db, `SELECT EXISTS (SELECT FROM pg_locks t JOIN pg_locks k ON t.pid = k.pid OR NOT $2
				WHERE t.locktype = 'advisory' AND t.objsubid = 2 AND t.granted AND t.mode = 'ExclusiveLock' AND (t.classid::bigint << 32 | t.objid::bigint) & -262144 = $1::bigint
				AND k.locktype = 'advisory' AND NOT k.granted AND k.objid = ($3::bigint & 4294967295)::oid)`,
				pglock.TicketSpace(target), onOwn, int64(pglock.KeyOf(target)))
		}
		late := watchScheduler(t)
		for i := range 4 {
			eventually(t, "it has nothing", func() bool { return p.Reserved() == 0 })
			held := acquired(t, holder, target)
			ctx, cancel := context.WithCancel(shortly(t))
			got := waitsFor(t, o, ctx, p, target)
			eventually(t, "it waits where its place is", func() bool { return waits(i > 0) }) // at first there was no session for it
			if i%2 == 1 {
				start := time.Now()
				cancel()
				wantIs(t, (<-got).err, swanlock.ErrNotAcquired)
				if took := time.Since(start); took > 700*time.Millisecond+late() { // a wait in the server takes 900
					t.Errorf("it took %v to leave", took)
				}
				o.wantTickets(target, 0)
			}
			must(t, held.Release(bg))
			if i%2 == 0 {
				must(t, (<-got).get(t).Release(bg))
			}
			cancel()
		}
		if n := p.Sessions(); n != 2 {
			t.Errorf("it has %d sessions", n)
		}
	})
}

// A pool keeps a session to end a wait with, and if that dies, the wait ends by
// itself.
func TestPoolFirstWaiterAlone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		name := "waiter-alone-" + driver
		o, p, target := observe(t), newPool(t, openDB(t, driver, "application_name="+name), pglock.WithHeartbeat(50*time.Millisecond)), newTarget(t)
		holder, _ := newSession(t, driver)
		for range 2 { // the first has not a session for it yet
			held := acquired(t, holder, target)
			ctx, cancel := context.WithCancel(shortly(t))
			got := waitsFor(t, o, ctx, p, target)
			pglock.LongEmpty(p)
			time.Sleep(200 * time.Millisecond)
			if n := p.Sessions(); n != 2 {
				t.Errorf("it has %d sessions while one waits", n)
			}
			must(t, held.Release(bg))
			must(t, (<-got).get(t).Release(bg))
			cancel()
			eventually(t, "it has nothing", func() bool { return p.Reserved() == 0 })
		}
		// What is not needed for that is given back.
		must(t, acquired(t, p, target+"/ttl", swanlock.WithTTL(time.Minute)).Release(bg))
		held := acquired(t, holder, target)
		ctx, cancel := context.WithCancel(shortly(t))
		got := waitsFor(t, o, ctx, p, target)
		pglock.LongEmpty(p)
		eventually(t, "the third session is given back", func() bool { return p.Sessions() == 2 })
		eventually(t, "it waits", func() bool {
			return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock')", name)
		})
		eventually(t, "it has the one session", func() bool { // When the wait has ended before that is seen, it has another again.
			one[int](t, o.db, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type IS DISTINCT FROM 'Lock'", name)
			return one[int](t, o.db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name) == 1
		})
		start := time.Now()
		cancel()
		wantIs(t, (<-got).err, swanlock.ErrNotAcquired)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v to leave", took)
		}
		o.wantTickets(target, 0)
		must(t, held.Release(bg))
	})
}

// A pool that takes tickets on two sessions, and gets the answers in another
// order, takes no number twice: a session cannot find its own tickets by
// trying.
func TestPoolLineOfTwoSessions(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver), pglock.WithMaxWaiters(0)), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		ttl := swanlock.WithTTL(time.Minute)
		waiters := []<-chan outcome{waitsFor(t, o, shortly(t), p, target), waitsFor(t, o, shortly(t), p, target, ttl)}
		p.JoinedLast(o.numbers(target)[0])
		waiters = append(waiters, waitsFor(t, o, shortly(t), p, target, ttl))
		must(t, held.Release(bg))
		for _, w := range waiters {
			must(t, (<-w).get(t).Release(bg))
		}
	})
}

// A waiter does not take the only session from callers that do not wait, also
// when the pool has others that are of no use to them.
func TestPoolWaiterLeavesASession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(2)
		o, p, target := observe(t), newPool(t, db), newTarget(t)
		must(t, acquired(t, p, target+"/a").Release(bg))
		must(t, acquired(t, p, target+"/b", swanlock.WithTTL(time.Minute)).Release(bg))
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		got := waitsFor(t, o, shortly(t), p, target)
		for range 3 {
			must(t, acquired(t, p, target+"/a").Release(bg))
			must(t, acquired(t, p, target+"/b", swanlock.WithTTL(time.Minute)).Release(bg))
		}
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
	})
}

// Of several callers that come for one key at once, one waits on a session of
// its own.
func TestPoolOneWaiterHasASession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p := observe(t), newPool(t, openDB(t, driver))
		holder, _ := newSession(t, driver)
		const many = 6
		var got [many]<-chan outcome
		var held [many]*pglock.PostgresLock
		for i := range got { // opens as many sessions
			target := newTarget(t)
			held[i] = acquired(t, holder, target)
			got[i] = waitsFor(t, o, shortly(t), p, target)
		}
		eventually(t, "all wait", func() bool { return p.Waiting() == many })
		for i := range got {
			must(t, held[i].Release(bg))
			must(t, (<-got[i]).get(t).Release(bg))
		}
		eventually(t, "it has nothing", func() bool { return p.Reserved() == 0 })
		target := newTarget(t)
		last := acquired(t, holder, target)
		all := make(chan outcome, many)
		for range many {
			go func() { all <- outcomeOf(p.Acquire(shortly(t), target)) }()
		}
		o.wantTickets(target, many)
		if n := p.Waiting(); n > 2 { // one who came late may be the first all the same
			t.Errorf("%d sessions wait for one lock", n)
		}
		must(t, last.Release(bg))
		for range many {
			must(t, (<-all).get(t).Release(bg))
		}
	})
}

// A pool with one connection goes on using it for all callers while one waits.
func TestPoolOfOneConnectionWaits(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		o, p, target, late := observe(t), newPool(t, db), newTarget(t), watchScheduler(t)
		holder, _ := newSession(t, driver)
		for range 2 { // the second time it knows of the line, and of an empty session
			held := acquired(t, holder, target)
			got := waitsFor(t, o, shortly(t), p, target)
			for range 10 {
				start := time.Now()
				must(t, acquired(t, p, target+"/other").Release(bg))
				if took := time.Since(start); took > 700*time.Millisecond+late() { // a wait in the server takes 900
					t.Errorf("another caller waited %v", took)
				}
			}
			must(t, held.Release(bg))
			must(t, (<-got).get(t).Release(bg))
		}
	})
}

// queries are those that TestPlans looks for.
var queries = map[string]string{"TryAcquire": db.TryAcquire, "TryAcquireWith": db.TryAcquireWith, "TryAcquireAudited": db.TryAcquireAudited,
	"Refresh": db.Refresh, "RefreshAudited": db.RefreshAudited, "Release": db.Release, "ReleaseWith": db.ReleaseWith,
	"ReleaseAudited": db.ReleaseAudited, "Turn": db.Turn, "TakeNext": db.TakeNext, "Batch": db.Batch, "Pass": db.Pass, "Heartbeat": db.Heartbeat}

// A statement that is sent often is not planned each time: after five
// executions the server keeps one plan for all values.
func TestPlans(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		wantPlans := func(conn *sql.Conn, names ...string) {
			t.Helper()
			for _, name := range names {
				if n := one[int](t, conn, "SELECT COALESCE(sum(generic_plans), 0) FROM pg_prepared_statements WHERE statement = $1::text", db.OneLine(queries[name])); n == 0 {
					t.Errorf("%s is planned each time", name)
				}
			}
		}
		for _, c := range []struct {
			opts    []pglock.SessionOption
			acquire []swanlock.Option
			names   []string
		}{
			{nil, nil, []string{"TryAcquire", "Refresh", "Release"}},
			{nil, []swanlock.Option{swanlock.WithTTL(time.Minute), swanlock.WithFence()}, []string{"TryAcquireWith", "Refresh", "ReleaseWith"}},
			{[]pglock.SessionOption{pglock.WithAudit()}, nil, []string{"TryAcquireAudited", "RefreshAudited", "ReleaseAudited"}},
		} {
			s, conn := newSession(t, driver, c.opts...)
			target := newTarget(t)
			for range 10 {
				l := acquired(t, s, target, c.acquire...)
				must(t, l.Refresh(bg))
				must(t, l.Release(bg))
			}
			wantPlans(conn, c.names...)
		}

		// A caller that waits again and again.
		target := newTarget(t)
		holder, _ := newSession(t, driver)
		s, conn := newSession(t, driver)
		for range 10 {
			held := acquired(t, holder, target)
			got := waitsFor(t, o, shortly(t), s, target)
			must(t, held.Release(bg))
			must(t, (<-got).get(t).Release(bg))
		}
		wantPlans(conn, "Turn")

		// A pool, many at once.
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(20*time.Millisecond))
		contend(t, []*pglock.Pool{p}, 8, 50, newTarget(t))
		holdAndRelease := func() { releaseMany(t, holdMany(t, p, newTarget(t), 20)) }
		for range 20 {
			holdAndRelease()
		}
		p.EachConn(func(conn *sql.Conn) {
			for _, name := range []string{"TryAcquireWith", "Release", "Batch", "Pass", "Heartbeat", "TakeNext", "Turn"} {
				if n := one[int](t, conn, "SELECT COALESCE(sum(custom_plans), 0) FROM pg_prepared_statements WHERE statement = $1::text", db.OneLine(queries[name])); n > 5 {
					t.Errorf("a pool's %s is planned each time (%d)", name, n)
				}
			}
		})
	})
}
