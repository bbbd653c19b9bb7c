package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

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
	t.Parallel()
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
	t.Parallel()
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

// Locks that were granted after a wait fill the sessions.
func TestPoolWaitersUseUpTheSessions(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// A panicky connector is of a driver that panics when it is armed.
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// Newcomers do not overtake a waiter with a ticket, even if it only looks from
// time to time, and is not in the server's queue.
func TestPoolNewcomersDoNotOvertake(t *testing.T) {
	t.Parallel()
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
				t.Errorf("the first waiter was overtaken %d times: %v", overtaken, err)
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
