package pglock_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A try that has claimed the key but is not sent yet, and a waiter that
// comes meanwhile, on the same session: never are both granted.
func TestPoolPollAndTryBothHold(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"exclusive", "shared try", "shared waiter"} {
		t.Run(kind, func(t *testing.T) {
			o, p := observe(t), newPool(t, openDB(t, "pgx"), pglock.WithPolling())
			warm := acquired(t, p, newTarget(t))
			must(t, warm.Release(bg))
			target := newTarget(t)
			var try, wait []swanlock.Option
			switch kind {
			case "shared try":
				try = append(try, swanlock.WithShared())
			case "shared waiter":
				wait = append(wait, swanlock.WithShared())
			}
			rest, err := p.SplitTry(bg, target, try...) // TryAcquire, descheduled after its claim
			must(t, err)
			var b swanlock.DistributedLock
			waited := make(chan error, 1)
			go func() { // Its try fails, it takes a ticket, and waits or polls.
				var err error
				b, err = p.Acquire(shortly(t), target, wait...)
				waited <- err
			}()
			if kind == "shared try" {
				must(t, <-waited)
			} else { // It knows that the lock is claimed.
				o.wantTickets(target, 1)
			}
			a, err := rest()
			if err == nil {
				if kind == "shared try" && a.Err() == nil && b.Err() == nil {
					t.Errorf("TWO HOLDERS: a (shared %v) and b (shared %v)", a.Info().Shared, b.Info().Shared)
				}
				o.wantHeld(target, backendOf(a))
				must(t, a.Release(bg))
			}
			if kind != "shared try" {
				must(t, <-waited)
			}
			o.wantHeld(target, backendOf(b))
			must(t, b.Release(bg))
			must(t, p.Close(shortly(t)))
		})
	}
}

// A reader's poll that is cancelled (statement_timeout, pg_cancel_backend)
// on a session that has another reader is taken for granted.
func TestPoolPhantomReader(t *testing.T) {
	t.Parallel()
	o := observe(t)
	db := evilDB(t, "pgx", "pool_phantom", `CREATE FUNCTION pool_phantom.pg_try_advisory_lock_shared(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('pool_phantom.calls') = 2 THEN RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'; END IF;
			RETURN pg_catalog.pg_try_advisory_lock_shared(k);
		END $$`)
	p := newPool(t, db, pglock.WithMaxWaiters(0), pglock.WithHeartbeat(time.Hour))
	target := newTarget(t)
	r1, err := p.TryAcquire(bg, target, swanlock.WithShared())
	must(t, err)
	writer := dial(t, "pgx")
	wctx, stop := context.WithCancel(bg)
	wrote := make(chan error, 1)
	go func() {
		_, err := writer.ExecContext(wctx, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
		wrote <- err
	}()
	eventually(t, "a writer waits", func() bool {
		return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1 AND pid <> pg_backend_pid() AND classid::bigint << 32 | objid::bigint = $1::bigint)", int64(pglock.KeyOf(target)))
	})
	got := make(chan swanlock.DistributedLock, 1)
	go func() {
		r2, err := p.Acquire(shortly(t), target, swanlock.WithShared())
		if err != nil {
			t.Logf("second reader: %v", err)
		}
		got <- r2
	}()
	time.Sleep(50 * time.Millisecond)
	stop()
	<-wrote
	r2 := <-got
	t.Logf("release of the first: %v", r1.Release(bg))
	other := dial(t, "pgx")
	if r2 != nil && r2.Err() == nil && one[bool](t, other, "SELECT pg_try_advisory_lock($1)", int64(pglock.KeyOf(target))) {
		t.Errorf("TWO HOLDERS: a reader that thinks it holds, and a writer; the server says %v", o.holders(target))
	}
	if r2 != nil {
		r2.Release(bg)
	}
}

// A TakeTicket that failed after it took the number does not leave it, nor the
// number 0, if the session is in another line.
func TestPoolTicketLeftBehind(t *testing.T) {
	t.Parallel()
	o := observe(t)
	db := evilDB(t, "pgx", "pool_ticket", `CREATE FUNCTION pool_ticket.pg_try_advisory_lock(h integer, n integer) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('pool_ticket.calls') = 4 THEN -- the number 0 and the ticket of a, then those of b
				PERFORM pg_catalog.pg_try_advisory_lock(h, n);
				RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';
			END IF;
			RETURN pg_catalog.pg_try_advisory_lock(h, n);
		END $$`)
	p := newPool(t, db, pglock.WithMaxWaiters(0), pglock.WithHeartbeat(time.Hour))
	a, b := newTarget(t), newTarget(t)
	other := dial(t, "pgx")
	run(t, other, "SELECT pg_advisory_lock($1), pg_advisory_lock($2)", int64(pglock.KeyOf(a)), int64(pglock.KeyOf(b)))
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	done := make(chan error, 1)
	go func() { _, err := p.Acquire(ctx, a); done <- err }()
	eventually(t, "a waiter of a", func() bool { return o.tickets(a) == 1 })
	if _, err := p.Acquire(bg, b); err == nil {
		t.Fatal("want an error")
	}
	if got := one[int](t, o.db, "SELECT count(*) FROM pg_locks WHERE objsubid = 2 AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint", pglock.TicketSpace(b)); got != 0 {
		t.Errorf("a failed Acquire left %d lock(s) of b's line", got)
	}
	run(t, other, "SELECT pg_advisory_unlock($1)", int64(pglock.KeyOf(b)))
	// All others that wait for b get the lock, which is free.
	s, _ := newSession(t, "pgx")
	hold, err := s.TryAcquire(bg, b)
	must(t, err)
	s2, _ := newSession(t, "pgx")
	time.AfterFunc(100*time.Millisecond, func() { hold.Release(bg) })
	wctx, stop := context.WithTimeout(bg, 3*time.Second)
	defer stop()
	if _, err := s2.Acquire(wctx, b); err != nil {
		t.Errorf("the line is stopped for everybody: %v", err)
	}
	cancel()
	<-done
}

// A TakeTicket that failed leaves the session's share of the number 0 to those
// of its callers that are in that line already, whether it had taken one itself
// or not.
func TestPoolTicketFailsAtZero(t *testing.T) {
	t.Parallel()
	for schema, before := range map[string]bool{"zero_before": true, "zero_after": false} {
		t.Run(schema, func(t *testing.T) {
			o, target := observe(t), newTarget(t)
			take := "result := pg_catalog.pg_try_advisory_lock_shared(h, n);"
			fail := "IF n & 262143 = 0 AND nextval('" + schema + ".calls') = 2 THEN RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'; END IF;"
			if before {
				take, fail = fail, take
			}
			db := evilDB(t, "pgx", schema, "CREATE FUNCTION "+schema+".pg_try_advisory_lock_shared(h integer, n integer) RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE result boolean; BEGIN "+take+" "+fail+" RETURN result; END $$")
			p := newPool(t, db, pglock.WithMaxWaiters(0), pglock.WithHeartbeat(time.Hour))
			other := dial(t, "pgx")
			run(t, other, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			first := waitsFor(t, o, ctx, p, target)
			if _, err := p.Acquire(bg, target); err == nil || !strings.Contains(err.Error(), "cancelled") {
				t.Fatalf("got %v, want the error of the number 0", err)
			}
			alone := func() bool {
				class, slot := pglock.Slots(target, 0)
				return one[bool](t, other, "SELECT CASE WHEN pg_try_advisory_lock($1, $2) THEN pg_advisory_unlock($1, $2) ELSE false END", class, slot)
			}
			if alone() {
				t.Error("the waiter has lost its share of the number 0")
			}
			cancel()
			<-first
			eventually(t, "nobody has a share of the number 0", alone)
		})
	}
}
