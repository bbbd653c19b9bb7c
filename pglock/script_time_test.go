package pglock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// ends wants lock to end after exactly d, with no call made.
func (s *scripted) ends(lock swanlock.DistributedLock, d time.Duration, want error) {
	s.Helper()
	start := time.Now()
	<-lock.Done()
	if took := time.Since(start); took != d {
		s.Errorf("it ended after %v, want %v", took, d)
	}
	s.over(lock, want)
}

// The lease is set with the grant, and what the caller had comes back, verbatim,
// with the last release.
func TestScriptedSettings(t *testing.T) {
	onScript(t, func(s *scripted) {
		s.pg.SetConfig("idle_session_timeout", "10min")
		s.pg.SetConfig("idle_in_transaction_session_timeout", "1min")
		release := func(lock swanlock.DistributedLock) {
			s.Helper()
			s.pg.ExpectRelease(lock.Info().Target)
			s.is(lock.Release(ctxBG), nil)
		}
		none := s.take("none")
		s.wantSettings("10min, 1min")
		long := s.take("long", swanlock.WithTTL(time.Hour))
		s.wantSettings("3600000, 3600000")
		short := s.take("short", swanlock.WithTTL(time.Minute+time.Microsecond)) // the shortest counts
		s.wantSettings("60001, 60001")
		longer := s.take("longer", swanlock.WithTTL(2*time.Hour))
		s.wantSettings("60001, 60001")
		release(none)
		s.wantSettings("60001, 60001")
		release(short)
		s.wantSettings("3600000, 3600000")
		release(long)
		s.wantSettings("7200000, 7200000")
		none = s.take("none")
		release(longer)
		s.wantSettings("10min, 1min")
		release(none)
		s.wantSettings("10min, 1min")
	})
}

// The settings are also put back when a lock ends in another way than by
// Release.
func TestScriptedSettingsAfterALoss(t *testing.T) {
	for name, lose := range map[string]func(s *scripted, lock swanlock.DistributedLock){
		"refresh": func(s *scripted, lock swanlock.DistributedLock) {
			s.pg.ExpectRefresh("t").Lost()
			s.is(lock.Refresh(ctxBG), swanlock.ErrLost)
		},
		"release": func(s *scripted, lock swanlock.DistributedLock) {
			s.pg.ExpectRelease("t").Lost()
			s.is(lock.Release(ctxBG), swanlock.ErrLost)
		},
		"error and release": func(s *scripted, lock swanlock.DistributedLock) {
			s.pg.ExpectRelease("t").Fails(timedOut)
			s.is(lock.Release(ctxBG), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			onScript(t, func(s *scripted) {
				s.pg.SetConfig("idle_session_timeout", "10min")
				lock := s.take("t", swanlock.WithTTL(time.Hour))
				s.wantSettings("3600000, 3600000")
				lose(s, lock)
				s.wantSettings("10min, 0")
			})
		})
	}
}

// A rollback takes the settings back, and a refresh sets them again.
func TestScriptedRefreshSetsTheLease(t *testing.T) {
	onScript(t, func(s *scripted) {
		lock := s.take("t", swanlock.WithTTL(time.Hour))
		s.pg.SetConfig("idle_session_timeout", "0")
		s.pg.SetConfig("idle_in_transaction_session_timeout", "0")
		s.pg.ExpectRefresh("t")
		s.is(lock.Refresh(ctxBG), nil)
		s.wantSettings("3600000, 3600000")
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
	})
}

// Before PostgreSQL 14 the holder alone keeps time, and says so once.
func TestScriptedNoIdleSessionTimeout(t *testing.T) {
	for _, name := range []string{"session", "audited"} {
		t.Run(name, func(t *testing.T) {
			pglock.ForgetLeaseless()
			s := newScripted(t, name)
			s.pg.SetConfig("idle_session_timeout", "")
			for range 2 {
				lock := s.take("t", swanlock.WithTTL(time.Hour))
				s.wantSettings(", 3600000")
				s.pg.ExpectRefresh("t")
				s.is(lock.Refresh(ctxBG), nil)
				s.wantSettings(", 3600000")
				s.pg.ExpectRelease("t")
				s.is(lock.Release(ctxBG), nil)
				s.wantSettings(", 0")
			}
			if got := s.log.count("idle_session_timeout"); got != 1 {
				s.Errorf("%d warnings, want 1", got)
			}
		})
	}
	t.Run("but not without a TTL, nor where there is one", func(t *testing.T) {
		pglock.ForgetLeaseless()
		s := newScripted(t, "session")
		s.take("a", swanlock.WithTTL(time.Hour))
		s.pg.SetConfig("idle_session_timeout", "")
		s.take("b")
		if got := s.log.count("idle_session_timeout"); got != 0 {
			s.Errorf("%d warnings, want none", got)
		}
	})
}

// The holder counts from before the statement was sent, so that its deadline
// comes before the server's, and needs no call to know.
func TestScriptedExpiry(t *testing.T) {
	inTime(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").After(300 * time.Millisecond)
		lock, err := s.l.TryAcquire(ctxBG, "t", swanlock.WithTTL(time.Second))
		s.is(err, nil)
		time.Sleep(500 * time.Millisecond)
		s.pg.ExpectRefresh("t").After(100 * time.Millisecond)
		s.is(lock.Refresh(ctxBG), nil) // sent at 0.8 s, answered at 0.9 s
		s.ends(lock, 900*time.Millisecond, swanlock.ErrExpired)
		s.is(lock.Err(), swanlock.ErrLost)
		s.is(lock.Refresh(ctxBG), swanlock.ErrExpired) // sends nothing
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), swanlock.ErrExpired)
		s.destroyed(false)
		s.wantSettings("0, 0")
	})
}

// The server ends the whole session when it was idle for the shortest TTL.
func TestScriptedShortestTTLEndsAll(t *testing.T) {
	inTime(t, func(s *scripted) {
		long := s.take("long", swanlock.WithTTL(time.Hour))
		none := s.take("none")
		short := s.take("short", swanlock.WithTTL(time.Minute))
		time.Sleep(30 * time.Second)
		s.pg.ExpectRefresh("long") // restarts the server's count
		s.is(long.Refresh(ctxBG), nil)
		s.ends(short, 30*time.Second, swanlock.ErrExpired)
		s.alive(long)
		s.ends(long, 30*time.Second, swanlock.ErrExpired)
		s.over(none, swanlock.ErrExpired)
		s.pg.ExpectRelease("long")
		s.pg.ExpectRelease("short") // what has expired goes with it
		s.pg.ExpectRelease("none")
		for _, lock := range []swanlock.DistributedLock{long, none, short} {
			s.is(lock.Release(ctxBG), swanlock.ErrExpired)
		}
	})
}

// Every statement that is answered restarts the lease on the server. When the
// lock with the shortest TTL is released, the lease gets longer.
func TestScriptedSessionLease(t *testing.T) {
	inTime(t, func(s *scripted) {
		long := s.take("long", swanlock.WithTTL(time.Hour))
		short := s.take("short", swanlock.WithTTL(time.Minute))
		time.Sleep(30 * time.Second)
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.fail(swanlock.ErrNotAcquired)
		s.ends(short, 30*time.Second, swanlock.ErrExpired)
		s.alive(long)
		s.ends(long, 30*time.Second, swanlock.ErrExpired)
		s.pg.ExpectRelease("short")
		s.pg.ExpectRelease("long")
		s.is(short.Release(ctxBG), swanlock.ErrExpired)

		long = s.take("long", swanlock.WithTTL(time.Hour))
		short = s.take("short", swanlock.WithTTL(time.Minute))
		none := s.take("none")
		time.Sleep(30 * time.Second)
		s.pg.ExpectRelease("none")
		s.is(none.Release(ctxBG), nil)
		s.ends(short, 30*time.Second, swanlock.ErrExpired)
		s.ends(long, 30*time.Second, swanlock.ErrExpired)
		s.pg.ExpectRelease("short")
		s.pg.ExpectRelease("long")
		s.is(short.Release(ctxBG), swanlock.ErrExpired)

		long = s.take("long", swanlock.WithTTL(time.Hour))
		short = s.take("short", swanlock.WithTTL(time.Minute))
		s.pg.ExpectRelease("short")
		s.is(short.Release(ctxBG), nil)
		s.ends(long, time.Hour, swanlock.ErrExpired)
		s.pg.ExpectRelease("long")
		s.is(long.Release(ctxBG), swanlock.ErrExpired)
	})
}

// A lock that has expired must still be unlocked, which the next call does.
func TestScriptedExpiredIsUnlocked(t *testing.T) {
	inTime(t, func(s *scripted) {
		lock := s.take("t", swanlock.WithTTL(time.Second))
		s.ends(lock, time.Second, swanlock.ErrExpired)
		s.pg.ExpectRelease("t")
		again := s.take("t", swanlock.WithTTL(time.Minute))
		s.is(lock.Release(ctxBG), swanlock.ErrExpired) // sends nothing
		s.alive(again)
		s.pg.ExpectRelease("t")
		s.is(again.Release(ctxBG), nil)
	})
}

// The audit's row says why the lock ended.
func TestScriptedExpiredInTheAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, "audited")
		lock := s.take("t", swanlock.WithTTL(time.Second))
		<-lock.Done()
		any := sqlmock.AnyArg()
		s.pg.ExpectQuery("UPDATE public.lock_audit SET released_at = GREATEST").WithArgs(any, any, any, "expired", any, any, any, any).
			WillReturnRows(sqlmock.NewRows([]string{"pid", "released", "xact", "lease"}).AddRow(lock.(*pglock.PostgresLock).BackendPID(), true, 7, ""))
		s.is(lock.Release(ctxBG), swanlock.ErrExpired)
		s.destroyed(false)
	})
}

// A lock that is granted after its context or its lease has ended is given
// back.
func TestScriptedLateGrant(t *testing.T) {
	inTime(t, func(s *scripted) {
		gone := errors.New("the caller has gone")
		ctx, cancel := context.WithCancelCause(ctxBG)
		time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
		s.pg.ExpectTryAcquire("t").After(20 * time.Millisecond)
		s.pg.ExpectRelease("t")
		_, err := s.l.TryAcquire(ctx, "t")
		s.is(err, swanlock.ErrNotAcquired, gone)
		if s.pg.Holds("t") {
			s.Error("still held")
		}
		_, err = s.l.TryAcquire(ctx, "t") // sends nothing
		s.is(err, swanlock.ErrNotAcquired, gone)

		s.pg.ExpectTryAcquire("t").After(20 * time.Millisecond)
		s.pg.ExpectRelease("t")
		s.fail(swanlock.ErrNotAcquired, swanlock.WithTTL(10*time.Millisecond))
		s.wantSettings("0, 0")
		s.destroyed(false)
	})
}
