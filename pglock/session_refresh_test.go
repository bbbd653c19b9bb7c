package pglock_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestRefreshRestarts: a lock that is refreshed in time outlives its TTL many
// times over, at both ends, and one that is not any more does not.
func TestRefreshRestarts(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				const ttl = 800 * time.Millisecond
				o, late := observe(t), watchScheduler(t)
				target := newTarget(t)
				held := acquired(t, by.with(dial(t, driver)), target, swanlock.WithTTL(ttl))
				o.wantHeld(target, held.BackendPID()) // The observer has a connection from now on.
				start := time.Now()
				for time.Since(start) < 3*ttl {
					time.Sleep(ttl / 8)
					if err := held.Refresh(bg); err != nil {
						if late() > ttl/2 {
							t.Skipf("the machine stood still for %v", late())
						}
						t.Fatalf("after %v: %v", time.Since(start), err)
					}
				}
				since := time.Now()
				o.wantHeld(target, held.BackendPID())
				o.inTime(target, ttl, since, late)
				wantIs(t, held.Err(), swanlock.ErrExpired)
			})
		}
	})
}

// TestRefreshAfterRollback: a lock outlives the rollback of the transaction
// that took it, and of a savepoint, but the server's lease does not: Refresh
// sets it again. Fact 6.
func TestRefreshAfterRollback(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for rollback, begin := range map[string]string{"ROLLBACK": "BEGIN", "ROLLBACK TO s": "BEGIN; SAVEPOINT s"} {
			for _, by := range acquirers {
				t.Run(by.name+" "+rollback, func(t *testing.T) {
					o := observe(t)
					conn := dial(t, driver)
					run(t, conn, "SET idle_session_timeout = '5min'")
					run(t, conn, begin)
					target := newTarget(t)
					held := acquired(t, by.with(conn), target, swanlock.WithTTL(time.Minute))
					run(t, conn, rollback)
					o.wantHeld(target, held.BackendPID())
					if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "5min" {
						t.Fatalf("idle_session_timeout is %s after the rollback, want what the caller had", got)
					}
					must(t, held.Refresh(bg))
					if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "1min" {
						t.Errorf("idle_session_timeout is %s after a refresh, want the TTL", got)
					}
					must(t, held.Release(bg))
					o.wantHeld(target)
					if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "5min" {
						t.Errorf("idle_session_timeout is %s after the release, want what the caller had", got)
					}
				})
			}
		}
	})
}

// TestAutoRefresh: asked for, the refresh needs no call, and neither does the
// news of a loss. Not asked for, nothing is sent in the background. Fact 18.
func TestAutoRefresh(t *testing.T) {
	const ttl = 900 * time.Millisecond
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				o, late := observe(t), watchScheduler(t)
				conn := dial(t, driver)
				l, target := by.with(conn), newTarget(t)
				held := acquired(t, l, target, swanlock.WithTTL(ttl), swanlock.WithAutoRefresh())
				time.Sleep(2*ttl + ttl/2)
				if err := held.Err(); err != nil {
					if late() > ttl/2 {
						t.Skipf("the machine stood still for %v", late())
					}
					t.Fatal(err)
				}
				o.wantHeld(target, held.BackendPID())
				must(t, held.Release(bg))
				o.wantHeld(target)

				held = acquired(t, l, target, swanlock.WithTTL(ttl), swanlock.WithAutoRefresh())
				o.kill(held.BackendPID())
				if err := ended(t, held); errors.Is(err, swanlock.ErrExpired) && late() < ttl/4 {
					t.Errorf("the loss was not found before the TTL ended: %v", err)
				}
			})
		}
		t.Run("off", func(t *testing.T) {
			t.Parallel()
			o := observe(t)
			conn := dial(t, driver)
			held := acquired(t, pglock.NewSession(conn), newTarget(t), swanlock.WithTTL(time.Minute))
			const last = "SELECT state_change::text FROM pg_stat_activity WHERE pid = $1::int"
			before := one[string](t, o.db, last, held.BackendPID())
			time.Sleep(500 * time.Millisecond)
			if after := one[string](t, o.db, last, held.BackendPID()); after != before {
				t.Errorf("something was sent at %s", after)
			}
			must(t, held.Release(bg))
		})
	})
}

// TestRefreshFreesTheEnded: a session that one lock keeps alive does not keep
// another whose own TTL has ended: the refresh of the one frees the other, and
// so does its release.
func TestRefreshFreesTheEnded(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, call := range map[string]func(l *pglock.PostgresLock) error{
			"Refresh": func(l *pglock.PostgresLock) error { return l.Refresh(bg) },
			"Release": func(l *pglock.PostgresLock) error { return l.Release(bg) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const ttl = 400 * time.Millisecond
				o := observe(t)
				s, conn := newSession(t, driver)
				other, target := newTarget(t), newTarget(t)
				hung := acquired(t, s, target, swanlock.WithTTL(ttl))
				kept := acquired(t, s, other)
				for hung.Err() == nil {
					one[int](t, conn, "SELECT 1") // the session is not idle
					if err := kept.Refresh(bg); err != nil {
						t.Skipf("the machine stood still: %v", err)
					}
				}
				wantIs(t, hung.Err(), swanlock.ErrExpired)
				must(t, call(kept))
				o.wantHeld(target)
				wantIs(t, hung.Release(bg), swanlock.ErrExpired)
			})
		}
	})
}

// TestRefreshContext: with a context that has ended nothing is sent and nothing
// is lost. Fact 3.
func TestRefreshContext(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			o := observe(t)
			target := newTarget(t)
			held := acquired(t, by.with(dial(t, driver)), target, swanlock.WithTTL(time.Minute))
			ctx, cause := cancelled()
			err := held.Refresh(ctx)
			wantIs(t, err, cause)
			if errors.Is(err, swanlock.ErrLost) || held.Err() != nil {
				t.Errorf("got %v and %v, want a lock that is held", err, held.Err())
			}
			o.wantHeld(target, held.BackendPID())
			must(t, held.Refresh(bg))
			must(t, held.Release(ctx)) // which frees it all the same
			o.wantHeld(target)
		}
	})
}

// TestTTLBounds: what idle_session_timeout cannot hold is refused before
// anything is sent, and its very maximum is not.
func TestTTLBounds(t *testing.T) {
	const most = math.MaxInt32 * time.Millisecond
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		p := newProxy(t)
		conn := connOf(t, openURL(t, driver, p.url))
		s, target := pglock.NewSession(conn), newTarget(t)
		sent := p.trips(t, func() {
			_, err := s.TryAcquire(bg, target, swanlock.WithTTL(most+1))
			if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("got %v for a TTL that is too long, want ErrUnsupported", err)
			}
		})
		if sent > 0 {
			t.Error("a TTL that is too long was sent to the server")
		}
		o.wantHeld(target)
		held := acquired(t, s, target, swanlock.WithTTL(most))
		must(t, held.Refresh(bg))
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "2147483647ms" {
			t.Errorf("idle_session_timeout is %s", got)
		}
		must(t, held.Release(bg))

		// Part of a millisecond more than the holder counts, never less.
		held = acquired(t, s, target, swanlock.WithTTL(time.Minute+time.Microsecond))
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "60001ms" {
			t.Errorf("idle_session_timeout is %s", got)
		}
		must(t, held.Release(bg))
	})
}
