package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// deadlineWithin wants l's deadline to be that of a statement sent between before
// and now, whose lease is ttl.
func deadlineWithin(t *testing.T, what string, l *pglock.PostgresLock, before time.Time, ttl time.Duration) {
	t.Helper()
	got, ok := l.Deadline()
	if earliest, latest := before.Add(ttl), time.Now().Add(ttl); !ok || got.Before(earliest.Add(-time.Second)) || got.After(latest) {
		t.Errorf("%s: got %v, %t; want it %v after a statement that was sent from %v on", what, got, ok, ttl, before)
	}
}

// The locks of one session end with the shortest TTL among them if nothing is
// sent, so that is their deadline too, also of one that has no TTL.
func TestDeadlineOfTheSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s, _ := newSession(t, driver)
		target := newTarget(t)
		none := acquired(t, s, target+"/none")
		if got, ok := none.Deadline(); ok {
			t.Errorf("no lock of the session has a TTL: got the deadline %v, want none", got)
		}
		before := time.Now()
		long := acquired(t, s, target+"/long", swanlock.WithTTL(time.Hour))
		deadlineWithin(t, "the long one alone", long, before, time.Hour)
		deadlineWithin(t, "none beside the long one", none, before, time.Hour)

		before = time.Now()
		short := acquired(t, s, target+"/short", swanlock.WithTTL(time.Minute))
		for name, l := range map[string]*pglock.PostgresLock{"none": none, "long": long, "short": short} {
			deadlineWithin(t, name+" beside the short one", l, before, time.Minute)
		}
		before = time.Now()
		must(t, long.Refresh(bg)) // any statement is news to the server
		deadlineWithin(t, "long after its refresh", long, before, time.Minute)
		if got, _ := short.Deadline(); got.After(short.Info().AcquiredAt.Add(time.Minute)) {
			t.Errorf("short after the refresh of another: got %v, want it no later than its own TTL allows", got)
		}

		must(t, short.Release(bg))
		deadlineWithin(t, "long after the short one's release", long, before, time.Hour)
		must(t, long.Release(bg))
		if got, ok := none.Deadline(); ok {
			t.Errorf("after the release of all that have a TTL: got the deadline %v, want none", got)
		}
		must(t, none.Release(bg))
	})
}

// In a Pool it is the session's lease that ends first, which each statement of
// the session restarts, but no later than the lock's own TTL.
func TestDeadlineInAPool(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, target := newPool(t, openDB(t, driver)), newTarget(t)
		const ttl = time.Hour
		before := time.Now()
		l := acquired(t, p, target, swanlock.WithTTL(ttl))
		deadlineWithin(t, "granted", l, before, pglock.LeaseOf(ttl))
		must(t, acquired(t, p, target+"/other", swanlock.WithTTL(ttl)).Release(bg))
		if got, ok := l.Deadline(); !ok || got.After(l.Info().AcquiredAt.Add(ttl)) {
			t.Errorf("after a statement for another lock: got %v, %t; want it no later than the lock's own TTL", got, ok)
		}
		before = time.Now()
		must(t, l.Refresh(bg))
		deadlineWithin(t, "refreshed", l, before, pglock.LeaseOf(ttl))
		must(t, l.Release(bg))

		none := acquired(t, p, target)
		if got, ok := none.Deadline(); ok {
			t.Errorf("without a TTL: got the deadline %v, want none", got)
		}
		must(t, none.Release(bg))
	})
}

// The role's own idle_session_timeout ends a Pool's session, TTL or not. The
// Pool counts on it, and so must the holder.
func TestDeadlineOfTheRole(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver, "options=-c%20idle_session_timeout%3D600000")
		p := newPool(t, db)
		before := time.Now()
		l := acquired(t, p, newTarget(t))
		deadlineWithin(t, "granted", l, before, 10*time.Minute)
		must(t, l.Release(bg))
	})
}

// When the server has freed the lock of a holder that does nothing, its deadline
// has passed.
func TestDeadlineIsNotAfterTheServers(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		const ttl = 700 * time.Millisecond
		s, _ := newSession(t, driver)
		l := acquired(t, s, target, swanlock.WithTTL(ttl))
		must(t, l.Refresh(bg))
		last, _ := l.Deadline()
		eventually(t, "the server frees it", func() bool { return len(o.holders(target)) == 0 })
		if now := time.Now(); now.Before(last) {
			t.Errorf("the server freed it %v before the deadline", last.Sub(now))
		}
		l.Release(bg)
	})
}
