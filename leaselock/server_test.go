package leaselock_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/leaselock"
)

// TestPgBouncer: in transaction mode, where each statement may be run by another
// server connection, all is as without a pooler, also with fewer server
// connections than locks.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	server := server(t)
	pooled := pgbouncer(t, server, "default_pool_size = 3")
	for _, driver := range append(drivers, "pgx-simple") {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			conforms(t, open(t, driver, pooled, nil), open(t, "pq", server.URL(), nil))
		})
	}
}

// pgbouncer starts a PgBouncer in transaction mode with a setting, and returns its
// address. Without the program the test is skipped.
func pgbouncer(t *testing.T, srv *pgserver.Server, setting string) (address string) {
	t.Helper()
	b, err := srv.PgBouncer(bg, "transaction", setting)
	if errors.Is(err, pgserver.ErrNoPgBouncer) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() {
		if log := b.Stop(); t.Failed() {
			t.Logf("PgBouncer said:\n%s", log)
		}
	})
	return b.URL()
}

// ownServer starts a server that the test may break.
func ownServer(t *testing.T, opts ...pgserver.Option) *pgserver.Server {
	t.Helper()
	srv, err := pgserver.Start(bg, opts...)
	must(t, err)
	t.Cleanup(func() { srv.Stop() })
	migrate(t, open(t, "pq", srv.URL(), nil))
	return srv
}

func signal(t *testing.T, srv *pgserver.Server, sig os.Signal) {
	t.Helper()
	p, err := os.FindProcess(srv.PID())
	must(t, err)
	must(t, p.Signal(sig))
}

// synchronous starts a standby of srv, for which each commit waits from now on.
func synchronous(t *testing.T, srv *pgserver.Server, on *sql.DB) *pgserver.Server {
	t.Helper()
	standby, err := srv.Standby(bg)
	must(t, err)
	t.Cleanup(func() { standby.Stop() })
	_, err = on.Exec("ALTER SYSTEM SET synchronous_standby_names = '*'")
	must(t, err)
	one[bool](t, on, "SELECT pg_reload_conf()")
	eventually(t, "replication is synchronous", func() bool {
		return one[int](t, on, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
	})
	return standby
}

// TestFailover: with synchronous replication a lock is held on the standby as
// well. When that takes over, its holder has it still, nobody else gets it, and
// the fence of the next is higher. Two servers take long to start on a busy disk,
// so one failover is both drivers'.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := ownServer(t)
	old := open(t, "pq", primary.URL(), nil)
	standby := synchronous(t, primary, old)
	promoted := open(t, "pq", standby.URL(), nil)
	_, err := newLocker(t, promoted).TryAcquire(bg, "other")
	if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("on the standby: got %v, want an error that is not ErrNotAcquired", err)
	}

	var net network // leads to the one or the other, as a name in DNS does
	checks := make(map[string]func(t *testing.T))
	for _, driver := range drivers {
		l := newLocker(t, open(t, driver, primary.URL(), &net), leaselock.WithClockDrift(time.Second))
		held := mustTry(t, l, driver, swanlock.WithTTL(5*time.Minute), swanlock.WithFence())
		short := mustTry(t, l, driver+"/short", swanlock.WithTTL(10*time.Second))
		waited := make(chan swanlock.DistributedLock, 1)
		go func() {
			next, err := l.Acquire(bg, driver+"/short") // through it all
			if err != nil {
				t.Error(err)
			}
			waited <- next
		}()
		checks[driver] = func(t *testing.T) {
			eventually(t, "the holder has it still", func() bool { return held.Refresh(bg) == nil })
			_, err := l.TryAcquire(bg, driver)
			is(t, err, swanlock.ErrNotAcquired)
			must(t, held.Release(bg))
			next := mustTry(t, l, driver, swanlock.WithFence())
			if next.Info().Fence <= held.Info().Fence {
				t.Errorf("fence %d on the new primary, after %d on the old", next.Info().Fence, held.Info().Fence)
			}
			must(t, next.Release(bg))
			if next := <-waited; next != nil {
				is(t, short.Err(), swanlock.ErrExpired)
				must(t, next.Release(bg))
			}
		}
	}
	signal(t, primary, syscall.SIGQUIT) // immediate
	one[bool](t, promoted, "SELECT pg_promote()")
	to := standby.Addr()
	net.to.Store(&to) // A standby would refuse the waiters.
	for driver, check := range checks {
		t.Run(driver, check)
	}
}

// TestRestart: locks outlive the server, also if it crashes.
func TestRestart(t *testing.T) {
	t.Parallel()
	srv := ownServer(t, pgserver.WithSetting("fsync", "on"))
	for _, driver := range drivers {
		for _, mode := range []pgserver.Mode{pgserver.Fast, pgserver.Immediate} {
			l := newLocker(t, open(t, driver, srv.URL(), nil))
			held := mustTry(t, l, "x", swanlock.WithTTL(time.Minute), swanlock.WithFence())
			must(t, srv.Restart(bg, mode))
			eventually(t, "it is refreshed", func() bool { return held.Refresh(bg) == nil })
			_, err := l.TryAcquire(bg, "x")
			is(t, err, swanlock.ErrNotAcquired)
			must(t, held.Release(bg))
			next := mustTry(t, l, "x", swanlock.WithFence())
			if next.Info().Fence <= held.Info().Fence {
				t.Errorf("fence %d after %d and a restart", next.Info().Fence, held.Info().Fence)
			}
			must(t, next.Release(bg))
		}
	}
}

// TestCrash: what a process that was killed held is free after its TTL, by the
// server's clock.
func TestCrash(t *testing.T) {
	t.Parallel()
	const target = "crash"
	l := newLocker(t, open(t, "pq", server(t).URL(), nil))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crasher+"="+server(t).URL())
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	eventually(t, "the child holds it", func() bool {
		held, err := l.TryAcquire(bg, target)
		if err == nil {
			must(t, held.Release(bg))
		}
		return errors.Is(err, swanlock.ErrNotAcquired)
	})
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	next, err := l.Acquire(bg, target)
	must(t, err)
	must(t, next.Release(bg))
}

// crash is what the process of TestCrash does: it takes the lock, and keeps it.
func crash(address string) error {
	pool, err := sql.Open("postgres", address)
	if err != nil {
		return err
	}
	l, err := leaselock.New(pool)
	if err != nil {
		return err
	}
	held, err := l.Acquire(bg, "crash", swanlock.WithTTL(2*time.Second), swanlock.WithAutoRefresh())
	if err != nil {
		return err
	}
	<-held.Done()
	return held.Release(bg)
}

// TestSilence: a holder that the network has cut off learns it at its deadline,
// which is before anybody else can have the lock. Its calls end, and what they
// left is free after a TTL.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			const ttl = 10 * time.Second
			var net network
			t.Cleanup(net.end)
			cut, whole := newLocker(t, open(t, driver, server(t).URL(), &net)), newLocker(t, open(t, driver, server(t).URL(), nil))
			held := mustTry(t, cut, t.Name(), swanlock.WithTTL(ttl), swanlock.WithAutoRefresh())
			var over atomic.Bool
			go func() { <-held.Done(); over.Store(true) }()
			net.silent.Store(true)
			ctx, cancel := context.WithTimeout(bg, 200*time.Millisecond)
			defer cancel()
			_, err := cut.TryAcquire(ctx, t.Name()+"/other")
			is(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
			is(t, held.Refresh(ctx), context.DeadlineExceeded)
			must(t, held.Err())
			next, err := whole.Acquire(bg, t.Name())
			must(t, err)
			if held.Err() == nil {
				t.Error("another holds it, and Err is nil")
			}
			is(t, held.Err(), swanlock.ErrExpired)
			is(t, held.Release(bg), swanlock.ErrExpired)
			must(t, next.Release(bg))
			must(t, mustTry(t, whole, t.Name()+"/other").Release(bg))
			eventually(t, "Done is closed", over.Load)
		})
	}
}

// TestHang: a server that stands still ends calls when their contexts end, and
// the holder learns at its deadline. A lost answer leaves nothing behind: the next
// call of the target does not wait for a TTL.
func TestHang(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	for _, driver := range drivers {
		l := newLocker(t, open(t, driver, srv.URL(), nil))
		held := mustTry(t, l, "x", swanlock.WithTTL(5*time.Second))
		resume, err := srv.Pause()
		must(t, err)
		ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
		_, err = l.TryAcquire(ctx, "y", swanlock.WithTTL(time.Hour))
		cancel()
		is(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		<-held.Done()
		is(t, held.Err(), swanlock.ErrExpired)
		resume()
		is(t, held.Release(bg), swanlock.ErrExpired)
		for _, target := range []string{"x", "y"} {
			next, err := l.Acquire(bg, target)
			must(t, err)
			must(t, next.Release(bg))
		}
	}
}

// TestTrips: an acquire, a refresh and a release are one round trip each.
func TestTrips(t *testing.T) {
	for _, driver := range append(drivers, "pgx-simple") {
		var net network
		db := open(t, driver, server(t).URL(), &net)
		l := newLocker(t, db)
		must(t, mustTry(t, l, t.Name()).Release(bg))
		before := net.trips.Load()
		held := mustTry(t, l, t.Name())
		must(t, held.Refresh(bg))
		_, err := l.TryAcquire(bg, t.Name())
		is(t, err, swanlock.ErrNotAcquired)
		must(t, held.Release(bg))
		if got := net.trips.Load() - before; got != 4 {
			t.Errorf("%s: %d round trips for an acquire, a refresh, a refusal and a release, want 4", driver, got)
		}
	}
}
