package pglock_test

import (
	"context"
	"errors"
	"runtime"
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

// What ends a lock otherwise puts the settings back too.
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

// Whatever is answered restarts the server's count, and with the shortest lock
// goes its TTL.
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

// A lock that has expired is still owed an unlock: whoever comes next pays.
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

// The audit knows why.
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

// What is granted too late is given back: the caller has gone, or its lease has.
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

// A server that does not answer costs the session, and not more than the bound.
func TestScriptedSilence(t *testing.T) {
	for name, c := range map[string]struct{ deadline, want time.Duration }{
		"no deadline":   {0, 5 * time.Second},
		"a deadline":    {time.Second, 1500 * time.Millisecond},
		"a far one":     {time.Hour, 5 * time.Second},
		"one too close": {time.Millisecond, 501 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(s *scripted) {
				ctx, cancel := ctxBG, context.CancelFunc(func() {})
				if c.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
				}
				defer cancel()
				s.pg.ExpectTryAcquire("t").After(time.Minute)
				start := time.Now()
				_, err := s.l.TryAcquire(ctx, "t")
				if err == nil {
					s.Error("granted")
				}
				if took := time.Since(start); took != c.want {
					s.Errorf("took %v, want %v", took, c.want)
				}
				time.Sleep(5 * time.Second)
				s.destroyed(true)
			})
		})
	}
}

// A release that is not answered costs the session too, when no other lock of it
// can wait any longer.
func TestScriptedSilentRelease(t *testing.T) {
	inTime(t, func(s *scripted) {
		lock := s.take("t")
		s.pg.ExpectRelease("t").After(time.Minute)
		start := time.Now()
		s.is(lock.Release(ctxBG), swanlock.ErrLost)
		if took := time.Since(start); took != 5*time.Second+500*time.Millisecond {
			s.Errorf("took %v", took)
		}
		s.destroyed(false)
		time.Sleep(5 * time.Second)
		s.destroyed(true)
	})
}

// A wait is a series of tries, and ends with its context.
func TestScriptedWait(t *testing.T) {
	inTime(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t")
		lock, err := s.l.Acquire(ctxBG, "t")
		s.is(err, nil)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)

		// An error ends the wait,
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t").Fails(full)
		_, err = s.l.Acquire(ctxBG, "t")
		s.is(err, full)

		// but for that of a wait in the server that was cut, which may have come
		// too late to make a difference.
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t").Fails(timedOut)
		s.pg.ExpectTryAcquire("t").FailsAfterGrant(timedOut)
		lock, err = s.l.Acquire(ctxBG, "t")
		s.is(err, nil)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)

		// What else is asked for is had in a statement of its own.
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t").WithFence().GrantedWithFence(77)
		lock, err = s.l.Acquire(ctxBG, "t", swanlock.WithFence(), swanlock.WithTTL(time.Minute))
		s.is(err, nil)
		if got := lock.Info().Fence; got != 77 {
			s.Errorf("got the fence %d, want 77", got)
		}
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)

		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t").WithFence().GrantedWithFence(78)
		lock, err = s.l.Acquire(ctxBG, "t", swanlock.WithFence())
		s.is(err, nil)
		if got := lock.Info().Fence; got != 78 {
			s.Errorf("got the fence %d, want 78", got)
		}
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.pg.ExpectTryAcquire("t")
		lock, err = s.l.Acquire(ctxBG, "t", swanlock.WithTTL(time.Minute))
		s.is(err, nil)
		s.wantSettings("60000, 60000")
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)

		// The context ends while the statement is under way.
		for _, answer := range []time.Duration{0, 20 * time.Millisecond} {
			s.pg.ExpectTryAcquire("t").StaysHeldElsewhere().After(answer)
			ctx, cancel := context.WithTimeout(ctxBG, 10*time.Millisecond)
			_, err = s.l.Acquire(ctx, "t")
			s.is(err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
			cancel()
		}
		s.destroyed(false)
	})
}

// A refresh with a context that has ended sends nothing, and loses nothing.
func TestScriptedRefreshWithEndedContext(t *testing.T) {
	onScript(t, func(s *scripted) {
		lock := s.take("t")
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(ctxBG)
		cancel(gone)
		s.is(lock.Refresh(ctx), gone)
		s.alive(lock)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
	})
}

// In the background a refresh may fail: there is time for another one.
func TestScriptedAutoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, "session")
		auto := []swanlock.Option{swanlock.WithTTL(3 * time.Second), swanlock.WithAutoRefresh()}
		lock := s.take("t", auto...)
		for range 3 { // after 1, 2 and 3 s
			s.pg.ExpectRefresh("t")
		}
		s.pg.ExpectRefresh("t").Fails(aborted)
		s.pg.ExpectRefresh("t")
		s.pg.ExpectRefresh("t").Fails(timedOut)
		s.pg.ExpectProbe("t")
		time.Sleep(6500 * time.Millisecond)
		s.alive(lock)
		if got := s.log.count("background refresh failed"); got != 2 {
			t.Errorf("%d warnings, want 2", got)
		}
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
		time.Sleep(time.Minute) // nothing more is sent

		lock = s.take("t", auto...)
		s.pg.ExpectRefresh("t").Lost()
		s.ends(lock, time.Second, swanlock.ErrLost)
		s.is(lock.Release(ctxBG), swanlock.ErrLost)
		lock = s.take("t", auto...)
		s.pg.ExpectRefresh("t").Lost()
		s.is(lock.Refresh(ctxBG), swanlock.ErrLost)
		time.Sleep(time.Minute)
		if got := s.log.count("background refresh failed"); got != 3 {
			t.Errorf("%d warnings, want 3: one more for the loss that was found in the background", got)
		}
	})
}

// A handle that was dropped: with auto-refresh, where we may use the connection
// at any time, its lock is released. Otherwise whoever uses the session next
// unlocks it.
func TestScriptedDropped(t *testing.T) {
	gc := func(until func() bool) {
		for deadline := time.Now().Add(10 * time.Second); !until() && time.Now().Before(deadline); {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
	t.Run("auto-refresh", func(t *testing.T) {
		s := newScripted(t, "session")
		s.pg.ExpectTryAcquire("t")
		s.pg.ExpectRelease("t")
		if _, err := s.l.TryAcquire(ctxBG, "t", swanlock.WithTTL(time.Hour), swanlock.WithAutoRefresh()); err != nil {
			t.Fatal(err)
		}
		gc(func() bool { return !s.pg.Holds("t") })
		if s.pg.Holds("t") || s.log.count("dropped without Release") != 1 {
			t.Errorf("holds %v, %d warnings", s.pg.Holds("t"), s.log.count("dropped without Release"))
		}
	})
	t.Run("close", func(t *testing.T) {
		s := newScripted(t, "session")
		s.pg.ExpectTryAcquire("t")
		if _, err := s.l.TryAcquire(ctxBG, "t"); err != nil {
			t.Fatal(err)
		}
		gc(func() bool { return s.log.count("dropped without Release") == 1 })
		s.pg.ExpectRelease("t")
		s.is(s.l.(*pglock.Session).Close(ctxBG), nil)
	})
	t.Run("none", func(t *testing.T) {
		s := newScripted(t, "session")
		s.pg.ExpectTryAcquire("t")
		if _, err := s.l.TryAcquire(ctxBG, "t"); err != nil {
			t.Fatal(err)
		}
		gc(func() bool { return s.log.count("dropped without Release") == 1 })
		if got := s.log.count("dropped without Release"); got != 1 {
			t.Errorf("%d warnings, want 1", got)
		}
		s.pg.ExpectRelease("t")
		lock := s.take("t")
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
	})
}
