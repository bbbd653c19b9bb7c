package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// The caller's own settings of the *sql.DB do no harm.
func TestPoolOnASmallDB(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(2)
		db.SetConnMaxLifetime(10 * time.Millisecond)
		db.SetConnMaxIdleTime(10 * time.Millisecond)
		p := newPool(t, db, pglock.WithHeartbeat(50*time.Millisecond))
		target := newTarget(t)
		locks := holdMany(t, p, target, 50)
		for range 20 { // the other connection is the program's
			if _, err := db.ExecContext(bg, "SELECT pg_sleep(0.01)"); err != nil {
				t.Fatal(err)
			}
		}
		for i, l := range locks {
			if err := l.Refresh(bg); err != nil {
				t.Errorf("lock %d: %v", i, err)
			}
			if err := l.Release(bg); err != nil {
				t.Errorf("lock %d: %v", i, err)
			}
		}
	})
}

// TestPoolNeedsAnotherSession: a pool whose sessions are full, and that may have more,
// waits a moment for a connection, if all of them are in use.
func TestPoolNeedsAnotherSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		p := newPool(t, db, pglock.WithMaxSessions(2))
		locks := holdMany(t, p, newTarget(t), 450)
		db.SetMaxOpenConns(2)
		conn, err := db.Conn(bg)
		must(t, err)
		time.AfterFunc(200*time.Millisecond, func() { conn.Close() })
		must(t, acquired(t, p, newTarget(t)).Release(bg))
		releaseMany(t, locks)
	})
}

// TestPoolFullWithoutAConnection: a full Pool that may have another session, but gets
// no connection for it, says so after a second, and at once from then on.
func TestPoolFullWithoutAConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		p := newPool(t, db, pglock.WithMaxSessions(2))
		locks := holdMany(t, p, newTarget(t), 450)
		db.SetMaxOpenConns(4)
		for range 3 {
			connOf(t, db)
		}
		began := time.Now()
		for range 20 {
			_, err := p.TryAcquire(bg, newTarget(t))
			wantIs(t, err, pglock.ErrPoolFull)
		}
		if took := time.Since(began); took > soon/2 {
			t.Errorf("20 tries took %v", took)
		}
		releaseMany(t, locks)
	})
}

// Contended locks are granted even with two connections in all, or one.
func TestPoolContendsOnASmallDB(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 2} {
		t.Run(fmt.Sprint(conns), func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				var pools []*pglock.Pool
				for range 2 {
					db := openDB(t, driver)
					db.SetMaxOpenConns(conns)
					pools = append(pools, newPool(t, db))
				}
				contend(t, pools, 4, 5, newTarget(t))
			})
		})
	}
}

// contend has goroutines of each pool take turns at the target, and checks from
// the outside that no two have it at once.
func contend(t *testing.T, pools []*pglock.Pool, goroutines, rounds int, target string, opts ...swanlock.Option) {
	t.Helper()
	var inside atomic.Int32
	var wg sync.WaitGroup
	for _, p := range pools {
		for range goroutines {
			wg.Go(func() {
				for range rounds {
					l, err := p.Acquire(shortly(t), target, opts...)
					if err != nil {
						t.Error(err)
						return
					}
					if n := inside.Add(1); n != 1 {
						t.Errorf("%d holders at once", n)
					}
					time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
					inside.Add(-1)
					if err := l.Release(bg); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// In each way to wait, one waiter at a time has the lock, and all get it.
func TestPoolContends(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]pglock.PoolOption{
		"in the server": {},
		"one waiter":    {pglock.WithMaxWaiters(1)},
		"no waiters":    {pglock.WithMaxWaiters(0)},
		"polling":       {pglock.WithPolling()},
	} {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				pools := []*pglock.Pool{newPool(t, openDB(t, driver), opts...), newPool(t, openDB(t, driver), opts...)}
				target, rounds := newTarget(t), 20
				if name != "in the server" {
					rounds = 4
				}
				t.Run("plain", func(t *testing.T) { contend(t, pools, 4, rounds, target) })
				t.Run("ttl", func(t *testing.T) { contend(t, pools, 4, rounds, target, swanlock.WithTTL(soon)) })
				t.Run("fence", func(t *testing.T) { contend(t, pools, 4, rounds, target, swanlock.WithFence()) })
			})
		})
	}
}

// A *sql.DB that has no connection to give is named as the cause.
func TestPoolWithoutAConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		conn := connOf(t, db)
		p := newPool(t, db)
		ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
		defer cancel()
		_, err := p.TryAcquire(ctx, newTarget(t))
		if !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "SetMaxOpenConns") {
			t.Errorf("got %v, want ErrNotAcquired, the deadline, and what to set", err)
		}
		conn.Close()
		l, err := p.TryAcquire(bg, newTarget(t))
		if err != nil {
			t.Fatalf("with a connection: %v", err)
		}
		if err := l.Release(bg); err != nil {
			t.Error(err)
		}
	})
}

// A small lock table is not filled.
func TestPoolLeavesRoom(t *testing.T) {
	t.Parallel()
	srv, err := pgserver.Start(bg, pgserver.WithSetting("max_connections", "20"), pgserver.WithSetting("max_locks_per_transaction", "10"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Stop() })
	db := openURL(t, "pgx", srv.URL())
	p := newPool(t, db)
	target := newTarget(t)
	var locks []swanlock.DistributedLock
	for i := range 300 {
		var l swanlock.DistributedLock
		if l, err = p.TryAcquire(bg, fmt.Sprintf("%s/%d", target, i)); err != nil {
			break
		}
		locks = append(locks, l)
	}
	if !errors.Is(err, pglock.ErrPoolFull) || len(locks) != 100 {
		t.Errorf("got %v after %d locks, want ErrPoolFull after 100, half of the server's table", err, len(locks))
	}
	releaseMany(t, locks)
}

func TestPoolBadInput(t *testing.T) {
	t.Parallel()
	if _, err := pglock.NewPool(nil); err == nil {
		t.Error("a nil *sql.DB is taken")
	}
	db := openDB(t, "pgx")
	for name, opt := range map[string]pglock.PoolOption{"fewer than no waiters": pglock.WithMaxWaiters(-1), "no heartbeat": pglock.WithHeartbeat(0)} {
		if _, err := pglock.NewPool(db, opt); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := db.Ping(); err != nil {
		t.Errorf("the caller's *sql.DB after a bad option: %v", err)
	}
	p := newPool(t, openDB(t, "pgx"), nil)
	if _, err := p.TryAcquire(bg, "x", swanlock.WithTTL(1000*time.Hour)); err == nil {
		t.Error("a TTL beyond the server's is taken")
	}
	gone := openDB(t, "pgx")
	gone.Close()
	if _, err := newPool(t, gone).TryAcquire(bg, "x"); err == nil {
		t.Error("a closed *sql.DB gives a lock")
	}
}
