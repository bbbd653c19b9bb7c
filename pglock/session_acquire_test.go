package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestSessionAcquireAfterRelease: a waiter has the lock soon after it is free, and not before.
func TestSessionAcquireAfterRelease(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				type answer struct {
					l   swanlock.DistributedLock
					err error
				}
				got := make(chan answer, 1)
				waiter := by.with(dial(t, driver))
				go func() {
					l, err := waiter.Acquire(shortly(t), target)
					got <- answer{l, err}
				}()
				select {
				case a := <-got:
					t.Fatalf("Acquire returned (%v, %v) while the lock was held", a.l, a.err)
				case <-time.After(300 * time.Millisecond):
				}
				late := watchScheduler(t)
				must(t, held.Release(bg))
				freed := time.Now()
				a := <-got
				must(t, a.err)
				if took := time.Since(freed); took > 800*time.Millisecond+late() {
					t.Errorf("the waiter had the lock %v after it was free", took)
				}
				o.wantHeld(target, a.l.(*pglock.PostgresLock).BackendPID())
				must(t, a.l.Release(bg))
			})
		}
	})
}

// TestSessionAcquireContextEnds: when the context ends, so does the wait, whatever the
// driver calls it, and the lock is not taken after that, when it is free.
// Facts 3 and 17.
func TestSessionAcquireContextEnds(t *testing.T) {
	cause := errors.New("changed my mind")
	ends := map[string]struct {
		ctx  func() (context.Context, context.CancelFunc)
		want []error
	}{
		"deadline": {func() (context.Context, context.CancelFunc) { return context.WithTimeout(bg, 100*time.Millisecond) },
			[]error{context.DeadlineExceeded}},
		"cause": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(bg, 100*time.Millisecond, cause)
		}, []error{cause}},
		"cancel": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(bg)
			time.AfterFunc(100*time.Millisecond, cancel)
			return ctx, cancel
		}, []error{context.Canceled}},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for name, end := range ends {
				t.Run(by.name+" "+name, func(t *testing.T) {
					t.Parallel()
					o, target, late := observe(t), newTarget(t), watchScheduler(t)
					holder, _ := newSession(t, driver)
					held := acquired(t, holder, target)
					conn := dial(t, driver)
					pid := pidOf(t, conn)
					start := time.Now()
					ctx, cancel := end.ctx()
					defer cancel()
					_, err := by.with(conn).Acquire(ctx, target)
					wantIs(t, err, swanlock.ErrNotAcquired)
					wantIs(t, err, end.want...)
					if errors.Is(err, swanlock.ErrAlreadyHeld) {
						t.Errorf("got %v", err)
					}
					if took := time.Since(start); took < 100*time.Millisecond || took > 800*time.Millisecond+late() {
						t.Errorf("gave up after %v, want 100 ms", took)
					}
					o.wantHeld(target, held.BackendPID())
					must(t, held.Release(bg))
					time.Sleep(350 * time.Millisecond) // longer than between two tries
					o.wantHeld(target)
					if got := pidOf(t, conn); got != pid {
						t.Errorf("giving up cost the session")
					}
				})
			}
		}
	})
}

// TestSessionEndedContextSendsNothing: with a context that has ended nothing is sent: an already
// cancelled query would cost the session, or be granted. Fact 21.
func TestSessionEndedContextSendsNothing(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newProxy(t)
		for _, by := range acquirers {
			conn := connOf(t, openURL(t, driver, p.url))
			pid := pidOf(t, conn)
			l := by.with(conn)
			must(t, acquired(t, l, newTarget(t)).Release(bg))
			ctx, cause := cancelled()
			trips := p.trips(t, func() {
				_, err := l.TryAcquire(ctx, newTarget(t))
				wantIs(t, err, swanlock.ErrNotAcquired, cause)
				_, err = l.Acquire(ctx, newTarget(t))
				wantIs(t, err, swanlock.ErrNotAcquired, cause)
			})
			if trips != 0 {
				t.Errorf("%s: %d round trips with a dead context", by.name, trips)
			}
			if got := pidOf(t, conn); got != pid {
				t.Errorf("%s: a dead context cost the session", by.name)
			}
		}
	})
}

// TestSessionContextEndsAtAnyMoment: whenever a context ends, it costs the caller's session
// nothing, and leaves nothing. Facts 1, 21 and 22.
func TestSessionContextEndsAtAnyMoment(t *testing.T) {
	tries := 1000
	if testing.Short() {
		tries = 200
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for _, by := range acquirers {
			conn, target := dial(t, driver), newTarget(t)
			pid := pidOf(t, conn)
			l := by.with(conn)
			granted := 0
			for range tries / len(acquirers) {
				ctx, cancel := context.WithCancel(bg)
				time.AfterFunc(rand.N(time.Millisecond), cancel)
				held, err := l.TryAcquire(ctx, target)
				if err == nil {
					granted++
					must(t, held.Release(ctx))
				} else {
					wantIs(t, err, swanlock.ErrNotAcquired, context.Canceled)
				}
				o.wantHeld(target)
				cancel()
			}
			t.Logf("%s: %d granted", by.name, granted)
			if got := pidOf(t, conn); got != pid {
				t.Errorf("%s: backend %d became %d", by.name, pid, got)
			}
		}
	})
}

// TestSessionAcquirePinsSnapshotBriefly: a waiter holds a snapshot, which holds
// back vacuum, for less than a second, and is not in the server's queue between
// two waits, where a holder that builds an index concurrently would deadlock
// with its waiters. Facts 7 and 8.
func TestSessionAcquirePinsSnapshotBriefly(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, holderConn := newSession(t, driver)
		held := acquired(t, holder, target)
		waiter, waiterConn := newSession(t, driver)
		pid := pidOf(t, waiterConn)
		ctx, cancel := context.WithCancel(bg)
		waited := make(chan error, 1)
		go func() {
			_, err := waiter.Acquire(ctx, target)
			waited <- err
		}()

		waits := 0
		for start := time.Now(); time.Since(start) < 1500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
			var age float64
			var wait string
			must(t, o.db.QueryRowContext(bg, `SELECT COALESCE(wait_event_type, ''),
				COALESCE(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8
				FROM pg_stat_activity WHERE pid = $1::int`, pid).Scan(&wait, &age))
			if wait == "Lock" {
				waits++
			}
			if age > 0.95 {
				t.Fatalf("the waiter's transaction is %v s old", age)
			}
		}
		if waits == 0 {
			t.Error("the waiter was never seen to wait in the server")
		}

		table := fmt.Sprintf("built_%d", rand.Uint64())
		run(t, holderConn, "CREATE TABLE "+table+" (x int)")
		defer run(t, holderConn, "DROP TABLE "+table)
		run(t, holderConn, "CREATE INDEX CONCURRENTLY ON "+table+" (x)")
		cancel()
		wantIs(t, <-waited, swanlock.ErrNotAcquired, context.Canceled)
		must(t, held.Release(bg))
	})
}

// TestSessionAcquireLetsOthersUseIt: others use the session while an Acquire on it waits.
func TestSessionAcquireLetsOthersUseIt(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, conn := newSession(t, driver)
		got := make(chan error, 1)
		go func() {
			l, err := s.Acquire(bg, target)
			if err == nil {
				err = l.Release(bg)
			}
			got <- err
		}()
		ctx, cancel := context.WithTimeout(bg, 3*soon)
		defer cancel()
		for _, l := range []swanlock.Locker{s, pglock.NewSession(conn), functions{conn}} {
			for range 20 {
				other, err := l.TryAcquire(ctx, newTarget(t))
				must(t, err)
				must(t, other.Refresh(ctx))
				must(t, other.Release(ctx))
			}
		}
		select {
		case err := <-got:
			t.Fatalf("the waiter came back while the lock was held: %v", err)
		default:
		}
		must(t, held.Release(bg))
		must(t, <-got)
	})
}

// TestSessionManyGoroutines use one connection at once, through two Sessions and the
// functions, with whatever calls there are. They take turns: no statement of
// ours is sent while another, or its rows, are open. Fact 23.
func TestSessionManyGoroutines(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 8
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		conn := connOf(t, openURL(t, "strict "+driver, server(t).URL()))
		pid := pidOf(t, conn)
		var st *strict
		must(t, conn.Raw(func(c any) error { st = c.(*strict); return nil }))
		lockers := []swanlock.Locker{pglock.NewSession(conn), pglock.NewSession(conn, pglock.WithAudit()), functions{conn}}
		targets := []string{newTarget(t), newTarget(t), newTarget(t)}
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				for range rounds {
					target := targets[rand.IntN(len(targets))]
					ctx, cancel := context.WithTimeout(bg, rand.N(50*time.Millisecond))
					held, err := lockers[i%len(lockers)].TryAcquire(ctx, target, swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
					if err != nil {
						if !errors.Is(err, swanlock.ErrNotAcquired) {
							t.Errorf("TryAcquire: %v", err)
						}
						cancel()
						continue
					}
					var calls sync.WaitGroup
					calls.Go(func() { held.Refresh(ctx) })
					calls.Go(func() { held.Refresh(bg) })
					calls.Go(func() { _ = held.Info(); _ = held.Err() })
					calls.Go(func() {
						if err := held.Release(ctx); err != nil {
							t.Errorf("Release: %v", err)
						}
					})
					calls.Go(func() { held.Release(bg) })
					calls.Wait()
					wantEnded(t, held)
					cancel()
				}
			})
		}
		group.Wait()
		for _, target := range targets {
			o.wantHeld(target)
		}
		if got := pidOf(t, conn); got != pid {
			t.Errorf("backend %d became %d", pid, got)
		}
		if n := st.Overlaps.Load(); n > 0 {
			t.Errorf("%d statements were sent while another was open", n)
		}
	})
}

func wantEnded(t *testing.T, held swanlock.DistributedLock) {
	select {
	case <-held.Done():
	default:
		t.Error("Done is open after Release")
	}
	if !errors.Is(held.Err(), swanlock.ErrReleased) {
		t.Errorf("Err is %v after Release", held.Err())
	}
}
