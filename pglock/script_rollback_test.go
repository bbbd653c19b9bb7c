package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// After a release in a transaction the other locks count on the shorter lease,
// until a statement shows whether the transaction was committed or rolled back.
func TestScriptedRollbackBringsTheLeaseBack(t *testing.T) {
	type step struct {
		begin, refresh bool
		end            func(s *scripted)
		left           time.Duration // of the long lock, from the last statement on
		settings       string
	}
	commit := func(s *scripted) { s.pg.ExpectCommit() }
	rollback := func(s *scripted) { s.pg.ExpectRollback() }
	for name, c := range map[string]step{
		"no transaction":              {false, false, nil, time.Hour - 10*time.Second, "3600000, 3600000"},
		"committed":                   {true, false, commit, time.Minute, "3600000, 3600000"},
		"committed and refreshed":     {true, true, commit, time.Hour, "3600000, 3600000"},
		"rolled back":                 {true, false, rollback, time.Minute, "60000, 60000"},
		"rolled back and refreshed":   {true, true, rollback, time.Hour, "3600000, 3600000"},
		"not ended, but refreshed":    {true, true, nil, time.Minute, "3600000, 3600000"},
		"not ended and not refreshed": {true, false, nil, time.Minute, "3600000, 3600000"},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(s *scripted) {
				long := s.take("long", swanlock.WithTTL(time.Hour))
				short := s.take("short", swanlock.WithTTL(time.Minute))
				var finish func() error
				if c.begin {
					s.pg.ExpectBegin()
					tx, err := s.conn.BeginTx(ctxBG, nil)
					s.is(err, nil)
					finish = tx.Rollback
					if name[0] == 'c' {
						finish = tx.Commit
					}
				}
				time.Sleep(10 * time.Second)
				s.pg.ExpectRelease("short")
				s.is(short.Release(ctxBG), nil)
				if c.end != nil {
					c.end(s)
					s.is(finish(), nil)
				}
				if c.refresh {
					s.pg.ExpectRefresh("long")
					s.is(long.Refresh(ctxBG), nil)
				}
				s.wantSettings(c.settings)
				s.ends(long, c.left, swanlock.ErrExpired)
				s.pg.ExpectRelease("long")
				s.is(long.Release(ctxBG), swanlock.ErrExpired)
				if c.begin && c.end == nil {
					rollback(s)
					s.is(finish(), nil)
				}
			})
		})
	}
}

// The next lock finds the lease of the one before, and puts back what the caller
// had.
func TestScriptedNextLockAfterARollback(t *testing.T) {
	inTime(t, func(s *scripted) {
		s.pg.SetConfig("idle_session_timeout", "10min")
		short := s.take("short", swanlock.WithTTL(time.Minute))
		s.pg.ExpectBegin()
		tx, err := s.conn.BeginTx(ctxBG, nil)
		s.is(err, nil)
		s.pg.ExpectRelease("short")
		s.is(short.Release(ctxBG), nil)
		s.pg.ExpectRollback()
		s.is(tx.Rollback(), nil)
		s.wantSettings("60000, 60000")
		next := s.take("next")
		s.wantSettings("10min, 0")
		time.Sleep(time.Hour)
		s.alive(next)
		s.pg.ExpectRelease("next")
		s.is(next.Release(ctxBG), nil)
	})
}
