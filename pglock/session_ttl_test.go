package pglock_test

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// inTime fails unless the target is free within its TTL and half a second
// after since, which is when the holder's last statement had been answered. It
// returns when the target was seen free.
func (o observer) inTime(target string, ttl time.Duration, since time.Time, late func() time.Duration) time.Time {
	o.t.Helper()
	o.wantSoonFree(target)
	now := time.Now()
	if took, most := now.Sub(since), ttl+1500*time.Millisecond+late(); took > most { // late does not see that the server is
		o.t.Errorf("free after %v, want at most %v", took, most)
	}
	return now
}

// TestLeaseEndedByServer: a holder that hangs keeps nothing. The server frees its
// lock within the TTL, inside a transaction too, and the holder knew before
// anybody else could have it. Fact 10.
func TestLeaseEndedByServer(t *testing.T) {
	const ttl = 1200 * time.Millisecond
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for where, sql := range map[string]struct{ before, after string }{
				"idle":                             {"SELECT 1", "SELECT 1"},
				"taken in a transaction":           {"BEGIN", "SELECT 1"},
				"in a transaction":                 {"SELECT 1", "BEGIN"},
				"in a transaction that has failed": {"SELECT 1", "BEGIN; SELECT 1/0"},
			} {
				t.Run(by.name+" "+where, func(t *testing.T) {
					t.Parallel()
					o, late := observe(t), watchScheduler(t)
					conn := dial(t, driver)
					target := newTarget(t)
					run(t, conn, sql.before)
					held := acquired(t, by.with(conn), target, swanlock.WithTTL(ttl))
					conn.ExecContext(bg, sql.after) // one of them fails
					since := time.Now()
					o.wantHeld(target, held.BackendPID())

					// The next holder comes as soon as the server lets it.
					next := acquirers[0].with(dial(t, driver))
					l, err := next.Acquire(shortly(t), target)
					must(t, err)
					if took, most := time.Since(since), ttl+1500*time.Millisecond+late(); took > most { // late does not see that the server is
						t.Errorf("the next holder had the lock after %v, want at most %v", took, most)
					}
					wantIs(t, held.Err(), swanlock.ErrExpired, swanlock.ErrLost)
					wantIs(t, ended(t, held), swanlock.ErrExpired)
					eventually(t, "the holder's backend has ended", func() bool { return !o.alive(held.BackendPID()) })
					wantIs(t, held.Refresh(bg), swanlock.ErrExpired)
					wantIs(t, held.Release(bg), swanlock.ErrExpired)
					o.wantHeld(target, l.(*pglock.PostgresLock).BackendPID())
					must(t, l.Release(bg))
				})
			}
		}
	})
}

// TestLockDoneNeedsNoCall: the end of the TTL closes Done by itself.
func TestLockDoneNeedsNoCall(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s, _ := newSession(t, driver)
		late := watchScheduler(t)
		const ttl = 300 * time.Millisecond
		start := time.Now()
		held := acquired(t, s, newTarget(t), swanlock.WithTTL(ttl))
		granted := time.Since(start)
		ended(t, held)
		if took := time.Since(start); took < ttl || took > max(ttl, granted)+2*time.Second+late() {
			t.Errorf("Done was closed after %v, want after %v", took, ttl)
		}
		wantIs(t, held.Err(), swanlock.ErrExpired)
	})
}

// TestLeaseIsTheShortest: the server's lease is the session's, so its locks share
// the shortest: one that ends it ends them all.
func TestLeaseIsTheShortest(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		const ttl = 500 * time.Millisecond
		o, late := observe(t), watchScheduler(t)
		s, _ := newSession(t, driver)
		targets := []string{newTarget(t), newTarget(t), newTarget(t), newTarget(t)}
		locks := []*pglock.PostgresLock{
			acquired(t, s, targets[0], swanlock.WithTTL(time.Minute)),
			acquired(t, s, targets[1], swanlock.WithTTL(ttl)),
			acquired(t, s, targets[2]),
			acquired(t, s, targets[3], swanlock.WithTTL(time.Hour)),
		}
		since := time.Now()
		for i, held := range locks {
			o.inTime(targets[i], ttl, since, late)
			wantIs(t, held.Err(), swanlock.ErrExpired)
		}

		// Without the short one, the others live on.
		s, _ = newSession(t, driver)
		long := acquired(t, s, targets[0], swanlock.WithTTL(time.Minute))
		short := acquired(t, s, targets[1], swanlock.WithTTL(ttl))
		must(t, short.Release(bg))
		time.Sleep(2 * ttl)
		must(t, long.Refresh(bg))
		o.wantHeld(targets[0], long.BackendPID())
	})
}

// TestLeaseSettingsComeBack: while there are leases, the settings are the shortest
// of them. They are the caller's own again, verbatim, with the last release, in
// whatever order the locks come and go.
func TestLeaseSettingsComeBack(t *testing.T) {
	settings := func(t *testing.T, conn *sql.Conn) [2]string {
		return [2]string{one[string](t, conn, "SHOW idle_session_timeout"), one[string](t, conn, "SHOW idle_in_transaction_session_timeout")}
	}
	ttls := []time.Duration{90 * time.Second, 0, 30 * time.Second, 30 * time.Second}
	shown := map[time.Duration]string{90 * time.Second: "90s", 30 * time.Second: "30s"}
	var orders [][]int
	for i := range 256 {
		order := []int{i & 3, i >> 2 & 3, i >> 4 & 3, i >> 6}
		if sorted := slices.Sorted(slices.Values(order)); slices.Equal(sorted, []int{0, 1, 2, 3}) {
			orders = append(orders, order)
		}
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				conn := dial(t, driver)
				own := [2]string{"20min", "1500ms"}
				run(t, conn, "SELECT set_config('idle_session_timeout', $1, false), set_config('idle_in_transaction_session_timeout', $2, false)", own[0], own[1])
				l := by.with(conn)
				for n, release := range orders {
					take := orders[(n*7+3)%len(orders)]
					held := map[int]*pglock.PostgresLock{}
					check := func(what string) {
						t.Helper()
						want := own
						shortest := time.Duration(1<<63 - 1)
						for i := range held {
							if ttls[i] > 0 && ttls[i] < shortest {
								shortest = ttls[i]
								want = [2]string{shown[shortest], shown[shortest]}
							}
						}
						if got := settings(t, conn); got != want {
							t.Fatalf("taken in order %v, released in %v, after %s: the settings are %v, want %v", take, release, what, got, want)
						}
					}
					for _, i := range take {
						held[i] = acquired(t, l, newTarget(t), swanlock.WithTTL(ttls[i]))
						check("a grant")
					}
					must(t, held[release[3]].Refresh(bg))
					check("a refresh")
					for _, i := range release {
						must(t, held[i].Release(bg))
						delete(held, i)
						check("a release")
					}
				}
			})
		}
	})
}
