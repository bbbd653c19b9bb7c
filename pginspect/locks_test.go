package pginspect_test

import (
	"database/sql"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

// of returns the locks of a target, by its key, in the database on is connected to.
func of(t testing.TB, on pginspect.DB, target string) (found []pginspect.Lock) {
	t.Helper()
	locks, err := pginspect.Locks(bg, on)
	must(t, err)
	database := one[string](t, on, "SELECT current_database()")
	for _, l := range locks {
		if l.Key == int64(swanlock.KeyOf(target)) && l.Database == database && l.Kind != pginspect.Foreign {
			found = append(found, l)
		}
	}
	return found
}

// TestAuditedLock: of an audited lock everything is known.
func TestAuditedLock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, "")
		target := newTarget(t)
		_, held := acquire(t, on, target, audited, swanlock.WithOwner("me"), swanlock.WithTTL(time.Minute))
		found := of(t, on, target)
		if len(found) != 1 {
			t.Fatalf("got %d locks, want 1", len(found))
		}
		l := found[0]
		want(t, "kind", l.Kind, pginspect.Audited)
		want(t, "target", l.Target, target)
		want(t, "owner", l.Owner, "me")
		want(t, "fence", l.Fence, held.Info().Fence)
		want(t, "TTL", l.TTL, time.Minute)
		want(t, "pid", l.PID, held.(*pglock.PostgresLock).BackendPID())
		want(t, "shared", l.Shared, false)
		if d, exact := l.HeldFor(); !exact || d < 0 || d > patience {
			t.Errorf("held for %v, exactly: %v", d, exact)
		}
		if left, ok := l.TTLLeft(); !ok || left > time.Minute || left < time.Minute-patience {
			t.Errorf("TTL left: %v, %v", left, ok)
		}
		if l.Started.IsZero() || l.Role == "" || l.State != "idle" || l.AuditID == 0 {
			t.Errorf("the session is %+v", l.Session)
		}
		text, err := json.Marshal(l)
		must(t, err)
		for _, part := range []string{`"name":"` + target, `"ttl_seconds":60`, `"ttl_left_seconds":`, `"held_seconds":`} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s is not in %s", part, text)
			}
		}
	})
}

// TestOtherLocks: a lock without a row has the name that the audit knows for its
// key, or its key; one with two numbers is not ours; and one of another database
// says so.
func TestOtherLocks(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		acquire(t, on, target, nil)
		l := of(t, on, target)[0]
		want(t, "kind", l.Kind, pginspect.Keyed)
		want(t, "name", strings.HasPrefix(l.Name(), "key "), true)
		want(t, "matches its target", l.Matches(target), true)
		want(t, "matches another", l.Matches(target+"x"), false)
		if _, ok := l.TTLLeft(); ok {
			t.Error("it has a TTL")
		}

		addRow(t, on, target, "earlier", time.Hour, time.Minute)
		l = of(t, on, target)[0]
		want(t, "kind", l.Kind, pginspect.Named)
		want(t, "name", l.Name(), target)
		want(t, "owner", l.Owner, "")

		other := connect(t, driver, newDatabase(t))
		pair := conn(t, other)
		exec(t, pair, "SELECT pg_advisory_lock_shared(-7, 5)")
		locks, err := pginspect.Locks(bg, on)
		must(t, err)
		pid := one[int](t, pair, "SELECT pg_backend_pid()")
		i := slices.IndexFunc(locks, func(l pginspect.Lock) bool { return l.PID == pid })
		if i < 0 {
			t.Fatal("the lock in another database is missing")
		}
		want(t, "name", locks[i].Name(), "pair -7, 5")
		want(t, "kind", locks[i].Kind, pginspect.Foreign)
		want(t, "shared", locks[i].Shared, true)
		want(t, "database", locks[i].Database, one[string](t, other, "SELECT current_database()"))

		// Without a table all of this works, too.
		acquire(t, other, target, nil)
		want(t, "kind without an audit", of(t, other, target)[0].Kind, pginspect.Keyed)
	})
}

// TestWaiters: waiters are listed in their order, under each holder, and are
// none of the locks; a Watcher remembers since when they wait.
func TestWaiters(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		acquire(t, on, target, audited, swanlock.WithShared())
		acquire(t, on, target, audited, swanlock.WithShared())
		var pids []int
		for range 4 {
			pid, _ := wait(t, on, target)
			pids = append(pids, pid)
		}
		plain := conn(t, on)
		plainPID := one[int](t, plain, "SELECT pg_backend_pid()")
		done := make(chan error)
		go func() {
			_, err := plain.ExecContext(bg, "SELECT pg_advisory_lock($1)", int64(swanlock.KeyOf(target)))
			done <- err
		}()
		defer func() {
			exec(t, on, "SELECT pg_cancel_backend($1)", plainPID)
			<-done
		}()
		eventually(t, "a wait of another program", func() bool {
			return one[bool](t, on, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", plainPID)
		})
		pids = append(pids, plainPID)

		var watcher pginspect.Watcher
		look := func() []pginspect.Lock {
			locks, _, err := watcher.Look(bg, on)
			must(t, err)
			return slices.DeleteFunc(locks, func(l pginspect.Lock) bool { return l.Target != target })
		}
		first := look()
		want(t, "holders", len(first), 2)
		locks, err := pginspect.Locks(bg, on)
		must(t, err)
		for _, l := range locks {
			if slices.Contains(pids, l.PID) {
				t.Errorf("a waiter's own %s is among the locks", l.Name())
			}
		}
		for _, l := range first {
			var got []int
			for i, w := range l.Waiters {
				got = append(got, w.PID)
				want(t, "place", w.Place, i+1)
				want(t, "target", w.Target, target)
				want(t, "in line", w.InLine, i < 4)
				if w.WaitingSince.IsZero() || w.WaitingFor() > patience {
					t.Errorf("waiter %d waits since %v", i, w.WaitingSince)
				}
			}
			if !slices.Equal(got, pids) {
				t.Errorf("waiters: got the sessions %v, want %v", got, pids)
			}
		}
		// Longer than a wait in the server lasts.
		time.Sleep(1500 * time.Millisecond)
		for i, w := range look()[0].Waiters {
			if was := first[0].Waiters[i]; w.PID != was.PID || w.WaitingSince.After(was.WaitingSince) || w.WaitingFor() < was.WaitingFor()+time.Second {
				t.Errorf("waiter %d: since %v, for %v; before since %v, for %v", i, w.WaitingSince, w.WaitingFor(), was.WaitingSince, was.WaitingFor())
			}
		}
		waiters, err := pginspect.Waiters(bg, on)
		must(t, err)
		waiters = slices.DeleteFunc(waiters, func(w pginspect.Waiter) bool { return !w.Matches(target) })
		want(t, "waiters", len(waiters), 5)
	})
}

// TestPoolWaiters: several callers of one Pool wait through one session, each
// with a place of its own.
func TestPoolWaiters(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, nil)
		pool, err := pglock.NewPool(connect(t, driver, ""))
		must(t, err)
		defer pool.Close(bg)
		results := make(chan error, 5)
		for range cap(results) {
			go func() {
				l, err := pool.Acquire(bg, target)
				if err == nil {
					err = l.Release(bg)
				}
				results <- err
			}()
		}
		eventually(t, "five places", func() bool {
			l := of(t, on, target)
			return len(l) == 1 && len(l[0].Waiters) == cap(results) && l[0].Waiters[4].Place == 5
		})
		// The session that waits in the server for the first of them is none of
		// them, nor is what it locks meanwhile a lock.
		hash := int64(swanlock.KeyOf(target)) >> 18
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
			locks, waiters, err := pginspect.Look(bg, on)
			must(t, err)
			waiters = slices.DeleteFunc(waiters, func(w pginspect.Waiter) bool { return w.Key>>18 != hash })
			locks = slices.DeleteFunc(locks, func(l pginspect.Lock) bool { return l.Key>>18 != hash })
			if len(waiters) != cap(results) || len(locks) != 1 {
				t.Fatalf("got %d waiters and %d locks, want %d and 1: %+v, %+v", len(waiters), len(locks), cap(results), waiters, locks)
			}
		}
		must(t, held.Release(bg))
		for range cap(results) {
			must(t, <-results)
		}
		want(t, "locks in the end", len(of(t, on, target)), 0)
	})
}

// TestWatcherLocks: a lock without an audit has been held since it was seen.
func TestWatcherLocks(t *testing.T) {
	on, target := connect(t, "pgx", ""), newTarget(t)
	acquire(t, on, target, nil)
	var watcher pginspect.Watcher
	look := func() pginspect.Lock {
		locks, _, err := watcher.Look(bg, on)
		must(t, err)
		return locks[slices.IndexFunc(locks, func(l pginspect.Lock) bool { return l.Key == int64(swanlock.KeyOf(target)) })]
	}
	before := look()
	time.Sleep(20 * time.Millisecond)
	after := look()
	if d, exact := after.HeldFor(); exact || d < 20*time.Millisecond || !after.HeldSince.Equal(before.HeldSince) {
		t.Errorf("held for %v, exactly: %v, since %v and %v", d, exact, before.HeldSince, after.HeldSince)
	}
}

// TestLockOfAnEarlierSession: a row of a dead session is not taken for that of a
// later one with the same process id.
func TestLockOfAnEarlierSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, nil)
		id := addRow(t, on, target, "dead", time.Hour, -1)
		exec(t, on, "UPDATE lock_audit SET backend_pid = $1 WHERE id = $2", held.(*pglock.PostgresLock).BackendPID(), id)
		l := of(t, on, target)[0]
		want(t, "kind", l.Kind, pginspect.Named)
		want(t, "owner", l.Owner, "")
	})
}

// TestLittleSeen: a role without rights sees the locks, and nothing of the
// sessions of others, nor of the audit.
func TestLittleSeen(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target, role := newTarget(t), newRole(t)
		acquire(t, connect(t, driver, ""), target, audited)
		on := connect(t, driver, "", role)
		l := of(t, on, target)
		if len(l) != 1 || l[0].Kind != pginspect.Keyed || l[0].Started != (time.Time{}) || l[0].State != "" {
			t.Errorf("got %+v", l)
		}
		_, err := pginspect.History(bg, on, pginspect.Query{})
		if err == nil || !strings.Contains(err.Error(), "GRANT SELECT ON public.lock_audit") {
			t.Errorf("History: %v", err)
		}
	})
}

var _ pginspect.DB = (*sql.Tx)(nil)

// TestWaiterOfAnotherDatabase: the audit of the database that is asked does not name
// what a session waits for in another one.
func TestWaiterOfAnotherDatabase(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, other, target := connect(t, driver, ""), connect(t, driver, newDatabase(t)), newTarget(t)
		acquire(t, on, target, audited)
		_, held := acquire(t, other, target, nil)
		pid, _ := wait(t, other, target)
		seen := 0
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			locks, waiters, err := pginspect.Look(bg, on)
			must(t, err)
			for _, l := range locks {
				if l.PID == held.(*pglock.PostgresLock).BackendPID() {
					waiters = append(waiters, l.Waiters...)
				}
			}
			for _, w := range waiters {
				if w.PID != pid {
					continue
				}
				seen++
				if w.Here || w.Target != "" || w.Matches(target) {
					t.Fatalf("a waiter of another database is %+v", w)
				}
			}
		}
		if seen == 0 {
			t.Error("the waiter was not seen")
		}
	})
}
