package pglock_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// A refresh whose lock expires while it waits for its turn sends nothing, and
// one that is answered too late has refreshed nothing.
func TestScriptedRefreshComesTooLate(t *testing.T) {
	inTime(t, func(s *scripted) {
		lock := s.take("t", swanlock.WithTTL(time.Second))
		s.pg.ExpectTryAcquire("other").HeldElsewhere().After(2 * time.Second)
		go s.l.TryAcquire(ctxBG, "other")
		time.Sleep(500 * time.Millisecond)
		s.is(lock.Refresh(ctxBG), swanlock.ErrExpired)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), swanlock.ErrExpired)

		lock = s.take("t", swanlock.WithTTL(time.Second))
		time.Sleep(500 * time.Millisecond)
		s.pg.ExpectRefresh("t").After(700 * time.Millisecond)
		s.pg.ExpectRelease("t") // the refresh set the lease again
		s.is(lock.Refresh(ctxBG), swanlock.ErrExpired)
		s.is(lock.Release(ctxBG), swanlock.ErrExpired)
		s.wantSettings("0, 0")
	})
}

// Each lease is counted from before the statement that began it: the lock's own,
// also when others have restarted the session's, and the session's.
func TestScriptedLeaseStartsWithTheStatement(t *testing.T) {
	inTime(t, func(s *scripted) {
		touch := func(took time.Duration) {
			s.pg.ExpectTryAcquire("other").HeldElsewhere().After(took)
			_, err := s.l.TryAcquire(ctxBG, "other")
			s.is(err, swanlock.ErrNotAcquired)
		}
		s.pg.ExpectTryAcquire("t").After(300 * time.Millisecond)
		lock, err := s.l.TryAcquire(ctxBG, "t", swanlock.WithTTL(time.Second))
		s.is(err, nil)
		time.Sleep(300 * time.Millisecond)
		touch(0)
		s.ends(lock, 400*time.Millisecond, swanlock.ErrExpired)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), swanlock.ErrExpired)

		lock = s.take("t", swanlock.WithTTL(time.Second))
		s.pg.ExpectRefresh("t").After(300 * time.Millisecond)
		s.is(lock.Refresh(ctxBG), nil)
		time.Sleep(300 * time.Millisecond)
		touch(0)
		s.ends(lock, 400*time.Millisecond, swanlock.ErrExpired)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), swanlock.ErrExpired)

		for _, restart := range []func(long swanlock.DistributedLock){
			func(swanlock.DistributedLock) { touch(time.Second) },
			func(long swanlock.DistributedLock) {
				s.pg.ExpectRefresh("long").After(time.Second)
				s.is(long.Refresh(ctxBG), nil)
			},
		} {
			long := s.take("long", swanlock.WithTTL(time.Hour))
			short := s.take("short", swanlock.WithTTL(time.Minute))
			time.Sleep(30 * time.Second)
			restart(long)
			s.ends(short, 29*time.Second, swanlock.ErrExpired)
			s.ends(long, 30*time.Second, swanlock.ErrExpired)
			s.pg.ExpectRelease("short")
			s.pg.ExpectRelease("long")
			s.is(short.Release(ctxBG), swanlock.ErrExpired)
		}
	})
}

// A release that does not get its turn before its context ends says that the lock
// is lost, and unlocks it when the turn comes.
func TestScriptedReleaseHasNoTurn(t *testing.T) {
	inTime(t, func(s *scripted) {
		lock := s.take("t")
		give := pglock.HoldTurn(lock)
		ctx, cancel := context.WithTimeout(ctxBG, time.Second)
		defer cancel()
		s.is(lock.Release(ctx), swanlock.ErrLost)
		s.is(lock.Err(), swanlock.ErrLost)
		s.pg.ExpectRelease("t")
		give()
		synctest.Wait()
		s.destroyed(false)
	})
}

// A release whose context has ended long before still gets its time.
func TestScriptedReleaseAfterTheDeadline(t *testing.T) {
	inTime(t, func(s *scripted) {
		ctx, cancel := context.WithTimeout(ctxBG, time.Second)
		defer cancel()
		lock := s.take("t")
		time.Sleep(time.Minute)
		s.pg.ExpectRelease("t").After(300 * time.Millisecond)
		s.is(lock.Release(ctx), nil)
		s.destroyed(false)
	})
}

// A handle that becomes unreachable while its Release is under way is not
// logged as dropped.
func TestScriptedReleasedIsNotDropped(t *testing.T) {
	s := newScripted(t, "session")
	released := make(chan error, 1)
	s.pg.ExpectTryAcquire("t")
	s.pg.ExpectRelease("t").After(300 * time.Millisecond)
	go func() {
		lock, err := s.l.TryAcquire(ctxBG, "t")
		if err == nil {
			err = lock.Release(ctxBG)
		}
		released <- err
	}()
	for {
		select {
		case err := <-released:
			s.is(err, nil)
			if got := s.log.count("dropped without Release"); got != 0 {
				t.Errorf("%d warnings, want none", got)
			}
			return
		default:
			runtime.GC()
		}
	}
}

// An error tells what to do.
func TestScriptedHints(t *testing.T) {
	for state, want := range map[mocks.SQLState]string{
		"42P01": "run the lock_audit migration (swanlock migrate up)",
		"42501": "grant SELECT, INSERT and UPDATE on lock_audit",
	} {
		s := newScripted(t, "audited")
		s.pg.ExpectTryAcquire("t").Fails(state)
		if _, err := s.l.TryAcquire(ctxBG, "t"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want that it says %q", err, want)
		}
	}
}

// A wait that ends in an error has taken nothing.
func TestScriptedTurnFails(t *testing.T) {
	inTime(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t").FailsAfterGrant(full)
		_, err := s.l.Acquire(ctxBG, "t")
		s.is(err, full)
		s.destroyed(false)
		if s.pg.Holds("t") {
			s.Error("an error, and the lock is held")
		}
	})
}

// Where the session cannot say whether it holds the lock, a second acquire says
// no more than that.
func TestCheckFreeInAFailedTransaction(t *testing.T) {
	onScript(t, func(s *scripted) {
		lock := s.take("t")
		s.pg.ExpectProbe("t").Fails(aborted)
		_, err := s.l.TryAcquire(ctxBG, "t")
		s.is(err, pglock.ErrAbortedTransaction)
		s.alive(lock)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
	})
}
