package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A lock that refreshes itself outlives one answer that takes most of its TTL, be it
// that of the acquire or that of a refresh: the next refresh is due a third of the TTL
// after the statement was sent, and not after it was answered.
func TestScriptedAutoRefreshAfterASlowAnswer(t *testing.T) {
	inTime(t, func(s *scripted) {
		s.pg.ExpectTryAcquire("t").After(700 * time.Millisecond)
		s.pg.ExpectRefresh("t")
		lock, err := s.l.TryAcquire(ctxBG, "t", swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
		if err != nil {
			s.Fatal(err)
		}
		time.Sleep(320 * time.Millisecond)
		s.alive(lock)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)

		s.pg.ExpectTryAcquire("t")
		s.pg.ExpectRefresh("t").After(600 * time.Millisecond)
		s.pg.ExpectRefresh("t").After(100 * time.Millisecond)
		s.pg.ExpectRefresh("t")
		lock, err = s.l.TryAcquire(ctxBG, "t", swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
		if err != nil {
			s.Fatal(err)
		}
		time.Sleep(1360 * time.Millisecond)
		s.alive(lock)
		s.pg.ExpectRelease("t")
		s.is(lock.Release(ctxBG), nil)
	})
}
