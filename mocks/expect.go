package mocks

import (
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

// An outcome is how the server answers.
type outcome int

const (
	truthful outcome = iota // grants; refreshes and releases what was granted
	heldElsewhere
	staysHeldElsewhere
	alreadyHeld
	onStandby
	fenceTooOld
	lost
	otherBackend
	fails
	failsAfterGrant
)

// A step is one expectation of the script.
type step struct {
	pg      *Postgres
	verb    verb
	target  string
	id      string // what go-sqlmock knows it by
	met     bool
	outcome outcome
	err     error
	fence   uint64 // 0: the next one
	delay   time.Duration
	wants   []want
}

// A want is what a statement must ask for. It returns what is wrong.
type want func(q *question) (problem string)

func (s *step) String() string {
	if s.outcome == alreadyHeld {
		return fmt.Sprintf("TryAcquire of %q by the session that holds it", s.target)
	}
	return fmt.Sprintf("%s of %q", s.verb, s.target)
}

func (s *step) set(f func()) {
	s.pg.mu.Lock()
	defer s.pg.mu.Unlock()
	f()
}

func (s *step) fails(o outcome, err error) {
	s.pg.t.Helper()
	if err == nil {
		s.pg.t.Fatalf("mocks: %s: Fails needs an error", s)
	}
	s.set(func() { s.outcome, s.err = o, err })
}

// An ExpectedTryAcquire is an attempt to take a lock that the script expects.
// Unless told otherwise the server grants it, whatever the options.
type ExpectedTryAcquire struct{ s *step }

// ExpectTryAcquire expects an attempt to take the lock on target. An Acquire
// makes as many as it needs, one at a time. As everywhere in a script, any
// spelling of target will do: swanlock.KeyOf says what is one.
func (pg *Postgres) ExpectTryAcquire(target string) *ExpectedTryAcquire {
	return &ExpectedTryAcquire{pg.expect(tryAcquire, target)}
}

func (e *ExpectedTryAcquire) answer(o outcome) *ExpectedTryAcquire {
	e.s.set(func() { e.s.outcome = o })
	return e
}

// Granted grants the lock, with the next fence if one is asked for.
func (e *ExpectedTryAcquire) Granted() *ExpectedTryAcquire { return e.answer(truthful) }

// GrantedWithFence grants the lock with this fence, which must be asked for.
func (e *ExpectedTryAcquire) GrantedWithFence(fence uint64) *ExpectedTryAcquire {
	e.s.set(func() { e.s.fence = fence })
	return e.answer(truthful)
}

// HeldElsewhere says that another session holds the lock.
func (e *ExpectedTryAcquire) HeldElsewhere() *ExpectedTryAcquire { return e.answer(heldElsewhere) }

// StaysHeldElsewhere says so to this attempt and to all that follow, until
// another one of this target is next in the script: an Acquire waits.
func (e *ExpectedTryAcquire) StaysHeldElsewhere() *ExpectedTryAcquire {
	return e.answer(staysHeldElsewhere)
}

// AlreadyHeld expects that the session which holds the lock is asked for it
// again, and that it finds that it still holds it (swanlock.ErrAlreadyHeld).
func (e *ExpectedTryAcquire) AlreadyHeld() *ExpectedTryAcquire { return e.answer(alreadyHeld) }

// Standby says that the server is a standby (pglock.ErrStandby).
func (e *ExpectedTryAcquire) Standby() *ExpectedTryAcquire { return e.answer(onStandby) }

// FenceInTransaction says that the fence was asked for too late
// (pglock.ErrFenceInTransaction).
func (e *ExpectedTryAcquire) FenceInTransaction() *ExpectedTryAcquire { return e.answer(fenceTooOld) }

// Fails answers with err. It is the server's error if err is an SQLState. Any
// other err is one of the connection, which pglock then destroys. Nothing is
// granted.
func (e *ExpectedTryAcquire) Fails(err error) *ExpectedTryAcquire {
	e.s.pg.t.Helper()
	e.s.fails(fails, err)
	return e
}

// FailsAfterGrant answers with err although the lock was granted, as a timeout
// or a failing audit does.
func (e *ExpectedTryAcquire) FailsAfterGrant(err error) *ExpectedTryAcquire {
	e.s.pg.t.Helper()
	e.s.fails(failsAfterGrant, err)
	return e
}

// After makes the answer take d.
func (e *ExpectedTryAcquire) After(d time.Duration) *ExpectedTryAcquire {
	e.s.set(func() { e.s.delay = d })
	return e
}

// WithShared wants a reader, which has asked with swanlock.WithShared.
func (e *ExpectedTryAcquire) WithShared() *ExpectedTryAcquire {
	return e.wants(func(q *question) string {
		if !q.Shared {
			return "wants the lock exclusive, not shared"
		}
		return ""
	})
}

// WithExclusive wants a writer, which has asked without swanlock.WithShared.
func (e *ExpectedTryAcquire) WithExclusive() *ExpectedTryAcquire {
	return e.wants(func(q *question) string {
		if q.Shared {
			return "wants the lock shared, not exclusive"
		}
		return ""
	})
}

// WithFence wants swanlock.WithFence.
func (e *ExpectedTryAcquire) WithFence() *ExpectedTryAcquire {
	return e.wants(func(q *question) string {
		if !q.Fence {
			return "wants no fence"
		}
		return ""
	})
}

// WithTTL wants swanlock.WithTTL(ttl), or with 0 that there is none. The server
// keeps whole milliseconds, rounded up, and the shortest TTL of a session.
func (e *ExpectedTryAcquire) WithTTL(ttl time.Duration) *ExpectedTryAcquire {
	return e.wants(func(q *question) string {
		ms, lease := (ttl+time.Millisecond-1)/time.Millisecond, ""
		if ms > 0 {
			lease = fmt.Sprint(int64(ms))
		}
		if q.audited() && q.TtlMs != int64(ms) {
			return fmt.Sprintf("has a TTL of %d ms, not %d", q.TtlMs, ms)
		}
		if !q.audited() && q.Lease != lease {
			return fmt.Sprintf("has a lease of %q ms, not %q", q.Lease, lease)
		}
		return ""
	})
}

// WithAudit wants pglock.WithAudit, and swanlock.WithOwner(owner).
func (e *ExpectedTryAcquire) WithAudit(owner string) *ExpectedTryAcquire {
	return e.wants(func(q *question) string {
		switch {
		case !q.audited():
			return "is not audited"
		case q.Owner != owner:
			return fmt.Sprintf("is audited for %q, not %q", q.Owner, owner)
		}
		return ""
	})
}

func (e *ExpectedTryAcquire) wants(w want) *ExpectedTryAcquire {
	e.s.set(func() { e.s.wants = append(e.s.wants, w) })
	return e
}

// An Expected is a question about a lock that the script expects. Unless told
// otherwise the server answers truthfully: what the script granted is held until
// it is released, lost, or undone.
type Expected struct{ s *step }

// ExpectRefresh expects that the lock on target is refreshed.
func (pg *Postgres) ExpectRefresh(target string) *Expected { return pg.question(refresh, target) }

// ExpectRelease expects that the lock on target is released.
func (pg *Postgres) ExpectRelease(target string) *Expected { return pg.question(release, target) }

// ExpectProbe expects that pglock asks whether target is held, as it does after
// a refresh or an undo that failed.
func (pg *Postgres) ExpectProbe(target string) *Expected { return pg.question(probe, target) }

// ExpectUndo expects that pglock takes back what a try that failed may have
// been granted.
func (pg *Postgres) ExpectUndo(target string) *Expected { return pg.question(undo, target) }

// ExpectTerminate expects that pglock ends the backend that granted the lock on
// target, because another one answered.
func (pg *Postgres) ExpectTerminate(target string) *Expected { return pg.question(terminate, target) }

func (pg *Postgres) question(v verb, target string) *Expected { return &Expected{pg.expect(v, target)} }

func (e *Expected) answer(o outcome) *Expected {
	e.s.set(func() { e.s.outcome = o })
	return e
}

// Lost says that the session does not hold the lock any more.
func (e *Expected) Lost() *Expected { return e.answer(lost) }

// ByAnotherBackend makes another backend answer than the one that granted the
// lock, as behind a pooler in transaction mode (pglock.ErrPooler).
func (e *Expected) ByAnotherBackend() *Expected { return e.answer(otherBackend) }

// Fails answers with err, and changes nothing. See ExpectedTryAcquire.Fails.
func (e *Expected) Fails(err error) *Expected {
	e.s.pg.t.Helper()
	e.s.fails(fails, err)
	return e
}

// After makes the answer take d.
func (e *Expected) After(d time.Duration) *Expected {
	e.s.set(func() { e.s.delay = d })
	return e
}

// An SQLState is an error that a PostgreSQL driver would return, with one of the
// server's codes, as 57014 for a statement timeout.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
type SQLState string

func (s SQLState) Error() string { return "mocks: the server failed (SQLSTATE " + string(s) + ")" }

// SQLState is the method of a driver's error that pglock looks for.
func (s SQLState) SQLState() string { return string(s) }

// accepts reports whether q is what s expects.
func (s *step) accepts(q *question) bool {
	if pglock.KeyOf(s.target) != q.key() {
		return false
	}
	switch {
	case s.outcome == alreadyHeld:
		return q.verb == probe || q.mayProbe
	case s.verb == probe:
		return q.verb == probe || q.mayProbe
	}
	return s.verb == q.verb
}
