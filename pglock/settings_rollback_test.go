package pglock_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// bothSettings are those that make the lease.
func bothSettings(t testing.TB, conn *sql.Conn) [2]string {
	t.Helper()
	return [2]string{one[string](t, conn, "SHOW idle_session_timeout"), one[string](t, conn, "SHOW idle_in_transaction_session_timeout")}
}

// own is what the caller has set in these tests, and local what it sets with SET
// LOCAL: both are longer than any TTL.
var (
	own   = [2]string{"20min", "21min"}
	local = [2]string{"7min", "8min"}
)

func setOwn(t testing.TB, conn *sql.Conn) {
	t.Helper()
	run(t, conn, "SET idle_session_timeout = '20min'")
	run(t, conn, "SET idle_in_transaction_session_timeout = '21min'")
}

func setLocal(t testing.TB, conn *sql.Conn) {
	t.Helper()
	run(t, conn, "SET LOCAL idle_session_timeout = '7min'")
	run(t, conn, "SET LOCAL idle_in_transaction_session_timeout = '8min'")
}

func wantSettings(t testing.TB, conn *sql.Conn, when string, want [2]string) {
	t.Helper()
	if got := bothSettings(t, conn); got != want {
		t.Errorf("%s: the settings are %v, want %v", when, got, want)
	}
}

// wantCounted checks the rule: the holder counts on no more than the server has
// now.
func wantCounted(t testing.TB, conn *sql.Conn, when string, held *pglock.PostgresLock) {
	t.Helper()
	for _, name := range []string{"idle_session_timeout", "idle_in_transaction_session_timeout"} {
		ms := one[int64](t, conn, "SELECT setting::bigint FROM pg_settings WHERE name = '"+name+"'")
		server := time.Duration(ms) * time.Millisecond
		if server == 0 || server > 5*time.Minute { // the caller's own
			continue
		}
		deadline, ok := held.Deadline()
		if held.Err() == nil && (!ok || time.Until(deadline) > server) {
			t.Fatalf("%s: the server ends the session after %v, and a holder (TTL %v) counts on %v (any end: %v)",
				when, server, held.Info().TTL, time.Until(deadline), ok)
		}
	}
}

// TestLeaseOfARollback: a lease that was changed in a transaction comes back with its
// rollback, or with a part of it. No holder counts on more than the server has then,
// and the first statement outside of the transaction puts everything right.
func TestLeaseOfARollback(t *testing.T) {
	short, long := swanlock.WithTTL(30*time.Second), swanlock.WithTTL(time.Minute)
	lease := func(s string) [2]string { return [2]string{s, s} }
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for name, use := range map[string]func(t *testing.T, conn *sql.Conn, l swanlock.Locker){
				"released in it, with another lock": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					other := acquired(t, l, newTarget(t), long)
					none := acquired(t, l, newTarget(t))
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK")
					wantSettings(t, conn, "after the rollback", lease("30s"))
					wantCounted(t, conn, "after the rollback", other)
					wantCounted(t, conn, "after the rollback", none)
					must(t, none.Refresh(bg))
					wantSettings(t, conn, "after a refresh", lease("1min"))
					if d, ok := other.Deadline(); !ok || time.Until(d) < 31*time.Second {
						t.Errorf("after a refresh the holder counts on %v (any end: %v), want a minute", time.Until(d), ok)
					}
					must(t, other.Release(bg))
					must(t, none.Release(bg))
				},
				"released in it, committed": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					other := acquired(t, l, newTarget(t))
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					run(t, conn, "COMMIT")
					must(t, other.Refresh(bg))
					if d, ok := other.Deadline(); ok {
						t.Errorf("a lock without a TTL ends in %v", time.Until(d))
					}
				},
				"released in it, before the next": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK")
					wantSettings(t, conn, "after the rollback", lease("30s"))
					next := acquired(t, l, newTarget(t))
					wantSettings(t, conn, "with the next lock", own)
					wantCounted(t, conn, "with the next lock", next)
					if d, ok := next.Deadline(); ok {
						t.Errorf("the next lock ends in %v", time.Until(d))
					}
				},
				"released in it, before the next that is refused": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					taken := newTarget(t)
					other, _ := newSession(t, driver)
					acquired(t, other, taken)
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK")
					_, err := l.TryAcquire(bg, taken)
					wantIs(t, err, swanlock.ErrNotAcquired)
					wantSettings(t, conn, "after a try", own)
				},
				"released in it, the next too": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					next := acquired(t, l, newTarget(t))
					longer := acquired(t, l, newTarget(t), long)
					run(t, conn, "ROLLBACK")
					wantCounted(t, conn, "after the rollback", next)
					wantCounted(t, conn, "after the rollback", longer)
					must(t, longer.Refresh(bg))
					wantSettings(t, conn, "after a refresh", lease("1min"))
					must(t, longer.Release(bg))
					wantSettings(t, conn, "after the last lease", own)
					must(t, next.Refresh(bg))
					if _, ok := next.Deadline(); ok {
						t.Error("a lock without a TTL has an end")
					}
				},
				"acquired and released in it": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					run(t, conn, "BEGIN")
					must(t, acquired(t, l, newTarget(t), short).Release(bg))
					run(t, conn, "ROLLBACK")
					wantSettings(t, conn, "after the rollback", own)
				},
				"acquired in it": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					run(t, conn, "BEGIN")
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "ROLLBACK")
					must(t, held.Refresh(bg))
					wantSettings(t, conn, "after a refresh", lease("30s"))
					must(t, held.Release(bg))
					wantSettings(t, conn, "after the release", own)
				},
				"acquired in it, released up to a savepoint": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					run(t, conn, "BEGIN")
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "SAVEPOINT a")
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK TO a")
					next := acquired(t, l, newTarget(t))
					wantCounted(t, conn, "in the transaction", next)
					run(t, conn, "COMMIT")
					wantCounted(t, conn, "after it", next)
					must(t, next.Refresh(bg))
					wantSettings(t, conn, "after a refresh", own)
				},
				"under SET LOCAL": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					run(t, conn, "BEGIN")
					setLocal(t, conn)
					held := acquired(t, l, newTarget(t), short)
					wantSettings(t, conn, "with the lock", lease("30s"))
					must(t, held.Release(bg))
					wantSettings(t, conn, "after the release", local)
					run(t, conn, "COMMIT")
				},
				"under SET LOCAL, held for longer": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					run(t, conn, "BEGIN")
					setLocal(t, conn)
					held := acquired(t, l, newTarget(t), short)
					must(t, held.Refresh(bg))
					wantSettings(t, conn, "after a refresh in it", lease("30s"))
					run(t, conn, "COMMIT")
					wantSettings(t, conn, "after it", own)
					must(t, held.Refresh(bg))
					wantSettings(t, conn, "after a refresh", lease("30s"))
					must(t, held.Release(bg))
				},
				"hidden by SET LOCAL": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK")
					run(t, conn, "BEGIN")
					run(t, conn, "SET LOCAL idle_session_timeout = '20min'")
					run(t, conn, "SET LOCAL idle_in_transaction_session_timeout = '21min'")
					next := acquired(t, l, newTarget(t))
					run(t, conn, "ROLLBACK")
					wantCounted(t, conn, "after it", next)
					must(t, next.Refresh(bg))
					wantSettings(t, conn, "after a refresh", own)
				},
				"changed by the caller": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					must(t, acquired(t, l, newTarget(t), short).Release(bg))
					run(t, conn, "SET idle_session_timeout = '9min'")
					must(t, acquired(t, l, newTarget(t), short).Release(bg))
					wantSettings(t, conn, "after the second", [2]string{"9min", own[1]})
					run(t, conn, "SET idle_session_timeout = '20min'")
				},
				"released in it, and nothing after": func(t *testing.T, conn *sql.Conn, l swanlock.Locker) {
					held := acquired(t, l, newTarget(t), short)
					run(t, conn, "BEGIN")
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK")
				},
			} {
				t.Run(by.name+" "+name, func(t *testing.T) {
					t.Parallel()
					conn := dial(t, driver)
					setOwn(t, conn)
					use(t, conn, by.with(conn))
					s := pglock.NewSession(conn) // any locker's Close will do
					must(t, s.Close(bg))
					if name == "released in it, committed" || name == "hidden by SET LOCAL" {
						return // a lock is held still
					}
					wantSettings(t, conn, "after Close", own)
				})
			}
		}
	})
}

// TestLeaseOfARollbackSeen: nobody else can have a lock whose holder's Err is nil,
// after a rollback has brought back a shorter lease.
func TestLeaseOfARollbackSeen(t *testing.T) {
	const ttl = 3 * time.Second
	eachDriver(t, func(t *testing.T, driver string) {
		for name, begin := range map[string]string{"idle": "SELECT 1", "in the next transaction": "BEGIN"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o := observe(t)
				s, conn := newSession(t, driver)
				targets := []string{newTarget(t), newTarget(t)}
				locks := []*pglock.PostgresLock{
					acquired(t, s, targets[0], swanlock.WithTTL(time.Minute)), acquired(t, s, targets[1]),
				}
				short := acquired(t, s, newTarget(t), swanlock.WithTTL(ttl))
				run(t, conn, "BEGIN")
				must(t, short.Release(bg))
				run(t, conn, "ROLLBACK")
				run(t, conn, begin)
				for i, held := range locks {
					o.wantSoonFree(targets[i])
					wantIs(t, held.Err(), swanlock.ErrExpired)
				}
			})
		}
		t.Run("the next", func(t *testing.T) {
			t.Parallel()
			o := observe(t)
			s, conn := newSession(t, driver)
			short := acquired(t, s, newTarget(t), swanlock.WithTTL(ttl))
			run(t, conn, "BEGIN")
			must(t, short.Release(bg))
			run(t, conn, "ROLLBACK")
			target := newTarget(t)
			next := acquired(t, s, target)
			time.Sleep(2 * ttl)
			o.wantHeld(target, next.BackendPID())
			must(t, next.Release(bg))
		})
	})
}

// TestLeaseOfAnyTransaction does at random what a caller may do, and looks at the rule
// after each step.
func TestLeaseOfAnyTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				seeds := []uint64{5389895805385697488, 4803978345163074077, 16326780863753917860, 10210788340233621559} // that were once wrong
				for range 12 {
					seeds = append(seeds, rand.Uint64())
				}
				for _, seed := range seeds {
					anyTransaction(t, dial(t, driver), by, seed)
				}
			})
		}
	})
}

func anyTransaction(t *testing.T, conn *sql.Conn, by acquirer, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	setOwn(t, conn)
	l := by.with(conn)
	var locks []*pglock.PostgresLock
	var log []string
	in, savepoints := false, 0
	do := func(what string) {
		log = append(log, what)
		run(t, conn, what)
	}
	when := func() string { return fmt.Sprintf("seed %d: %q", seed, log) }
	for range 30 {
		switch n := r.IntN(12); {
		case n == 0 && !in:
			do("BEGIN")
			in, savepoints = true, 0
		case n == 0:
			do([]string{"COMMIT", "ROLLBACK"}[r.IntN(2)])
			in = false
		case n == 1 && in:
			savepoints++
			do(fmt.Sprintf("SAVEPOINT s%d", savepoints))
		case n == 2 && in && savepoints > 0:
			savepoints = 1 + r.IntN(savepoints)
			do(fmt.Sprintf("ROLLBACK TO s%d", savepoints))
		case n == 3 && in:
			setLocal(t, conn)
			log = append(log, "SET LOCAL")
		case n < 7:
			ttl := []time.Duration{0, 90 * time.Second, 2 * time.Minute, 3 * time.Minute}[r.IntN(4)]
			log = append(log, fmt.Sprintf("acquire %v", ttl))
			locks = append(locks, acquired(t, l, newTarget(t), swanlock.WithTTL(ttl)))
		case n == 7 && len(locks) > 0:
			log = append(log, "refresh")
			must(t, locks[r.IntN(len(locks))].Refresh(bg))
		case n > 7 && len(locks) > 0:
			i := r.IntN(len(locks))
			log = append(log, fmt.Sprintf("release %v", locks[i].Info().TTL))
			must(t, locks[i].Release(bg))
			locks = append(locks[:i], locks[i+1:]...)
		}
		for _, held := range locks {
			wantCounted(t, conn, when(), held)
		}
	}
	if in {
		do("ROLLBACK")
	}
	for _, held := range locks {
		must(t, held.Release(bg))
	}
	s := pglock.NewSession(conn)
	must(t, s.Close(bg))
	wantSettings(t, conn, when(), own)
}

// TestSetLocalOfAFailedAcquire: what SET LOCAL had set when an acquire failed before it
// asked for the lock is not taken for the caller's own settings by a later one.
func TestSetLocalOfAFailedAcquire(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		conn := dial(t, driver, newDatabase(t))
		audited, l := pglock.NewSession(conn, pglock.WithAudit()), pglock.NewSession(conn)
		setOwn(t, conn)
		run(t, conn, "BEGIN")
		setLocal(t, conn)
		_, err := audited.TryAcquire(bg, newTarget(t))
		wantIs(t, err, pglock.ErrAudit) // There is no table.
		run(t, conn, "COMMIT")
		run(t, conn, "BEGIN")
		setLocal(t, conn)
		held := acquired(t, l, newTarget(t), swanlock.WithTTL(30*time.Second))
		run(t, conn, "COMMIT")
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		wantSettings(t, conn, "after the release", own)
	})
}
