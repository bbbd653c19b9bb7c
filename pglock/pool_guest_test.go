package pglock_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolLeavesConnections: a pool takes half of what the *sql.DB may open, so that
// the application's own queries go on, and puts locks of different TTLs together.
func TestPoolLeavesConnections(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, db := observe(t), openDB(t, driver)
		db.SetMaxOpenConns(5)
		log := &logBook{}
		p := newPool(t, db, pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		var held []swanlock.DistributedLock
		for _, ttl := range []time.Duration{time.Minute, 2 * time.Minute, 0, 4 * time.Minute, 8 * time.Minute, 30 * time.Second} {
			target := newTarget(t)
			l := acquired(t, p, target, swanlock.WithTTL(ttl))
			o.wantHeld(target, backendOf(l))
			held = append(held, l)
		}
		if got := p.Sessions(); got > 2 {
			t.Errorf("the pool has %d sessions of 5 connections, want 2 at most", got)
		}
		ctx, cancel := context.WithTimeout(bg, 20*time.Second)
		defer cancel()
		var app sync.WaitGroup
		for range 3 {
			app.Go(func() {
				if _, err := db.ExecContext(ctx, "SELECT pg_sleep(0.1)"); err != nil {
					t.Error(err)
				}
			})
		}
		app.Wait()
		for _, l := range held {
			must(t, l.Err())
			must(t, l.Release(bg))
		}
		if n := log.count("too few connections"); n != 1 {
			t.Errorf("%d warnings, want one", n)
		}
	})
}

// TestPoolHasTheOnlyConnection: work under a lock that asks the same *sql.DB for a
// connection, when the pool has all that it may open, waits for the lock's own end.
// The log says so, once, and only if somebody waits.
func TestPoolHasTheOnlyConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		log := &logBook{}
		p := newPool(t, db, pglock.WithHeartbeat(20*time.Millisecond), pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		conn := connOf(t, db)
		time.AfterFunc(100*time.Millisecond, func() { conn.Close() }) // It is the pool that waits now.
		l := acquired(t, p, newTarget(t))
		for beats := p.Stats().Heartbeats; p.Stats().Heartbeats < beats+3; {
			time.Sleep(time.Millisecond)
		}
		if n := log.count("SetMaxOpenConns"); n != 0 {
			t.Errorf("%d warnings while nobody waits, want none", n)
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(bg, 500*time.Millisecond)
			if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a ping of the only connection: %v, want the deadline", err)
			}
			cancel()
		}
		must(t, l.Release(bg))
		if n := log.count("SetMaxOpenConns"); n != 1 {
			t.Errorf("%d warnings, want one", n)
		}
		must(t, db.PingContext(bg))
	})
}

// TestPoolSharesTheShortestLease: a lock whose TTL is shorter than its session's
// lease makes it the session's.
func TestPoolSharesTheShortestLease(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver), pglock.WithMaxSessions(1), pglock.WithLogger(nil))
		long := acquired(t, p, newTarget(t), swanlock.WithTTL(time.Hour))
		short := acquired(t, p, newTarget(t), swanlock.WithTTL(20*time.Second))
		if backendOf(long) != backendOf(short) {
			t.Fatal("the locks are on two sessions")
		}
		if got, most := pglock.ServerLease(p, backendOf(long)), 20*time.Second; got == 0 || got > most {
			t.Errorf("the server's lease is %v, want at most %v", got, most)
		}
		if _, ok := long.Deadline(); !ok {
			t.Error("no deadline")
		}
		must(t, long.Release(bg))
		must(t, short.Release(bg))
	})
}

// TestPoolSharesNoSessionThatWaits: a lock for whose TTL there is no session is put on
// one that does not wait, though that has more locks.
func TestPoolSharesNoSessionThatWaits(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p := newPool(t, openDB(t, driver), pglock.WithMaxSessions(2), pglock.WithMaxWaiters(1), pglock.WithLogger(nil))
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		first, second := acquired(t, p, newTarget(t)), acquired(t, p, newTarget(t))
		got := waitsFor(t, o, shortly(t), p, target)
		eventually(t, "it waits", func() bool { return p.Waiting() == 1 })
		shares := acquired(t, p, newTarget(t), swanlock.WithTTL(time.Minute))
		if got, want := backendOf(shares), backendOf(first); got != want {
			t.Errorf("the lock is on backend %d, want %d, which does not wait", got, want)
		}
		must(t, held.Release(bg))
		for _, l := range []swanlock.DistributedLock{shares, first, second, (<-got).get(t)} {
			must(t, l.Release(bg))
		}
	})
}

// TestPoolGivesBackWhatIsWanted: an empty session gives its connection back if
// all connections of the *sql.DB are in use.
func TestPoolGivesBackWhatIsWanted(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(2)
		p := newPool(t, db)
		held := acquired(t, p, newTarget(t))
		conn, err := db.Conn(bg)
		must(t, err)
		defer conn.Close()
		must(t, held.Release(bg))
		ctx, cancel := context.WithTimeout(bg, 20*time.Second)
		defer cancel()
		_, err = db.ExecContext(ctx, "SELECT 1")
		must(t, err)
	})
}

// TestPoolColdOnAPgxpool: callers of all ranges of TTLs come at once to a pool on a
// pgxpool of four, whose limit cannot be seen. All get their locks, and the application
// its connection when they are released.
func TestPoolColdOnAPgxpool(t *testing.T) {
	t.Parallel()
	db := openDB(t, "pgxpool", "pool_max_conns=4")
	p := newPool(t, db, pglock.WithLogger(nil))
	var wg sync.WaitGroup
	for _, ttl := range []time.Duration{0, 2, 4, 8, 16, 32} {
		wg.Go(func() {
			var opts []swanlock.Option
			if ttl > 0 {
				opts = append(opts, swanlock.WithTTL(ttl*time.Second), swanlock.WithAutoRefresh())
			}
			ctx, cancel := context.WithTimeout(bg, soon)
			defer cancel()
			l, err := p.TryAcquire(ctx, newTarget(t), opts...)
			if err != nil {
				t.Errorf("TTL %d s: %v", ttl, err)
				return
			}
			l.Release(bg)
		})
	}
	wg.Wait()
	eventually(t, "the application has a connection", func() bool {
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, err := db.ExecContext(ctx, "SELECT 1")
		return err == nil
	})
}
