package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A try that has claimed the key but is not sent yet, and a waiter that
// polls on the same session: both are granted.
func TestPoolPollAndTryBothHold(t *testing.T) {
	for _, kind := range []string{"exclusive", "shared try", "shared waiter"} {
		t.Run(kind, func(t *testing.T) {
			p := newPool(t, openDB(t, "pgx"), pglock.WithPolling())
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
			ctx, cancel := context.WithTimeout(bg, 2*time.Second)
			defer cancel()
			b, err := p.Acquire(ctx, target, wait...) // its try fails, it takes a ticket, and polls
			if err != nil {
				t.Fatalf("the waiter: %v", err)
			}
			a, err := rest()
			if err == nil {
				if a.Err() == nil && b.Err() == nil {
					t.Errorf("TWO HOLDERS: a (shared %v) and b (shared %v)", a.Info().Shared, b.Info().Shared)
				}
				a.Release(bg)
			}
			if err := b.Release(bg); err != nil {
				t.Errorf("b's release: %v", err)
			}
			ctx2, cancel2 := context.WithTimeout(bg, time.Second)
			defer cancel2()
			if err := p.Close(ctx2); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// A reader's poll that is cancelled (statement_timeout, pg_cancel_backend)
// on a session that has another reader is taken for granted.
func TestPoolPhantomReader(t *testing.T) {
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
// gate, if the session is in another line.
func TestPoolTicketLeftBehind(t *testing.T) {
	o := observe(t)
	db := evilDB(t, "pgx", "pool_ticket", `CREATE FUNCTION pool_ticket.pg_try_advisory_lock(h integer, n integer) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('pool_ticket.calls') = 4 THEN -- the gate and the number of a, then those of b
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
	// Everybody else who waits for b: the lock is free.
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

// A TakeTicket that failed leaves the session's share of the gate to those of its
// callers who are in that line already, whether it had taken one itself or not.
func TestPoolTicketFailsAtTheGate(t *testing.T) {
	for schema, before := range map[string]bool{"gate_before": true, "gate_after": false} {
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
				t.Fatalf("got %v, want the error of the gate", err)
			}
			alone := func() bool {
				class, slot := pglock.Slots(target, 0)
				return one[bool](t, other, "SELECT CASE WHEN pg_try_advisory_lock($1, $2) THEN pg_advisory_unlock($1, $2) ELSE false END", class, slot)
			}
			if alone() {
				t.Error("who waits has lost his share of the gate")
			}
			cancel()
			<-first
			eventually(t, "nobody has a share of the gate", alone)
		})
	}
}

// The first call after the session's backend was killed.
func TestPoolTryAfterKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		for _, name := range []string{"TryAcquire", "Acquire", "fenced"} {
			t.Run(name, func(t *testing.T) {
				p := newPool(t, openDB(t, drv), pglock.WithHeartbeat(time.Hour))
				l := acquired(t, p, newTarget(t))
				pid := l.BackendPID()
				must(t, l.Release(bg))
				o.kill(pid)
				time.Sleep(20 * time.Millisecond)
				var err error
				var got swanlock.DistributedLock
				switch name {
				case "TryAcquire":
					got, err = p.TryAcquire(bg, newTarget(t))
				case "Acquire":
					got, err = p.Acquire(bg, newTarget(t))
				default:
					got, err = p.TryAcquire(bg, newTarget(t), swanlock.WithFence())
				}
				if err != nil {
					t.Fatalf("the first acquire after the session died: %v", err)
				}
				got.Release(bg)
			})
		}
	})
}

// After a restart every session is dead; there are more than two.
func TestPoolTryAfterKillOfAll(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		p := newPool(t, openDB(t, drv), pglock.WithHeartbeat(time.Hour))
		pids := map[int]bool{}
		locks := holdMany(t, p, newTarget(t), 1000)
		for _, l := range locks {
			pids[backendOf(l)] = true
		}
		releaseMany(t, locks)
		for pid := range pids {
			o.kill(pid)
		}
		if _, err := p.TryAcquire(bg, newTarget(t)); err != nil {
			t.Errorf("with %d dead sessions: %v", len(pids), err)
		}
		ctx, cancel := context.WithTimeout(bg, time.Millisecond)
		defer cancel()
		p.Close(ctx)
	})
}

// A waiter whose waiting session, or ticket's session, is killed.
func TestPoolWaiterSurvivesKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		db := openDB(t, drv)
		p := newPool(t, db, pglock.WithHeartbeat(time.Hour))
		target := newTarget(t)
		other := dial(t, drv)
		run(t, other, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
		got := make(chan error, 1)
		go func() {
			l, err := p.Acquire(shortly(t), target)
			if err == nil {
				l.Release(bg)
			}
			got <- err
		}()
		var pid int
		eventually(t, "it waits", func() bool {
			return o.db.QueryRow("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1 AND classid::bigint << 32 | objid::bigint = $1::bigint", int64(pglock.KeyOf(target))).Scan(&pid) == nil
		})
		o.kill(pid)
		time.Sleep(100 * time.Millisecond)
		run(t, other, "SELECT pg_advisory_unlock($1)", int64(pglock.KeyOf(target)))
		if err := <-got; err != nil {
			t.Errorf("who waited: %v", err)
		}
	})
}

// A choosy connector opens n connections, and then none.
type choosy struct {
	driver.Connector
	left atomic.Int32
}

func (c *choosy) Connect(ctx context.Context) (driver.Conn, error) {
	if c.left.Add(-1) < 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.Connector.Connect(ctx)
}

// A waiter whose context ends, or whose lock becomes free, while the session
// to wait on is being opened.
func TestPoolWaitSessionDoesNotOpen(t *testing.T) {
	for _, what := range []string{"the context ends", "the lock is free"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			conn, err := pq.NewConnector(server(t).URL())
			must(t, err)
			c := &choosy{Connector: conn}
			c.left.Store(1)
			db := sql.OpenDB(c)
			t.Cleanup(func() { db.Close() })
			p := newPool(t, db)
			target := newTarget(t)
			held := acquired(t, p, target)
			ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
			if what == "the lock is free" {
				ctx, cancel = context.WithTimeout(bg, soon)
			}
			defer cancel()
			time.AfterFunc(200*time.Millisecond, func() { held.Release(bg) })
			start := time.Now()
			l, err := p.Acquire(ctx, target)
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("Acquire returned after %v (%v)", took, err)
			}
			if err == nil {
				l.Release(bg)
			}
		})
	}
}

// On a small *sql.DB a waiter takes the program's last connection, which the
// holder needs in order to get done.
func TestPoolWaiterTakesTheLastConnection(t *testing.T) {
	db := openDB(t, "pgx")
	db.SetMaxOpenConns(2)
	p := newPool(t, db)
	target := newTarget(t)
	held := acquired(t, p, target)
	ctx, cancel := context.WithCancel(bg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if l, err := p.Acquire(ctx, target); err == nil {
			l.Release(bg)
		}
	}()
	time.Sleep(100 * time.Millisecond)
	qctx, stop := context.WithTimeout(bg, 3*time.Second)
	defer stop()
	if _, err := db.ExecContext(qctx, "SELECT 1"); err != nil {
		t.Errorf("the holder's own work: %v", err)
	}
	held.Release(bg)
	cancel()
	<-done
}

// Locks that were waited for use up the sessions.
func TestPoolWaitersUseUpTheSessions(t *testing.T) {
	o := openDB(t, "pgx")
	other := connOf(t, o)
	p := newPool(t, openDB(t, "pgx"), pglock.WithMaxWaiters(40))
	target := newTarget(t)
	var locks []swanlock.DistributedLock
	var mu sync.Mutex
	var wg sync.WaitGroup
	const n = 40
	for i := range n {
		run(t, other, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(fmt.Sprint(target, i))))
	}
	for i := range n {
		wg.Go(func() {
			l, err := p.Acquire(shortly(t), fmt.Sprint(target, i))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			locks = append(locks, l)
			mu.Unlock()
		})
	}
	eventually(t, "half of the sessions are there", func() bool { return p.Sessions() >= 16 })
	time.Sleep(500 * time.Millisecond) // for those that should not come
	for i := range n {
		run(t, other, "SELECT pg_advisory_unlock($1)", int64(pglock.KeyOf(fmt.Sprint(target, i))))
	}
	wg.Wait()
	if l, err := p.TryAcquire(bg, newTarget(t), swanlock.WithTTL(time.Minute)); err != nil {
		t.Errorf("with %d locks on %d sessions: %v", len(locks), p.Sessions(), err)
	} else {
		l.Release(bg)
	}
	releaseMany(t, locks)
}

// Two Closes at once.
func TestPoolTwoCloses(t *testing.T) {
	for range 20 {
		p, err := pglock.NewPool(openDB(t, "pgx"))
		must(t, err)
		must(t, acquired(t, p, newTarget(t)).Release(bg))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := p.Close(bg); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
		wg.Wait()
	}
}

// One connection, and a lock with a longer TTL than the session's.
func TestPoolLongerTTLOnOneConnection(t *testing.T) {
	db := openDB(t, "pgx")
	db.SetMaxOpenConns(1)
	p := newPool(t, db)
	a := acquired(t, p, newTarget(t), swanlock.WithTTL(10*time.Second))
	ctx, cancel := context.WithTimeout(bg, 3*time.Second)
	defer cancel()
	if l, err := p.TryAcquire(ctx, newTarget(t), swanlock.WithTTL(time.Minute)); err != nil {
		t.Errorf("a session with room and a shorter lease is there: %v", err)
	} else {
		l.Release(bg)
	}
	a.Release(bg)
}

// A driver that panics, in a goroutine that recovers: what do the others of
// its batch get?
type panicky struct {
	driver.Connector
	armed *atomic.Bool
	slow  *atomic.Bool
}

type panickyConn struct {
	driver.Conn
	p *panicky
}

type panickyStmt struct {
	driver.Stmt
	p     *panicky
	batch bool
}

func (p *panicky) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := p.Connector.Connect(ctx)
	return &panickyConn{c, p}, err
}

func (c *panickyConn) Prepare(q string) (driver.Stmt, error) {
	s, err := c.Conn.Prepare(q)
	return &panickyStmt{s, c.p, false}, err
}

func (s *panickyStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if s.p.slow.Swap(false) {
		time.Sleep(200 * time.Millisecond)
	} else if s.p.armed.Swap(false) {
		panic("the driver has a bug")
	}
	return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
}

func TestPoolDriverPanics(t *testing.T) {
	o := observe(t)
	conn, err := pq.NewConnector(server(t).URL())
	must(t, err)
	c := &panicky{Connector: conn, armed: new(atomic.Bool), slow: new(atomic.Bool)}
	db := sql.OpenDB(c)
	t.Cleanup(func() { db.Close() })
	p, err := pglock.NewPool(db, pglock.WithHeartbeat(time.Hour))
	must(t, err)
	target := newTarget(t)
	must(t, acquired(t, p, target).Release(bg))
	c.slow.Store(true)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			defer func() { recover() }() // as net/http does
			l, err := p.TryAcquire(bg, fmt.Sprint(target, i))
			if i == 0 { // it led the slow one
				return
			}
			if err == nil && l.Err() == nil && len(o.holders(fmt.Sprint(target, i))) == 0 {
				t.Errorf("%d: a lock that nobody holds was handed out", i)
			}
			if err == nil { // which also keeps it from being dropped before
				l.Release(bg)
			}
		})
		time.Sleep(20 * time.Millisecond)
		if i == 0 {
			c.armed.Store(true)
		}
	}
	wg.Wait()
	// p.Close would wait for ever: database/sql does not give the Conn's lock
	// back after a panic.
}

// The unlock of one reader is answered with an error after it was done: the
// second unlock takes the other reader's lock.
func TestPoolUnlockPopsTheOtherReader(t *testing.T) {
	o := observe(t)
	db := evilDB(t, "pgx", "pool_unlock", `CREATE FUNCTION pool_unlock.pg_advisory_unlock_shared(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('pool_unlock.calls') = 1 THEN
				PERFORM pg_catalog.pg_advisory_unlock_shared(k);
				RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';
			END IF;
			RETURN pg_catalog.pg_advisory_unlock_shared(k);
		END $$`)
	p := newPool(t, db, pglock.WithHeartbeat(time.Hour))
	target := newTarget(t)
	r1 := acquired(t, p, target, swanlock.WithShared())
	r2 := acquired(t, p, target, swanlock.WithShared())
	t.Logf("release of the first: %v", r1.Release(bg))
	other := dial(t, "pgx")
	if one[bool](t, other, "SELECT pg_try_advisory_lock($1)", int64(pglock.KeyOf(target))) && r2.Err() == nil {
		t.Errorf("TWO HOLDERS: a reader and a writer; the server says %v", o.holders(target))
	}
	r2.Release(bg)
}

// Close with an ended context gives a connection back with a lock on it.
func TestPoolCloseLeavesALock(t *testing.T) {
	o := observe(t)
	db := openDB(t, "pgx")
	p, err := pglock.NewPool(db, pglock.WithHeartbeat(time.Hour))
	must(t, err)
	target := newTarget(t)
	pglock.ExpireAndForget(acquired(t, p, target, swanlock.WithTTL(time.Minute)))
	ctx, _ := cancelled()
	t.Logf("close: %v", p.Close(ctx))
	if got := o.holders(target); len(got) > 0 {
		t.Errorf("held after Close, by %v, on a connection that is in the *sql.DB", got)
	}
}

// A *sql.DB whose idle connection was killed a moment ago.
func TestPoolOpenOnAKilledConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		db := openDB(t, drv)
		pid := one[int](t, db, "SELECT pg_backend_pid()")
		o.kill(pid)
		time.Sleep(20 * time.Millisecond)
		l, err := newPool(t, db).TryAcquire(bg, newTarget(t))
		if err != nil {
			t.Fatalf("an idle connection of the *sql.DB was dead: %v", err)
		}
		l.Release(bg)
	})
}

// Newcomers do not overtake who has a ticket, though he only looks from time to
// time, and is not in the server's queue.
func TestPoolNewcomersDoNotOvertake(t *testing.T) {
	first := newPool(t, openDB(t, "pgx"), pglock.WithPolling())
	second := newPool(t, openDB(t, "pgx"))
	target := newTarget(t)
	held, err := second.Acquire(bg, target)
	must(t, err)
	ctx, cancel := context.WithTimeout(bg, 5*time.Second)
	defer cancel()
	got := make(chan error, 1)
	go func() {
		l, err := first.Acquire(ctx, target)
		if err == nil {
			l.Release(bg)
		}
		got <- err
	}()
	o := observe(t)
	eventually(t, "its ticket is taken", func() bool { return o.tickets(target) > 0 })
	must(t, held.Release(bg))
	overtaken := 0
	for {
		select {
		case err := <-got:
			if overtaken > 1 || err != nil {
				t.Errorf("who came first was overtaken %d times: %v", overtaken, err)
			}
			return
		default:
		}
		l, err := second.Acquire(bg, target)
		must(t, err)
		overtaken++
		time.Sleep(20 * time.Millisecond)
		must(t, l.Release(bg))
	}
}
