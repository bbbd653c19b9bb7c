package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// newPool is a Pool that is closed with the test, and found empty.
func newPool(t testing.TB, db *sql.DB, opts ...pglock.PoolOption) *pglock.Pool {
	t.Helper()
	others := db.Stats().InUse
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
		for start := time.Now(); db.Stats().InUse > others && time.Since(start) < soon; time.Sleep(time.Millisecond) {
			// What was begun to be opened may just be given back.
		}
		if n := db.Stats().InUse; n > others {
			t.Errorf("got %d connections in use after Close, want %d as before", n, others)
		}
	})
	return p
}

// pidOf is the backend that holds l.
func backendOf(l swanlock.DistributedLock) int { return l.(*pglock.PostgresLock).BackendPID() }

// TestPoolConformance runs the suite that every locker passes, on each kind of
// acquire.
func TestPoolConformance(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for name, with := range map[string]func(*pglock.Pool) swanlock.Locker{
			"plain":             func(p *pglock.Pool) swanlock.Locker { return p },
			"fenced":            func(p *pglock.Pool) swanlock.Locker { return fenced{p} },
			"audited":           func(p *pglock.Pool) swanlock.Locker { return p },
			"audited and alone": func(p *pglock.Pool) swanlock.Locker { return p },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				opts := []pglock.PoolOption{pglock.WithHeartbeat(time.Second)}
				if strings.HasPrefix(name, "audited") {
					opts = append(opts, pglock.WithAudit())
				}
				if name == "audited and alone" {
					opts = append(opts, pglock.WithMaxSessions(1), pglock.WithLogger(nil))
				}
				locktest.Run(t, func(t *testing.T) swanlock.Locker {
					p := newPool(t, pgtest.UsedDB(t, driver), opts...)
					must(t, acquired(t, p, newTarget(t)).Release(bg)) // so that none is late in line for connecting
					return with(p)
				},
					locktest.Pooled("its locks share sessions"), locktest.Fair(), locktest.ShortTTL(600*time.Millisecond),
					locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) { o.kill(backendOf(held)) }))
			})
		}
	})
}

// fenced asks for a fence with each lock that can have one.
type fenced struct{ *pglock.Pool }

func (f fenced) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f.Pool.TryAcquire(ctx, target, withFence(target, opts)...)
}

func (f fenced) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f.Pool.Acquire(ctx, target, withFence(target, opts)...)
}

func withFence(target string, opts []swanlock.Option) []swanlock.Option {
	if o, err := swanlock.NewOptions(target, opts...); err != nil || o.Shared {
		return opts
	}
	return append(slices.Clone(opts), swanlock.WithFence())
}

// One round trip serves all calls that came while the last was under way.
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

// When a session dies, the Done of each of its locks is closed within a
// heartbeat, and of no other lock. No lock is taken again, and the next acquire
// gets another session.
func TestPoolSessionKilled(t *testing.T) {
	const heartbeat = 500 * time.Millisecond
	eachDriver(t, func(t *testing.T, driver string) {
		o, late := observe(t), watchScheduler(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(heartbeat))
		target := newTarget(t)
		locks := holdMany(t, p, target, 1000)
		of := make(map[int][]swanlock.DistributedLock)
		for _, l := range locks {
			of[backendOf(l)] = append(of[backendOf(l)], l)
		}
		if len(of) != 3 {
			t.Fatalf("got 1,000 locks on %d sessions, want 3", len(of))
		}
		for pid, lost := range of {
			o.kill(pid)
			start := time.Now()
			for i, l := range lost {
				if err := ended(t, l); !errors.Is(err, swanlock.ErrLost) {
					t.Fatalf("lock %d: got Err %v, want ErrLost", i, err)
				}
			}
			if took := time.Since(start); took > heartbeat+2*time.Second+late() {
				t.Errorf("the holders were told after %v, want within a heartbeat of %v", took, heartbeat)
			}
			if err := lost[0].Release(bg); !errors.Is(err, swanlock.ErrLost) {
				t.Fatalf("got Release %v, want ErrLost", err)
			}
			delete(of, pid)
			for pid, others := range of {
				if n := o.locksOf(pid); n != len(others) || others[0].Err() != nil {
					t.Errorf("another session has %d locks, want %d, and Err is %v", n, len(others), others[0].Err())
				}
			}
		}
		for i := range locks {
			if held := o.holders(fmt.Sprintf("%s/%d", target, i)); len(held) != 0 {
				t.Fatalf("lock %d: held again, by %v", i, held)
			}
		}
		must(t, acquired(t, p, target+"/0").Release(bg))
	})
}

// An unlock behind the pool's back is found out, and only that lock is lost.
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

func TestPoolClose(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		db := openDB(t, driver)
		const settings = "SELECT current_setting('idle_session_timeout') || current_setting('idle_in_transaction_session_timeout')"
		db.SetMaxOpenConns(2)
		before := one[string](t, db, settings)
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
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), target) {
			t.Errorf("with a lock held: got %v, want the deadline, and what was held", err)
		}
		if err := <-waiter; err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("the waiter: got %v, want that the pool is closed", err)
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
		for range 2 { // both connections
			conn := connOf(t, db)
			if got := one[string](t, conn, settings); got != before {
				t.Errorf("got the settings %s, want %s as before", got, before)
			}
			if n := one[int](t, conn, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%pg_cata' || 'log.%' AND statement <> 'SELECT pg_cata' || 'log.pg_backend_pid()::integer AS pid'"); n != 0 {
				t.Errorf("%d statements are still prepared", n)
			}
			if n := o.locksOf(pidOf(t, conn)); n != 0 {
				t.Errorf("the session has %d locks or tickets", n)
			}
		}
		db.SetMaxOpenConns(0)
		if err := db.Ping(); err != nil {
			t.Errorf("the caller's *sql.DB: %v", err)
		}
	})
}

// Callers that wait for the same target get it in the order in which they came.
func TestPoolWaitersInOrder(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p := observe(t), newPool(t, openDB(t, driver))
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
			pgtest.Eventually(t, "the next waiter has a place", func() bool { return len(o.numbers(target)) == i+1 })
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

// Readers that come again and again keep neither each other nor a writer
// elsewhere from the lock.
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

// A lock whose TTL is not refreshed is unlocked on the server, though the
// session lives.
func TestPoolFreesWhatExpired(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		p := newPool(t, openDB(t, driver))
		target := newTarget(t)
		kept, err := p.TryAcquire(bg, target+"/kept", swanlock.WithTTL(2*time.Second), swanlock.WithAutoRefresh())
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
		time.Sleep(4 * time.Second)
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
