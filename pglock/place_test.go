package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// leasedWaiters are the ways to wait with a TTL.
var leasedWaiters = map[string]func(t *testing.T, db *sql.DB) swanlock.Locker{
	"Session": func(t *testing.T, db *sql.DB) swanlock.Locker { return pglock.NewSession(connOf(t, db)) },
	"polling": func(t *testing.T, db *sql.DB) swanlock.Locker {
		return pglock.NewSession(connOf(t, db), pglock.WithPolling())
	},
}

// TestLineWaiterCutOff: a waiter that is cut off while in line, without a word
// to the server, stops those behind for as long as the TTL and no longer,
// whether or not the server grants the lock meanwhile.
func TestLineWaiterCutOff(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, waiter := range leasedWaiters {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o, p, target := observe(t), newProxy(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				db := openURL(t, driver, p.url)
				db.SetMaxOpenConns(1)
				cut := waiter(t, db)
				ctx, cancel := context.WithCancel(bg)
				left := waitsFor(t, o, ctx, cut, target, swanlock.WithTTL(time.Second))
				next, _ := newSession(t, driver)
				got := waitsFor(t, o, shortly(t), next, target)
				p.CutOff(t, one[int](t, o.db, `SELECT pid FROM pg_locks WHERE objsubid = 2 AND mode = 'ExclusiveLock' AND granted
					AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint ORDER BY objid LIMIT 1`, pglock.TicketSpace(target)))
				must(t, held.Release(bg))
				must(t, (<-got).get(t).Release(bg))
				cancel()
				p.CloseAll()
				if out := <-left; out.err == nil {
					t.Error("the waiter that was cut off got the lock")
				}
			})
		}
	})
}

// TestPlaceLease: the settings are put back when a waiter with a lease leaves,
// and when the lock that it got is released. In a transaction of the caller's,
// the caller's own settings stay.
func TestPlaceLease(t *testing.T) {
	const setting = "idle_session_timeout"
	show := func(t *testing.T, conn *sql.Conn) string { t.Helper(); return one[string](t, conn, "SHOW "+setting) }
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, conn := newSession(t, driver)
		run(t, conn, "SET "+setting+" = '17min'")

		ctx, cancel := context.WithCancel(bg)
		left := waitsFor(t, o, ctx, s, target, swanlock.WithTTL(time.Minute))
		if got := show(t, conn); got != "1min" {
			t.Errorf("in line: got %s, want the TTL", got)
		}
		cancel()
		if out := <-left; !errors.Is(out.err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, want ErrNotAcquired", out.err)
		}
		o.wantTickets(target, 0)
		if got := show(t, conn); got != "17min" {
			t.Errorf("after the waiter has left: got %s, want what it was", got)
		}

		got := waitsFor(t, o, shortly(t), s, target, swanlock.WithTTL(time.Minute))
		must(t, held.Release(bg))
		next := (<-got).get(t)
		if got := show(t, conn); got != "1min" {
			t.Errorf("with the lock: got %s, want its TTL", got)
		}
		must(t, next.Release(bg))
		if got := show(t, conn); got != "17min" {
			t.Errorf("after the release: got %s, want what it was", got)
		}

		held = acquired(t, holder, target)
		got = waitsFor(t, o, shortly(t), s, target)
		if got := show(t, conn); got != "10s" {
			t.Errorf("in line without a TTL: got %s, want 10s", got)
		}
		must(t, held.Release(bg))
		next = (<-got).get(t)
		if got := show(t, conn); got != "17min" {
			t.Errorf("with a lock without a TTL: got %s, want what it was", got)
		}
		must(t, next.Release(bg))

		held = acquired(t, holder, target)
		tx, err := conn.BeginTx(bg, nil)
		must(t, err)
		run(t, tx, "SET LOCAL "+setting+" = '3min'")
		ctx, cancel = context.WithTimeout(bg, 300*time.Millisecond)
		defer cancel()
		_, err = s.Acquire(ctx, target, swanlock.WithTTL(time.Minute))
		wantIs(t, err, swanlock.ErrNotAcquired)
		must(t, tx.Commit())
		if got := show(t, conn); got != "17min" {
			t.Errorf("after a transaction: got %s, want what it was before", got)
		}
		must(t, held.Release(bg))
	})
}

// TestLineOfClosedConnectionEnds: a place that was left on an idle connection
// of the *sql.DB ends with its lease, which a waiter without a TTL has too.
func TestLineOfClosedConnectionEnds(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]swanlock.Option{"TTL": {swanlock.WithTTL(time.Second)}, "no TTL": nil} {
		t.Run(name, func(t *testing.T) { lineOfClosedConnectionEnds(t, opts) })
	}
}

func lineOfClosedConnectionEnds(t *testing.T, opts []swanlock.Option) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		conn := connOf(t, openDB(t, driver))
		left := waitsFor(t, o, bg, pglock.NewSession(conn), target, opts...)
		next, _ := newSession(t, driver)
		got := waitsFor(t, o, shortly(t), next, target)
		must(t, conn.Close())
		if out := <-left; out.err == nil {
			t.Fatal("got the lock on a closed connection")
		}
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
	})
}

// TestPlaceLeaseEndsNoLock: the lease of a waiter without a TTL is gone as soon as its
// session has a lock that is to last.
func TestPlaceLeaseEndsNoLock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, conn := newSession(t, driver, pglock.WithPolling())
		run(t, conn, "SET idle_session_timeout = '17min'")
		wantTimeout := func(when, want string) {
			t.Helper()
			if got := one[string](t, conn, "SHOW idle_session_timeout"); got != want {
				t.Errorf("%s: the session may be idle for %s, want %s", when, got, want)
			}
		}
		got := waitsFor(t, o, shortly(t), s, target)
		wantTimeout("in line", "10s")
		other := acquired(t, s, newTarget(t))
		wantTimeout("with another lock", "17min")
		if d, ok := other.Deadline(); ok {
			t.Errorf("a lock without a TTL ends at %v", d)
		}
		must(t, other.Release(bg))
		must(t, held.Release(bg))
		lock := (<-got).get(t)
		wantTimeout("with the lock", "17min")
		if d, ok := lock.Deadline(); ok {
			t.Errorf("a lock without a TTL ends at %v", d)
		}
		held = acquired(t, holder, newTarget(t))
		got = waitsFor(t, o, shortly(t), s, held.Info().Target) // beside a lock that is to last
		wantTimeout("in line, with the lock", "17min")
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
		must(t, lock.Release(bg))
	})
}

// TestPlaceLeaseBesideALock: the lease of a session's other lock is there while a
// caller without a TTL waits on it, and after that caller has got its lock.
func TestPlaceLeaseBesideALock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		s, conn := newSession(t, driver, pglock.WithPolling())
		leased := acquired(t, s, newTarget(t), swanlock.WithTTL(time.Minute))
		held := acquired(t, holder, target)
		got := waitsFor(t, o, shortly(t), s, target)
		must(t, held.Release(bg))
		lock := (<-got).get(t)
		wantSettings(t, conn, "with the lock that was waited for", [2]string{"1min", "1min"})

		held = acquired(t, holder, newTarget(t))
		got = waitsFor(t, o, shortly(t), s, held.Info().Target) // beside a lock that is to last
		longer := acquired(t, s, newTarget(t), swanlock.WithTTL(time.Hour))
		wantSettings(t, conn, "in line, with a lock of a longer TTL", [2]string{"1min", "1min"})
		wantCounted(t, conn, "in line, with a lock of a longer TTL", lock.(*pglock.PostgresLock))
		must(t, longer.Release(bg))
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
		must(t, lock.Release(bg))
		must(t, leased.Release(bg))
	})
}

// TestPlaceLeaseInARollback: a rollback of what has put the settings back brings the
// lease of the place in line back, and the lock that was granted counts on it.
func TestPlaceLeaseInARollback(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		holder, _ := newSession(t, driver)
		s, conn := newSession(t, driver, pglock.WithPolling())
		for range 2 { // The second time, the statement that takes the ticket sets the lease.
			held := acquired(t, holder, target)
			got := waitsFor(t, observe(t), shortly(t), s, target)
			run(t, conn, "BEGIN")
			must(t, held.Release(bg))
			lock := (<-got).get(t)
			run(t, conn, "ROLLBACK")
			wantCounted(t, conn, "after a rollback", lock.(*pglock.PostgresLock))
			must(t, lock.Release(bg))
		}
	})
}

// TestWaitsInTheLog: a waiter that is next costs three lines of the server's
// log a second at most, and one that is not next fewer.
func TestWaitsInTheLog(t *testing.T) {
	const long = 6 * time.Second
	eachDriver(t, func(t *testing.T, driver string) {
		for name, waiter := range map[string]func(t *testing.T, db *sql.DB) swanlock.Locker{
			"Session": leasedWaiters["Session"],
			"Pool":    func(t *testing.T, db *sql.DB) swanlock.Locker { return newPool(t, db) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				srv, target := ownServer(t), newTarget(t)
				held := acquired(t, functions{connOf(t, openURL(t, driver, srv.URL()))}, target)
				first := waiter(t, openURL(t, driver, srv.URL()))
				got := make(chan outcome, 2)
				begin := time.Now()
				log := pgtest.LogOf(t, srv)
				go func() { got <- outcomeOf(first.Acquire(bg, target)) }()
				time.Sleep(long)
				next := waiter(t, openURL(t, driver, srv.URL()))
				alone := len(log.Lines())
				if most := int(3 * time.Since(begin).Seconds()); alone == 0 || alone > most {
					t.Errorf("the next waiter: %d lines in %v, want %d at most, and some", alone, time.Since(begin), most)
				}
				begin = time.Now()
				go func() { got <- outcomeOf(next.Acquire(bg, target)) }()
				time.Sleep(long)
				both := len(log.Lines()) - alone
				if most := int(5 * time.Since(begin).Seconds()); both > most {
					t.Errorf("with one behind: %d lines in %v, want %d at most", both, time.Since(begin), most)
				}
				must(t, held.Release(bg))
				must(t, (<-got).get(t).Release(bg))
				must(t, (<-got).get(t).Release(bg))
			})
		}
	})
}

// TestWaitOfAShortDeadlockTimeout: the wait ends before the server looks for a
// deadlock.
func TestWaitOfAShortDeadlockTimeout(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, short := range []string{"200ms", "20ms"} {
			t.Run(short, func(t *testing.T) {
				t.Parallel()
				srv, target := ownServer(t, pgserver.WithSetting("deadlock_timeout", short), pgserver.WithSetting("log_lock_waits", "on")), newTarget(t)
				held := acquired(t, functions{connOf(t, openURL(t, driver, srv.URL()))}, target)
				log := pgtest.LogOf(t, srv)
				for _, l := range []swanlock.Locker{pglock.NewSession(connOf(t, openURL(t, driver, srv.URL()))), newPool(t, openURL(t, driver, srv.URL()))} {
					ctx, cancel := context.WithTimeout(bg, 2*time.Second)
					_, err := l.Acquire(ctx, target)
					cancel()
					wantIs(t, err, swanlock.ErrNotAcquired)
				}
				tx := begin(t, connOf(t, openURL(t, driver, srv.URL())))
				ctx, cancel := context.WithTimeout(bg, 2*time.Second)
				_, err := pglock.AcquireTx(ctx, tx, target)
				cancel()
				wantIs(t, err, swanlock.ErrNotAcquired)
				must(t, tx.Commit())
				for _, line := range log.Lines() {
					if strings.Contains(line, "still waiting") {
						t.Errorf("the server looked for a deadlock: %s", line)
					}
				}
				must(t, held.Release(bg))
			})
		}
	})
}

// TestAcquiredAtIsNoLaterThanTheGrant: that also holds for a wait whose answer
// is late.
func TestAcquiredAtIsNoLaterThanTheGrant(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, waiter := range map[string]func(t *testing.T, db *sql.DB) swanlock.Locker{
			"Session": leasedWaiters["Session"],
			"polling": leasedWaiters["polling"],
			"Pool":    func(t *testing.T, db *sql.DB) swanlock.Locker { return newPool(t, db) },
		} {
			for _, ttl := range []time.Duration{0, time.Minute} {
				t.Run(name+" TTL "+ttl.String(), func(t *testing.T) {
					t.Parallel()
					o, p, target := observe(t), newProxy(t), newTarget(t)
					holder, _ := newSession(t, driver)
					held := acquired(t, holder, target)
					got := waitsFor(t, o, shortly(t), waiter(t, openURL(t, driver, p.url)), target, swanlock.WithTTL(ttl))
					p.delay.Store(int64(300 * time.Millisecond))
					must(t, held.Release(bg))
					var seen time.Time
					for end := time.Now().Add(soon); seen.IsZero() && time.Now().Before(end); {
						if len(o.holders(target)) > 0 {
							seen = one[time.Time](t, o.db, "SELECT clock_timestamp()")
						}
					}
					lock := (<-got).get(t)
					p.delay.Store(0)
					if at := lock.Info().AcquiredAt; at.After(seen) {
						t.Errorf("AcquiredAt is %v after the grant was seen", at.Sub(seen))
					}
					must(t, lock.Release(bg))
				})
			}
		}
	})
}

// TestPoolNeedsOneOfPgBouncer: with one server connection the first lock does not wait
// for a second.
func TestPoolNeedsOneOfPgBouncer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		b, late := pgBouncer(t, "session", "default_pool_size = 1"), watchScheduler(t)
		target := newTarget(t)
		start := time.Now()
		p := newPool(t, openURL(t, driver, b.url))
		must(t, acquired(t, p, target).Release(bg))
		if took := time.Since(start); took > 4*time.Second+late() {
			t.Errorf("the first lock took %v", took)
		}
		must(t, p.Close(bg))
	})
}

// TestPoolWaitsForPgBouncer: while another client has the only server connection, a
// caller waits for as long as its deadline allows, which is longer than a server may
// be silent.
func TestPoolWaitsForPgBouncer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, locker := range map[string]func(t *testing.T, db *sql.DB) swanlock.Locker{
			"Session": leasedWaiters["Session"],
			"Pool":    func(t *testing.T, db *sql.DB) swanlock.Locker { return newPool(t, db) },
		} {
			t.Run("occupied "+name, func(t *testing.T) {
				t.Parallel()
				b := pgBouncer(t, "session", "default_pool_size = 1")
				other := openURL(t, "pgx", b.url)
				one[int](t, other, "SELECT 1") // it keeps the server's connection
				time.AfterFunc(7*time.Second, func() { other.Close() })
				ctx, cancel := context.WithTimeout(bg, time.Minute)
				defer cancel()
				l, err := locker(t, openURL(t, driver, b.url)).TryAcquire(ctx, newTarget(t))
				must(t, err)
				must(t, l.Release(bg))
			})
		}
	})
}
