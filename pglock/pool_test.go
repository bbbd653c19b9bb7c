package pglock_test

import (
	"context"
	"database/sql"
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
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/pglock"
)

// newPool is a Pool that is closed with the test, and found empty.
func newPool(t testing.TB, db *sql.DB, opts ...pglock.PoolOption) *pglock.Pool {
	t.Helper()
	p, err := pglock.NewPool(db, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(bg, soon)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

// pidOf is the backend that holds l.
func backendOf(l swanlock.DistributedLock) int { return l.(*pglock.PostgresLock).BackendPID() }

func TestPoolConformance(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for name, opts := range map[string][]pglock.PoolOption{
			"plain":   {pglock.WithHeartbeat(time.Second)},
			"audited": {pglock.WithHeartbeat(time.Second), pglock.WithAudit()},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				locktest.Run(t, func(t *testing.T) swanlock.Locker {
					return newPool(t, openDB(t, driver), opts...)
				},
					locktest.Pooled("its locks share sessions"), locktest.Fair(), locktest.ShortTTL(600*time.Millisecond),
					locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) { o.kill(backendOf(held)) }))
			})
		}
	})
}

// One round trip serves all who came while the last was under way.
func TestPoolSharesRoundTrips(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		proxy := newProxy(t)
		p := newPool(t, openURL(t, driver, proxy.url), pglock.WithHeartbeat(time.Hour))
		work := func(target string) {
			l, err := p.TryAcquire(bg, target)
			if err == nil {
				err = l.Release(bg)
			}
			if err != nil {
				t.Error(err)
			}
		}
		target := newTarget(t)
		for range 3 { // warms the connection and both statements of a lone caller
			work(target)
		}
		if got := proxy.trips(t, func() { work(target) }); got != 2 {
			t.Errorf("a lone caller: got %d round trips for an acquire and a release, want 2", got)
		}
		const callers, rounds = 32, 50
		got := proxy.trips(t, func() {
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					for range rounds {
						work(fmt.Sprintf("%s/%d", target, i))
					}
				})
			}
			wg.Wait()
		})
		if got > 2*callers*rounds/3 {
			t.Errorf("%d callers: got %d round trips for %d acquires and releases, want a third at most", callers, got, 2*callers*rounds)
		}
	})
}

// When the shared session dies, each of its locks is told within a heartbeat,
// nothing is taken again, and the next acquire gets another session.
func TestPoolSessionKilled(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(200*time.Millisecond))
		target := newTarget(t)
		locks := holdMany(t, p, target, 300)
		pid := backendOf(locks[0])
		for _, l := range locks {
			if backendOf(l) != pid {
				t.Fatalf("got a lock on process %d, want all on %d", backendOf(l), pid)
			}
		}
		o.kill(pid)
		timeout := time.After(soon)
		for i, l := range locks {
			select {
			case <-l.Done():
			case <-timeout:
				t.Fatalf("lock %d: Done is open though its session is dead", i)
			}
			if err := l.Err(); !errors.Is(err, swanlock.ErrLost) {
				t.Fatalf("lock %d: got Err %v, want ErrLost", i, err)
			}
			if err := l.Release(bg); !errors.Is(err, swanlock.ErrLost) {
				t.Fatalf("lock %d: got Release %v, want ErrLost", i, err)
			}
		}
		for i := range locks {
			if held := o.holders(fmt.Sprintf("%s/%d", target, i)); len(held) != 0 {
				t.Fatalf("lock %d: held again, by %v", i, held)
			}
		}
		l, err := p.TryAcquire(bg, target+"/0")
		if err != nil {
			t.Fatalf("after the loss: %v", err)
		}
		if backendOf(l) == pid {
			t.Error("got the dead session again")
		}
		if err := l.Release(bg); err != nil {
			t.Error(err)
		}
	})
}

// Somebody who unlocks behind our back is found out, and only his victim is lost.
func TestPoolFindsWhichLockIsGone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		p := newPool(t, db, pglock.WithHeartbeat(time.Hour))
		target := newTarget(t)
		locks := holdMany(t, p, target, 3)
		must(t, pglock.Sabotage(locks[1]))
		if err := locks[0].Refresh(bg); err != nil {
			t.Errorf("a lock that is held: got %v, want nil", err)
		}
		if err := locks[1].Err(); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("the lock that was taken away: got %v, want ErrLost", err)
		}
		for i, l := range locks {
			if err := l.Release(bg); (err != nil) != (i == 1) {
				t.Errorf("lock %d: got Release %v", i, err)
			}
		}
	})
}

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

// Many locks are spread over sessions, the server's table is never filled, and
// the error says so while new connections are still possible.
func TestPoolTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		srv, err := pgserver.Start(bg, pgserver.WithSetting("max_connections", "100"), pgserver.WithSetting("max_locks_per_transaction", "256"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { srv.Stop() })
		db := openURL(t, driver, srv.URL())
		p := newPool(t, db)
		target := newTarget(t)
		locks := holdMany(t, p, target, 10_000)
		pids := make(map[int]int)
		for _, l := range locks {
			pids[backendOf(l)]++
		}
		if len(pids) > 25 || db.Stats().InUse > 25 {
			t.Errorf("got 10,000 locks on %d sessions and %d connections, want 25 at most", len(pids), db.Stats().InUse)
		}
		if _, err := p.TryAcquire(bg, target+"/more"); !errors.Is(err, pglock.ErrPoolFull) {
			t.Errorf("one more: got %v, want ErrPoolFull", err)
		}
		if err := db.PingContext(bg); err != nil {
			t.Errorf("a new connection: %v", err)
		}
		releaseMany(t, locks)
		if l, err := p.TryAcquire(bg, target+"/more"); err != nil {
			t.Errorf("after the release: %v", err)
		} else {
			l.Release(bg)
		}
	})
}

// A small lock table is not filled.
func TestPoolLeavesRoom(t *testing.T) {
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

func TestPoolClose(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		db := openDB(t, driver)
		before := one[string](t, db, "SHOW idle_session_timeout")
		p, err := pglock.NewPool(db)
		if err != nil {
			t.Fatal(err)
		}
		target := newTarget(t)
		held, err := p.TryAcquire(bg, target, swanlock.WithTTL(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		waiter := make(chan error, 1)
		go func() { _, err := p.Acquire(bg, target); waiter <- err }()
		time.Sleep(20 * time.Millisecond)

		ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
		defer cancel()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a lock held: got %v, want the deadline", err)
		}
		if err := <-waiter; err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("who waited: got %v, want that the pool is closed", err)
		}
		if err := held.Err(); !errors.Is(err, swanlock.ErrReleased) {
			t.Errorf("the lock that was held: got %v, want ErrReleased", err)
		}
		if got := o.holders(target); len(got) != 0 {
			t.Errorf("held after Close, by %v", got)
		}
		if _, err := p.TryAcquire(bg, target); err == nil {
			t.Error("a closed pool acquires")
		}
		if err := p.Close(bg); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		if s := db.Stats(); s.InUse != 0 {
			t.Errorf("got %d connections in use, want 0", s.InUse)
		}
		if got := one[string](t, db, "SHOW idle_session_timeout"); got != before {
			t.Errorf("got idle_session_timeout %s, want %s as before", got, before)
		}
		if err := db.Ping(); err != nil {
			t.Errorf("the caller's *sql.DB: %v", err)
		}
	})
}

// Callers who wait for the same target get it in the order in which they came.
func TestPoolWaitersInOrder(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver))
		target := newTarget(t)
		held, err := p.TryAcquire(bg, target)
		if err != nil {
			t.Fatal(err)
		}
		const waiters = 20
		var wg sync.WaitGroup
		var mu sync.Mutex
		var order []int
		for i := range waiters {
			wg.Go(func() {
				l, err := p.Acquire(bg, target)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				if err := l.Release(bg); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := p.TryAcquire(bg, target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a try while others wait: got %v, want ErrNotAcquired", err)
		}
		if err := held.Release(bg); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("got the order %v, want that of arrival", order)
			}
		}
	})
}

// Readers of a pool share a lock without end to neither each other nor a writer
// elsewhere.
func TestPoolReadersLetAWriterIn(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver))
		target := newTarget(t)
		ctx, cancel := context.WithCancel(bg)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					l, err := p.Acquire(ctx, target, swanlock.WithShared())
					if err != nil {
						continue
					}
					time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
					if err := l.Release(bg); err != nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		conn := dial(t, driver)
		wctx, stop := context.WithTimeout(bg, soon)
		if _, err := conn.ExecContext(wctx, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target))); err != nil {
			t.Errorf("a writer was starved: %v", err)
		}
		stop()
		conn.ExecContext(bg, "SELECT pg_advisory_unlock_all()")
		cancel()
		wg.Wait()
	})
}

// A TTL that nobody refreshes ends on the server too, though the session lives.
func TestPoolFreesWhatExpired(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		p := newPool(t, openDB(t, driver))
		target := newTarget(t)
		kept, err := p.TryAcquire(bg, target+"/kept", swanlock.WithTTL(300*time.Millisecond), swanlock.WithAutoRefresh())
		if err != nil {
			t.Fatal(err)
		}
		left, err := p.TryAcquire(bg, target+"/left", swanlock.WithTTL(300*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		<-left.Done()
		if err := left.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("got %v, want ErrExpired", err)
		}
		eventually(t, "the server frees it", func() bool { return len(o.holders(target+"/left")) == 0 })
		time.Sleep(600 * time.Millisecond)
		if err := kept.Refresh(bg); err != nil {
			t.Errorf("the lock that refreshes itself: %v", err)
		}
		if err := kept.Release(bg); err != nil {
			t.Error(err)
		}
		if err := left.Release(bg); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("the release of the other: got %v, want ErrExpired", err)
		}
	})
}

// Cancellations, deadlines and killed sessions leave nothing held, and never
// give two holders.
func TestPoolStorm(t *testing.T) {
	tries := 5000
	if testing.Short() {
		tries = 500
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		db := openDB(t, driver)
		p := newPool(t, db, pglock.WithHeartbeat(100*time.Millisecond))
		target := newTarget(t)
		warm, err := p.Acquire(bg, target) // so that the first deadlines are not all spent on connecting
		must(t, err)
		must(t, warm.Release(bg))
		var owners [4]atomic.Int32
		var granted, left atomic.Int32
		left.Store(int32(tries))
		stop := make(chan struct{})
		var killer sync.WaitGroup
		killer.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(20+rand.IntN(60)) * time.Millisecond):
				}
				name := fmt.Sprintf("%s/%d", target, rand.IntN(len(owners)))
				for _, pid := range o.holders(name) {
					o.kill(pid)
				}
			}
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					i := rand.IntN(len(owners))
					ctx, cancel := context.WithTimeout(bg, time.Duration(rand.IntN(2000))*time.Microsecond)
					if rand.IntN(2) == 0 {
						ctx, cancel = context.WithCancel(bg)
						time.AfterFunc(time.Duration(rand.IntN(1000))*time.Microsecond, cancel)
					}
					l, err := p.Acquire(ctx, fmt.Sprintf("%s/%d", target, i))
					cancel()
					if err != nil {
						continue
					}
					granted.Add(1)
					if l.Err() == nil && owners[i].Add(1) != 1 && l.Err() == nil {
						// The other may be one whose session was killed and who
						// does not know yet: then the server tells.
						if got := o.holders(fmt.Sprintf("%s/%d", target, i)); len(got) > 1 {
							t.Errorf("two holders: %v", got)
						}
					}
					owners[i].Add(-1)
					l.Release(bg)
				}
			})
		}
		wg.Wait()
		close(stop)
		killer.Wait()
		if granted.Load() == 0 {
			t.Error("nothing was ever granted")
		}
		for i := range owners {
			name := fmt.Sprintf("%s/%d", target, i)
			eventually(t, name+" is free", func() bool { return len(o.holders(name)) == 0 })
		}
		t.Logf("%d of %d granted", granted.Load(), tries)
	})
}

func TestPoolBadInput(t *testing.T) {
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

func holdMany(t testing.TB, p *pglock.Pool, target string, n int) []swanlock.DistributedLock {
	t.Helper()
	locks := make([]swanlock.DistributedLock, n)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < n; i += 16 {
				l, err := p.TryAcquire(bg, fmt.Sprintf("%s/%d", target, i))
				if err != nil {
					t.Errorf("lock %d: %v", i, err)
					return
				}
				locks[i] = l
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return locks
}

func releaseMany(t testing.TB, locks []swanlock.DistributedLock) {
	t.Helper()
	for i, l := range locks {
		if err := l.Release(bg); err != nil {
			t.Errorf("lock %d: %v", i, err)
		}
	}
}
