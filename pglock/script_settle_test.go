package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

var (
	ctxBG    = context.Background()
	errReset = errors.New("connection reset by peer") // the server did not speak
)

const (
	timedOut  = mocks.SQLState("57014")
	full      = mocks.SQLState("53200")
	forgotten = mocks.SQLState("26000")
	aborted   = mocks.SQLState("25P02")
)

// An error does not mean that the lock was not granted: the session is asked to
// unlock, and goes on.
func TestScriptedErrorIsUndone(t *testing.T) {
	for _, err := range []mocks.SQLState{timedOut, "55P03", "53200", "40001", "XX000"} {
		onScript(t, func(s *scripted) {
			s.pg.ExpectTryAcquire("t").FailsAfterGrant(err)
			s.pg.ExpectUndo("t")
			s.fail(err)
			s.destroyed(false)

			s.pg.ExpectTryAcquire("t").Fails(err)
			s.pg.ExpectUndo("t")
			s.fail(err, swanlock.WithShared())
			s.destroyed(false)

			lock := s.take("t")
			s.pg.ExpectRelease("t")
			s.is(lock.Release(ctxBG), nil)
		})
	}
}

// A session that cannot unlock is destroyed, since that frees the lock.
func TestScriptedUndoFails(t *testing.T) {
	for _, undo := range []error{timedOut, errReset, driver.ErrBadConn} {
		onScript(t, func(s *scripted) {
			other := s.take("other")
			s.pg.ExpectTryAcquire("t").FailsAfterGrant(timedOut)
			s.pg.ExpectUndo("t").Fails(undo)
			s.fail(timedOut)
			s.destroyed(true)
			s.over(other, swanlock.ErrLost, timedOut)
			s.is(other.Release(ctxBG), swanlock.ErrLost)
			s.fail(sql.ErrConnDone)
		})
	}
}

// A role that may not unlock may still ask: a session that holds nothing is
// spared, and one that cannot say is not.
func TestScriptedUndoDenied(t *testing.T) {
	for name, c := range map[string]struct {
		try       func(e *mocks.ExpectedTryAcquire, err error) *mocks.ExpectedTryAcquire
		script    func(e *mocks.Expected)
		destroyed bool
	}{
		"not held":          {(*mocks.ExpectedTryAcquire).Fails, func(e *mocks.Expected) {}, false},
		"held":              {(*mocks.ExpectedTryAcquire).FailsAfterGrant, func(e *mocks.Expected) {}, true},
		"it cannot say":     {(*mocks.ExpectedTryAcquire).Fails, func(e *mocks.Expected) { e.Fails(mocks.SQLState("42501")) }, true},
		"it does not speak": {(*mocks.ExpectedTryAcquire).Fails, func(e *mocks.Expected) { e.Fails(errReset) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			onScript(t, func(s *scripted) {
				c.try(s.pg.ExpectTryAcquire("t"), mocks.SQLState("42501"))
				s.pg.ExpectUndo("t").Fails(mocks.SQLState("42501"))
				c.script(s.pg.ExpectProbe("t"))
				s.fail(pglock.ErrDenied)
				s.destroyed(c.destroyed)
			})
		})
	}
}

// If there was no answer from the server, it is not asked to unlock.
func TestScriptedErrorWithoutState(t *testing.T) {
	onScript(t, func(s *scripted) {
		other := s.take("other")
		s.pg.ExpectTryAcquire("t").FailsAfterGrant(errReset)
		s.fail(errReset)
		s.destroyed(true)
		s.over(other, swanlock.ErrLost, errReset)
		s.is(other.Refresh(ctxBG), swanlock.ErrLost)
		s.is(other.Release(ctxBG), swanlock.ErrLost)
	})
}

// In an aborted transaction nothing was granted, and what was held is still.
func TestScriptedAbortedTransaction(t *testing.T) {
	onScript(t, func(s *scripted) {
		other := s.take("other")
		s.pg.ExpectTryAcquire("t").Fails(aborted)
		s.fail(pglock.ErrAbortedTransaction)
		s.destroyed(false)

		s.pg.ExpectRefresh("other").Fails(aborted)
		s.is(other.Refresh(ctxBG), pglock.ErrAbortedTransaction)
		s.alive(other)
		s.destroyed(false)

		s.pg.ExpectRefresh("other") // it was rolled back
		s.is(other.Refresh(ctxBG), nil)

		// An unlock cannot be had there, but the session's end can.
		s.pg.ExpectRelease("other").Fails(aborted)
		s.is(other.Release(ctxBG), swanlock.ErrLost, pglock.ErrAbortedTransaction)
		s.over(other, swanlock.ErrLost)
		s.destroyed(true)
	})
}

func TestScriptedRefusals(t *testing.T) {
	onScript(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").Standby()
		s.fail(pglock.ErrStandby)
		s.pg.ExpectTryAcquire("t").WithFence().FenceInTransaction()
		s.fail(pglock.ErrFenceInTransaction, swanlock.WithFence())
		s.pg.ExpectTryAcquire("t").HeldElsewhere()
		s.fail(swanlock.ErrNotAcquired)
		s.destroyed(false)
	})
}

// Release returns nil only if the server says that it has unlocked the lock.
func TestScriptedRelease(t *testing.T) {
	for name, c := range map[string]struct {
		script    func(pg *mocks.Postgres)
		want      error // of Release; nil: none
		destroyed bool
	}{
		"yes": {func(pg *mocks.Postgres) { pg.ExpectRelease("t") }, nil, false},
		"no":  {func(pg *mocks.Postgres) { pg.ExpectRelease("t").Lost() }, swanlock.ErrLost, false},
		"error, then yes": {func(pg *mocks.Postgres) {
			pg.ExpectRelease("t").Fails(timedOut)
			pg.ExpectRelease("t")
		}, nil, false},
		"error, then no": {func(pg *mocks.Postgres) {
			pg.ExpectRelease("t").Fails(timedOut)
			pg.ExpectRelease("t").Lost()
		}, nil, false},
		"error twice": {func(pg *mocks.Postgres) {
			pg.ExpectRelease("t").Fails(timedOut)
			pg.ExpectRelease("t").Fails(timedOut)
		}, swanlock.ErrLost, true},
		"error, then silence": {func(pg *mocks.Postgres) {
			pg.ExpectRelease("t").Fails(timedOut)
			pg.ExpectRelease("t").Fails(errReset)
		}, swanlock.ErrLost, true},
		"silence": {func(pg *mocks.Postgres) { pg.ExpectRelease("t").Fails(errReset) }, swanlock.ErrLost, true},
		"gone":    {func(pg *mocks.Postgres) { pg.ExpectRelease("t").Fails(driver.ErrBadConn) }, swanlock.ErrLost, true},
	} {
		t.Run(name, func(t *testing.T) {
			onScript(t, func(s *scripted) {
				lock := s.take("t")
				c.script(s.pg)
				ended, cancel := context.WithCancel(ctxBG)
				cancel() // a release does not depend on it
				s.is(lock.Release(ended), c.want)
				s.destroyed(c.destroyed)
				if s.pg.Holds("t") {
					s.Error("still held")
				}
				if c.want == nil {
					s.over(lock, swanlock.ErrReleased)
				} else {
					s.over(lock, swanlock.ErrLost)
				}
				s.is(lock.Release(ctxBG), nil) // the second time nothing is sent
				if err := lock.Refresh(ctxBG); !errors.Is(err, lock.Err()) {
					s.Errorf("refreshed afterwards: %v, want %v", err, lock.Err())
				}
				if !c.destroyed { // the caller's connection is as good as before
					again := s.take("t")
					s.pg.ExpectRelease("t")
					s.is(again.Release(ctxBG), nil)
				}
			})
		})
	}
}

// The error of Refresh tells if the lock is held.
func TestScriptedRefresh(t *testing.T) {
	for name, c := range map[string]struct {
		script    func(pg *mocks.Postgres)
		want      error
		held      bool
		destroyed bool
	}{
		"held":            {func(pg *mocks.Postgres) { pg.ExpectRefresh("t") }, nil, true, false},
		"not held":        {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").Lost() }, swanlock.ErrLost, false, false},
		"error, but held": {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").Fails(timedOut); pg.ExpectProbe("t") }, timedOut, true, false},
		"error, and not held": {func(pg *mocks.Postgres) {
			pg.ExpectRefresh("t").Fails(timedOut)
			pg.ExpectProbe("t").Lost()
		}, swanlock.ErrLost, false, false},
		"error twice": {func(pg *mocks.Postgres) {
			pg.ExpectRefresh("t").Fails(timedOut)
			pg.ExpectProbe("t").Fails(timedOut)
		}, swanlock.ErrLost, false, true},
		"error, then an aborted transaction": {func(pg *mocks.Postgres) {
			pg.ExpectRefresh("t").Fails(timedOut)
			pg.ExpectProbe("t").Fails(aborted)
		}, timedOut, true, false},
		"error, then another backend": {func(pg *mocks.Postgres) {
			pg.ExpectRefresh("t").Fails(timedOut)
			pg.ExpectProbe("t").ByAnotherBackend()
			pg.ExpectTerminate("t")
		}, pglock.ErrPooler, false, true},
		"silence": {func(pg *mocks.Postgres) { pg.ExpectRefresh("t").Fails(errReset) }, swanlock.ErrLost, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			onScript(t, func(s *scripted) {
				lock := s.take("t")
				c.script(s.pg)
				err := lock.Refresh(ctxBG)
				s.is(err, c.want)
				s.destroyed(c.destroyed)
				if c.held {
					s.alive(lock)
					if errors.Is(err, swanlock.ErrLost) {
						s.Errorf("held, and lost: %v", err)
					}
					s.pg.ExpectRelease("t")
					s.is(lock.Release(ctxBG), nil)
					return
				}
				s.is(err, swanlock.ErrLost)
				s.over(lock, swanlock.ErrLost)
				s.is(lock.Release(ctxBG), swanlock.ErrLost)
			})
		})
	}
}

// Behind a pooler in transaction mode the lock stays on a backend that the
// connection does not reach any more: that backend is ended, and so is the
// session.
func TestScriptedPooler(t *testing.T) {
	for name, call := range map[string]func(s *scripted, lock swanlock.DistributedLock) error{
		"refresh": func(s *scripted, lock swanlock.DistributedLock) error {
			s.pg.ExpectRefresh("t").ByAnotherBackend()
			s.pg.ExpectTerminate("t")
			return lock.Refresh(ctxBG)
		},
		"release": func(s *scripted, lock swanlock.DistributedLock) error {
			s.pg.ExpectRelease("t").ByAnotherBackend()
			s.pg.ExpectTerminate("t")
			return lock.Release(ctxBG)
		},
		"second acquire": func(s *scripted, lock swanlock.DistributedLock) error {
			s.pg.ExpectProbe("t").ByAnotherBackend()
			s.pg.ExpectTerminate("t")
			_, err := s.l.TryAcquire(ctxBG, "t")
			if err == nil || errors.Is(err, swanlock.ErrAlreadyHeld) {
				s.Errorf("got %v", err)
			}
			return lock.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			onScript(t, func(s *scripted) {
				lock := s.take("t")
				s.is(call(s, lock), swanlock.ErrLost, pglock.ErrPooler)
				s.over(lock, swanlock.ErrLost, pglock.ErrPooler)
				s.destroyed(true)
				if s.pg.Holds("t") {
					s.Error("still held")
				}
			})
		})
	}
}

// If that backend cannot be ended, a warning is logged.
func TestScriptedTerminateFails(t *testing.T) {
	onScript(t, func(s *scripted) {
		if _, ok := s.l.(*pglock.Session); !ok {
			return // no logger
		}
		lock := s.take("t")
		s.pg.ExpectRefresh("t").ByAnotherBackend()
		s.pg.ExpectTerminate("t").Fails(mocks.SQLState("42501"))
		s.is(lock.Refresh(ctxBG), pglock.ErrPooler)
		s.destroyed(true)
		if got := s.log.count("may still hold a lock"); got != 1 {
			s.Errorf("%d warnings, want 1", got)
		}
	})
}

// DISCARD ALL and DEALLOCATE remove prepared statements: a statement that was
// not run because of that is sent again, once.
func TestScriptedForgottenStatement(t *testing.T) {
	onScript(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").Fails(forgotten)
		lock := s.take("t") // and is granted
		s.pg.ExpectRefresh("t").Fails(forgotten)
		s.pg.ExpectRefresh("t")
		s.is(lock.Refresh(ctxBG), nil)
		s.pg.ExpectRelease("t").Fails(forgotten)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)

		// Neither try has run, and the backend may be another client's: nothing is undone.
		s.pg.ExpectTryAcquire("t").Fails(forgotten)
		s.pg.ExpectTryAcquire("t").Fails(forgotten)
		s.fail(forgotten)
		s.destroyed(false)
	})
}

// A session cannot take a lock twice, and the lock that it has stays as it is.
func TestScriptedAlreadyHeld(t *testing.T) {
	onScript(t, func(s *scripted) {
		lock := s.take("t")
		s.pg.ExpectTryAcquire("t").AlreadyHeld()
		_, err := s.l.TryAcquire(ctxBG, "t", swanlock.WithShared())
		s.is(err, swanlock.ErrAlreadyHeld, swanlock.ErrNotAcquired)
		s.pg.ExpectTryAcquire("t").AlreadyHeld()
		_, err = pglock.NewSession(s.conn).Acquire(ctxBG, "t") // another handle, the same session
		s.is(err, swanlock.ErrAlreadyHeld)
		s.alive(lock)

		// Somebody took it away: then it can be had again.
		s.pg.ExpectProbe("t").Lost()
		again := s.take("t")
		s.over(lock, swanlock.ErrLost)
		s.alive(again)
		s.is(lock.Release(ctxBG), swanlock.ErrLost)
		s.alive(again)
		if !s.pg.Holds("t") {
			s.Error("the old handle released the new lock")
		}

		// The session cannot say: it is destroyed, and not asked for the lock.
		s.pg.ExpectProbe("t").Fails(errReset)
		if _, err := s.l.TryAcquire(ctxBG, "t"); err == nil || errors.Is(err, swanlock.ErrAlreadyHeld) {
			s.Errorf("got %v", err)
		}
		s.over(again, swanlock.ErrLost)
		s.destroyed(true)
	})
}

func TestScriptedSessionClose(t *testing.T) {
	conn, pg := mocks.NewConn(t)
	session := pglock.NewSession(conn)
	s := &scripted{T: t, pg: pg, conn: conn, l: session}
	mine := s.take("mine")
	s.l = mockFunctions{conn}
	theirs := s.take("theirs")
	pg.ExpectRelease("mine")
	s.is(session.Close(ctxBG), nil)
	s.is(session.Close(ctxBG), nil)
	s.over(mine, swanlock.ErrReleased)
	s.alive(theirs)
	s.destroyed(false)
	if _, err := session.TryAcquire(ctxBG, "t"); err == nil {
		t.Error("a closed session granted a lock")
	}
	pg.ExpectRelease("theirs")
	s.is(theirs.Release(ctxBG), nil)

	pg.ExpectExec("SELECT 1").WillReturnResult(sqlmock.NewResult(0, 1))
	if _, err := conn.ExecContext(ctxBG, "SELECT 1"); err != nil {
		t.Errorf("the caller's connection: %v", err)
	}
}
