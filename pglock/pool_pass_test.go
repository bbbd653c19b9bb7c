package pglock_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// inLine has n callers of l wait for the lock, which is held, one after the
// other. Each says its name when it has the lock, and releases it.
func inLine(t *testing.T, o observer, l swanlock.Locker, target string, order *[]string, names ...string) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	before := o.tickets(target)
	for i, name := range names {
		wg.Go(func() {
			held, err := l.Acquire(shortly(t), target)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			*order = append(*order, name) // Only the holder writes.
			if err := held.Release(bg); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		o.wantTickets(target, before+i+1)
	}
	return wg.Wait
}

// In one pool a lock goes from caller to caller in one statement each, on the
// holder's session, and nobody waits in the server. With an audit, the rows say
// so, and the fences rise.
func TestPoolPassesOn(t *testing.T) {
	eachAudit(t, func(t *testing.T, driver, param string, o observer, opts ...pglock.PoolOption) {
		target := newTarget(t)
		p := newPool(t, openDB(t, driver, param), append(opts, pglock.WithHeartbeat(time.Hour))...)
		held := acquired(t, p, target)
		var order, names []string
		for i := range 20 {
			names = append(names, fmt.Sprint(i))
		}
		wait := inLine(t, o, p, target, &order, names...)
		if s := p.Stats(); s.WaitingSessions != 0 || s.Sessions != 1 {
			t.Errorf("20 wait for a lock of their own pool: got %+v, want one session, which does not wait", s)
		}
		trips := p.Stats().RoundTrips
		must(t, held.Release(bg))
		wait()
		if !slices.Equal(order, names) {
			t.Errorf("got the order %v", order)
		}
		// The first statement of each kind is one trip more.
		if got := p.Stats().RoundTrips - trips; got > 21+3 {
			t.Errorf("got %d round trips for 21 releases, of which 20 pass the lock on", got)
		}
		o.wantHeld(target)
		o.wantTickets(target, 0)
		if opts != nil {
			reasons := slices.Repeat([]string{"released"}, 21)
			o.wantReasons(target, reasons...)
			o.wantSound()
		}
	})
}

// The holder's session and those of the waiters' tickets may differ, as they do after
// two callers alone. Then they become one again, on which the lock is passed on.
func TestPoolPassesOnAgain(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour))
		handOver := func(callers, grants int) {
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for range grants / callers {
						held, err := p.Acquire(shortly(t), target)
						if err == nil {
							err = held.Release(bg)
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		}
		handOver(8, 80)
		handOver(2, 200)
		trips := p.Stats().RoundTrips
		handOver(8, 400)
		if got := p.Stats().RoundTrips - trips; got > 800 {
			t.Errorf("400 hand-overs among 8 callers took %d round trips, want little more than one each", got)
		}
	})
}

// queued reports whether a session waits for the lock in the server's queue.
func (o observer) queued(target string) bool {
	o.t.Helper()
	return one[bool](o.t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND NOT granted AND (classid::bigint << 32 | objid::bigint) = $1::bigint)", int64(pglock.KeyOf(target)))
}

// A lock is passed on past nobody: neither a ticket of another host, nor a
// session that waits in the server's queue.
func TestPoolPassesNobody(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour))
		other, _ := newSession(t, driver)
		held := acquired(t, p, target)
		var order []string
		first := inLine(t, o, p, target, &order, "1")
		second := inLine(t, o, other, target, &order, "2")
		third := inLine(t, o, p, target, &order, "3")
		must(t, held.Release(bg))
		first()
		second()
		third()
		if want := []string{"1", "2", "3"}; !slices.Equal(order, want) {
			t.Errorf("got the order %v, want %v", order, want)
		}

		held, order = acquired(t, p, target), nil
		last := inLine(t, o, p, target, &order, "with a ticket")
		queued := dial(t, driver)
		done := make(chan error, 1)
		go func() {
			_, err := queued.ExecContext(bg, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
			order = append(order, "in the queue")
			done <- err
		}()
		eventually(t, "it is in the queue", func() bool { return o.queued(target) })
		must(t, held.Release(bg))
		must(t, <-done)
		_, err := queued.ExecContext(bg, "SELECT pg_advisory_unlock_all()")
		must(t, err)
		last()
		if want := []string{"in the queue", "with a ticket"}; !slices.Equal(order, want) {
			t.Errorf("got the order %v, want %v", order, want)
		}
		o.wantHeld(target)
	})
}

// The fence of a lock that is passed on is newer than that of a stranger, which waited
// in the server's queue and had the lock in between.
func TestPoolPassesOnAFence(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		slow := changedDB(t, driver, server(t).URL(), "WHEN NOT r.ours THEN '0'", "WHEN NOT r.ours OR pg_catalog.pg_sleep(0.3) IS NULL THEN '0'")
		p := newPool(t, slow, pglock.WithHeartbeat(time.Hour))
		held := acquired(t, p, target, swanlock.WithFence())
		next := waitsFor(t, o, shortly(t), p, target, swanlock.WithFence())
		stranger, between := dial(t, driver), make(chan uint64, 1)
		go func() {
			key, fence := int64(pglock.KeyOf(target)), uint64(0)
			_, err := stranger.ExecContext(bg, "SELECT pg_advisory_lock($1)", key)
			if err == nil {
				err = stranger.QueryRowContext(bg, "SELECT pg_current_xact_id()::text::bigint WHERE NOT pg_advisory_unlock($1) IS NULL", key).Scan(&fence)
			}
			if err != nil {
				t.Error(err)
			}
			between <- fence
		}()
		eventually(t, "it is in the queue", func() bool { return o.queued(target) })
		must(t, held.Release(bg))
		lock := (<-next).get(t)
		if before := <-between; before <= held.Info().Fence || lock.Info().Fence <= before {
			t.Errorf("the fences are %d, %d and %d, want them to rise", held.Info().Fence, before, lock.Info().Fence)
		}
		must(t, lock.Release(bg))
		o.wantHeld(target)
	})
}

// A reader's release passes nothing on: another reader of the pool may be on the same
// session, which the server would grant the lock to once more.
func TestPoolPassesNoReadersLock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour), pglock.WithMaxSessions(1), pglock.WithLogger(nil))
		first, second := acquired(t, p, target, swanlock.WithShared()), acquired(t, p, target, swanlock.WithShared())
		writer := waitsFor(t, o, shortly(t), p, target)
		time.Sleep(100 * time.Millisecond) // It has looked, and rests: there is no session to wait on.
		must(t, first.Release(bg))
		select {
		case out := <-writer:
			t.Errorf("the writer got %v, %v beside a reader", out.held, out.err)
			must(t, second.Release(bg))
		case <-time.After(200 * time.Millisecond):
			must(t, second.Release(bg))
			must(t, (<-writer).get(t).Release(bg))
		}
		o.wantHeld(target)
	})
}

// When the session dies in the statement that passes the lock on, its holder is
// told, and the waiter gets the lock from another session.
func TestPoolDiesWhilePassing(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, schema := observe(t), newTarget(t), evilSchema("passing", driver)
		db := evilDB(t, driver, schema, fmt.Sprintf(`CREATE FUNCTION %s.pg_advisory_unlock(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
			BEGIN
				IF k = %d AND nextval('%[1]s.calls') = 1 THEN PERFORM pg_sleep(60); END IF;
				RETURN pg_catalog.pg_advisory_unlock(k);
			END $$`, schema, int64(pglock.KeyOf(target))))
		p := newPool(t, db, pglock.WithHeartbeat(time.Hour), pglock.WithLogger(nil))
		held := acquired(t, p, target)
		var order []string
		wait := inLine(t, o, p, target, &order, "waiter")
		released := make(chan error, 1)
		go func() { released <- held.Release(bg) }()
		eventually(t, "the release is under way", func() bool {
			return one[bool](t, o.db, "SELECT COALESCE(wait_event = 'PgSleep', false) FROM pg_stat_activity WHERE pid = $1::int", backendOf(held))
		})
		o.kill(backendOf(held))
		wantIs(t, <-released, swanlock.ErrLost)
		wait()
		if len(order) != 1 {
			t.Error("the waiter did not get the lock")
		}
		o.wantHeld(target)
		o.wantTickets(target, 0)
	})
}

// When the statement that passes the lock on is cancelled, before or after it has
// unlocked the lock, or after it has dropped the ticket, the release is finished,
// and the waiter joins the line again.
func TestPoolPassingFails(t *testing.T) {
	t.Parallel()
	const fails = `CREATE FUNCTION %[1]s.pg_advisory_unlock(%[2]s) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			IF %[3]s AND nextval('%[1]s.calls') = 1 THEN %[4]s END IF;
			RETURN pg_catalog.pg_advisory_unlock(%[5]s);
		END $$`
	const raise = "RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';"
	for _, moment := range []string{"before", "after", "later"} {
		passingFails := func(t *testing.T, driver string) {
			o, target, schema := observe(t), newTarget(t), evilSchema("pass_fails_"+moment, driver)
			lock := fmt.Sprintf("k = %d", int64(pglock.KeyOf(target)))
			function := map[string]string{
				"before": fmt.Sprintf(fails, schema, "k bigint", lock, raise, "k"),
				"after":  fmt.Sprintf(fails, schema, "k bigint", lock, "PERFORM pg_catalog.pg_advisory_unlock(k);"+raise, "k"),
				"later":  fmt.Sprintf(fails, schema, "a integer, b integer", "b & 262143 > 0", "PERFORM pg_catalog.pg_advisory_unlock(a, b);"+raise, "a, b"),
			}[moment]
			db := evilDB(t, driver, schema, function)
			p := newPool(t, db, pglock.WithHeartbeat(time.Hour))
			held, kept := acquired(t, p, target), acquired(t, p, newTarget(t))
			var order []string
			wait := inLine(t, o, p, target, &order, "1", "2")
			must(t, held.Release(bg))
			wait()
			if len(order) != 2 {
				t.Errorf("got %v, want both waiters to be served", order)
			}
			o.wantHeld(target)
			o.wantTickets(target, 0)
			if n := one[int](t, o.db, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2
				AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint`, pglock.TicketSpace(target)); n != 0 {
				t.Errorf("%d locks of the line are left, want none", n)
			}
			o.wantHeld(kept.Info().Target, backendOf(held))
			must(t, kept.Release(bg))
		}
		t.Run(moment, func(t *testing.T) { eachDriver(t, passingFails) })
	}
}
