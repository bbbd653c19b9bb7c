package pglock

import (
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// A ledger is what this process knows of one PostgreSQL session: the locks and
// the places in line that it has, and what is still to be settled with the
// server. PostgreSQL lets a session take a lock that it holds already, and then
// wants as many unlocks. So all lockers that use a session must find the same
// ledger: two on one *sql.Conn, or one on a connection that the *sql.DB hands
// out again with a lock on it. They find it by the driver's connection, or else
// by the mark that the server has: see identity.go.
//
// Its parts say who the session is, whether the server answers, how its lease is
// made, and what it holds. The ledger puts them together: it adds and ends locks.
type ledger struct {
	turns   oneconn.Turns // only the holder of the turn uses the session
	gone    chan struct{} // closed when the session was destroyed
	who     identity
	silence silence

	// Used by the holder of the turn.
	settings settings      // those that make the lease on the server
	midway   bool          // a statement was sent in this turn
	inVain   error         // a row has waited in vain in this turn: see unwritable
	marked   bool          // the token was sent; a rollback or DISCARD ALL may have removed it since
	schema   string        // the quoted schema of lock_audit; empty if it was not found
	deadlock time.Duration // deadlock_timeout; 0: not asked for yet

	books // what the server may hold for the session; its mutex guards what follows

	lease lease // the shortest TTL of the locks, or what owner has set; it starts with the last statement
	alarm alarm // ends locks that have expired
	owner owner // nil: the session is on a caller's connection
	dead  error // why the session was destroyed; nil while it lives
	kept  bool  // this ledger is in orphans
}

// ledgers has a ledger for each driver's connection on which a lock was taken.
// A ledger must not keep its connection alive, so a lock that is over drops its
// reference to it.
var ledgers = oneconn.Map[*ledger]{Gone: orphaned}

func ledgerOf(conn *sql.Conn) (*ledger, error) {
	led, err := ledgers.Of(conn, newLedger)
	if err == nil {
		led = led.current()
		led.who.cameThrough(conn)
	}
	return led, err
}

func newLedger() *ledger {
	led := &ledger{turns: oneconn.NewTurns(), who: identity{token: newToken()}, gone: make(chan struct{}), books: newBooks()}
	led.settings.base = rand.Int64N(math.MaxInt64 / 2)
	led.silence.end()
	register(led)
	return led
}

// current returns the ledger of the session. That is led, unless led was made
// for a connection whose session turned out to have another ledger already: see
// adopt.
func (led *ledger) current() *ledger {
	if next := led.who.next.Load(); next != nil {
		return next
	}
	return led
}

// An entry is what an acquire must know of its session before it sends
// anything.
type entry struct {
	unsettled bool   // settle must be called first
	held      *hold  // the lock on the same key that the session has by the ledger, or nil
	lease     string // the lease that the session is to have, in milliseconds; empty: none
}

// enter begins an acquire of r through conn. Locks and tickets that were taken
// through other connections are given up: those connections were closed, since
// the *sql.DB has handed the session out again.
func (led *ledger) enter(conn *sql.Conn, r request) (e entry, err error) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.abandonLocked(conn, true, errClosed)
	if led.dead != nil {
		return e, destroyed(led.dead)
	}
	e = entry{unsettled: len(led.unsettled)+len(led.abandoned) > 0 || led.settings.places.left() != nil, held: led.locks[lockID{key: r.key}]}
	if r.TTL > 0 && led.owner == nil {
		ttl := led.settings.wantFor(r.TTL)
		e.lease = timeouts{}.of(ttl).idleInTransaction
	}
	return e, nil
}

// add enters a lock that the server has granted to a statement sent at the time
// given. It returns why the lock is over already, or nil.
func (led *ledger) add(h *hold, sent time.Time) error {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.putLocked(h)
	led.lease.restart(sent)
	led.countLocked()
	now := time.Now()
	if h.lease.ttl > 0 || led.lease.ttl > 0 {
		led.alarm.set(h.leftLocked(now), led.expire)
	}
	h.expireLocked(now)
	return h.err
}

// settled notes the server's answer to an unlock: held says that the session
// held h until then. It returns why h is over.
func (led *ledger) settled(h *hold, held bool) error {
	led.mu.Lock()
	defer led.mu.Unlock()
	if held {
		h.endLocked(swanlock.ErrReleased)
	} else {
		h.endLocked(lost(errNotHeld))
	}
	if !led.strikeLocked(h) {
		return h.err
	}
	h.letGoLocked()
	led.countLocked()
	if len(led.locks) == 0 {
		led.alarm.stop()
	}
	if led.owner != nil {
		led.owner.freed(h)
	}
	led.letGoLocked()
	return h.err
}

// recount sets the lease that the locks count on, after the settings have changed.
// If they were changed by a statement that has made the lease shorter, it was sent
// at the time given.
func (led *ledger) recount(sent time.Time) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.countLocked()
	if !sent.IsZero() {
		led.lease.restart(sent)
		if len(led.locks) > 0 {
			led.alarm.set(led.lease.left(time.Now()), led.expire)
		}
	}
}

// countLocked is recount for the holder of the turn, which has put in a lock or
// struck one out.
func (led *ledger) countLocked() {
	if led.owner != nil || led.dead != nil {
		return
	}
	was := led.lease.ttl
	led.settings.locks = led.shortestLocked(nil)
	led.lease.ttl = led.settings.counted(len(led.locks) > 0)
	if led.lease.ttl == 0 || was > 0 && was <= led.lease.ttl {
		return
	}
	for _, h := range led.locks { // The next background refresh of some would be too late.
		if h.auto != nil && h.err == nil {
			h.auto.Reset(h.refreshInLocked())
		}
	}
}

// displace strikes out the place in line of t.
func (led *ledger) displace(t *ticket) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.displaceLocked(t)
	led.letGoLocked()
}

// own makes o the owner of the session, whose lease a statement sent at the time
// given has set to ttl. If o is nil, the session has no owner any more.
func (led *ledger) own(o owner, ttl time.Duration, sent time.Time) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.owner, led.lease = o, lease{ttl, sent}
	led.settings = settings{base: led.settings.base, gen: led.settings.gen, owned: o != nil}
	if ttl > 0 && len(led.locks) > 0 {
		led.alarm.set(led.lease.left(time.Now()), led.expire)
	}
}

// alive returns an error if the session was destroyed.
func (led *ledger) alive() error {
	led.mu.Lock()
	defer led.mu.Unlock()
	return destroyed(led.dead)
}

// destroyed returns the error of a session that was destroyed because of cause;
// nil if cause is nil.
func destroyed(cause error) error {
	if cause == nil {
		return nil
	}
	return fmt.Errorf("the session was destroyed (%w): take another connection: %w", cause, sql.ErrConnDone)
}

// touch notes that a statement sent at the time given was answered. It has
// restarted the lease on the server.
func (led *ledger) touch(sent time.Time) {
	led.mu.Lock()
	led.lease.restart(sent)
	led.mu.Unlock()
}

// renewed notes that a statement sent at the time given has proven the locks for
// which proven reports true: their TTL starts anew.
func (led *ledger) renewed(sent time.Time, proven func(*hold) bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.lease.restart(sent)
	for _, h := range led.locks {
		if !proven(h) {
			continue
		}
		if h.expireLocked(sent); h.err == nil {
			h.lease.start = sent
		}
	}
}

// orphans are the ledgers that have no driver's connection any more, but locks,
// tickets or a lease to be settled when the session is found again. The map
// keeps them from being collected until then.
var orphans sync.Map

// orphaned keeps a ledger whose driver's connection was collected, if there is
// something to settle.
func orphaned(led *ledger) {
	led = led.current()
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.hasStateLocked() && led.dead == nil {
		led.kept = true
		orphans.Store(led, nil)
	}
}
