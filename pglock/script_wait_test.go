package pglock_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// If the server does not answer, the call returns in time, and the session is
// destroyed.
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

// If a release is not answered, the session is destroyed as soon as none of its
// other locks can wait any longer.
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

// A background refresh may fail once: there is time for another one.
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
// at any time, its lock is released. Otherwise the next call on the session
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
		gc(func() bool { return !s.pg.Holds("t") && s.log.count("dropped without Release") == 1 })
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
