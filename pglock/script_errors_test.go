package pglock_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// Each of the server's codes that pglock knows, and what it makes of it.
func TestScriptedErrorsAreExplained(t *testing.T) {
	for _, c := range []struct {
		state   mocks.SQLState
		plain   error // nil: as it is
		audited error
	}{
		{"25P02", pglock.ErrAbortedTransaction, pglock.ErrAbortedTransaction},
		{"25006", pglock.ErrStandby, errors.Join(pglock.ErrAudit, pglock.ErrStandby)},
		{"53200", pglock.ErrLockTableFull, pglock.ErrLockTableFull},
		{"42501", pglock.ErrDenied, pglock.ErrAudit},
		{"42P01", nil, pglock.ErrAudit},
		{"42703", nil, pglock.ErrAudit},
		{"3F000", nil, pglock.ErrAudit},
		{"53100", nil, pglock.ErrAudit},
		{"23505", nil, pglock.ErrAudit},
		{"23514", nil, pglock.ErrAudit},
		{"57014", nil, pglock.ErrAudit},
		{"55P03", nil, pglock.ErrAudit},
		{"XX000", nil, nil},
	} {
		all := []error{pglock.ErrAbortedTransaction, pglock.ErrStandby, pglock.ErrLockTableFull, pglock.ErrDenied, pglock.ErrAudit}
		check := func(s *scripted, want error) {
			s.Helper()
			s.pg.ExpectTryAcquire("t").Fails(c.state)
			_, err := s.l.TryAcquire(ctxBG, "t")
			s.is(err, c.state)
			for _, one := range all {
				if got := errors.Is(err, one); got != errors.Is(want, one) {
					s.Errorf("%s: %v: is %q: %v", c.state, err, one, got)
				}
			}
			s.destroyed(false)
		}
		t.Run(string(c.state), func(t *testing.T) {
			onScript(t, func(s *scripted) { check(s, c.plain) })
			t.Run("audited", func(t *testing.T) { check(newScripted(t, "audited"), c.audited) })
		})
	}
}

// TestScriptedRefreshFailsWithoutItsRow: with ErrAudit a refresh has restarted the TTL.
// The error of one that has not is another.
func TestScriptedRefreshFailsWithoutItsRow(t *testing.T) {
	const cancelled = mocks.SQLState("57014")
	s := newScripted(t, "audited")
	lock := s.take("t", swanlock.WithTTL(time.Hour))
	before, _ := lock.Deadline()
	s.pg.ExpectRefresh("t").Fails(cancelled)
	s.pg.ExpectProbe("t").Fails(cancelled)
	s.pg.ExpectProbe("t")
	err := lock.Refresh(ctxBG)
	s.is(err, cancelled)
	if after, _ := lock.Deadline(); errors.Is(err, pglock.ErrAudit) && after.Equal(before) {
		t.Errorf("the TTL was not restarted: %v", err)
	}
	s.alive(lock)
	s.pg.ExpectProbe("t").Fails(cancelled)
	s.pg.ExpectProbe("t")
	if _, err := s.l.TryAcquire(ctxBG, "t"); errors.Is(err, pglock.ErrAudit) {
		t.Errorf("no row was to be written: %v", err)
	}
	s.pg.ExpectRelease("t")
	s.is(lock.Release(ctxBG), nil)
}

// TestScriptedStrangersInTheWay: a transaction of another session may stand still while
// it makes a row fail, and for longer than twenty tries take. In the end the refresh
// does without the row.
func TestScriptedStrangersInTheWay(t *testing.T) {
	for _, state := range []mocks.SQLState{"40001", "40P01"} {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(t, "audited")
			lock := s.take("t", swanlock.WithTTL(time.Hour))
			for range 40 {
				s.pg.ExpectRefresh("t").Fails(state)
			}
			s.pg.ExpectRefresh("t")
			begun := time.Now()
			s.is(lock.Refresh(ctxBG), nil)
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("%s: 40 failures took %v", state, took)
			}
			s.pg.ExpectRelease("t")
			s.is(lock.Release(ctxBG), nil)
		})
	}
}

// The audit serves the lock: where only its row is in the way, the lock is
// released all the same, and the caller told.
func TestScriptedAuditFails(t *testing.T) {
	const noTable = mocks.SQLState("42P01")
	s := newScripted(t, "audited")
	s.pg.ExpectTryAcquire("t").FailsAfterGrant(noTable)
	s.pg.ExpectUndo("t")
	s.fail(pglock.ErrAudit)

	lock := s.take("t", swanlock.WithTTL(time.Hour))
	s.pg.ExpectRefresh("t").Fails(noTable)
	s.pg.ExpectProbe("t")
	s.is(lock.Refresh(ctxBG), pglock.ErrAudit)
	s.alive(lock)
	s.pg.ExpectRelease("t").Fails(noTable)
	s.pg.ExpectRelease("t")
	err := lock.Release(ctxBG)
	s.is(err, pglock.ErrAudit)
	if errors.Is(err, swanlock.ErrLost) {
		s.Errorf("released in good order, and lost: %v", err)
	}
	s.over(lock, swanlock.ErrReleased)
	s.destroyed(false)
	s.wantSettings("0, 0")
	if s.pg.Holds("t") {
		s.Error("still held")
	}
}

// A release that finds the lock gone has closed the row as released: that is
// corrected.
func TestScriptedAuditOfALoss(t *testing.T) {
	s := newScripted(t, "audited")
	lock := s.take("t")
	s.pg.ExpectRelease("t").Lost()
	s.pg.ExpectExec("end_reason = 'lost' WHERE").WithArgs(int64(1)).WillReturnResult(sqlmock.NewResult(0, 1))
	s.is(lock.Release(ctxBG), swanlock.ErrLost)
	s.destroyed(false)

	lock = s.take("t") // whose row was not closed, so that there is nothing to correct
	s.pg.ExpectRelease("t").Fails(mocks.SQLState("42P01"))
	s.pg.ExpectRelease("t").Lost()
	s.pg.ExpectRelease("t").Fails(mocks.SQLState("42P01")) // of nothing: it is refused without a row, too
	s.is(lock.Release(ctxBG), swanlock.ErrLost)
	s.destroyed(false)
}

// An error names the target and has no SQL.
func TestScriptedErrorText(t *testing.T) {
	onScript(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").Fails(timedOut)
		_, err := s.l.TryAcquire(ctxBG, "t")
		if got, want := fmt.Sprint(err), `pglock: acquire "t": `+timedOut.Error(); got != want {
			s.Errorf("got %q, want %q", got, want)
		}
	})
}
