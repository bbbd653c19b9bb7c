package pglock

import (
	"database/sql"
	"math"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// An owner has a session to itself, which it may use at any time and whose lease
// it has set once. Its methods are called with the ledger's mutex held.
type owner interface {
	// freed is called when the session does not hold h any more.
	freed(h *hold)
	// overdue is called when locks have expired, and are to be unlocked.
	overdue()
	// slow is called when a statement of the session takes long. The owner may
	// have it cancelled; it calls done when no cancel of its own is under way
	// any more.
	slow(session db.CancelBackendParams, done func())
}

// lose ends every lock of a session that is gone, and wakes all that wait for
// the session.
func (led *ledger) lose(cause error) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.loseLocked(cause)
}

func (led *ledger) loseLocked(cause error) {
	if led.dead != nil {
		return
	}
	led.dead = cause
	close(led.gone)
	led.silence.begin() // There will be no answer to wait for.
	led.alarm.stop()
	now := time.Now()
	for _, h := range led.locks {
		h.expireLocked(now) // Its own end may be why the session is gone.
		h.abandonLocked(cause)
		if led.owner != nil {
			led.owner.freed(h)
		}
	}
	led.clearLocked()
	led.lease.ttl, led.owner = 0, nil
	led.letGoLocked()
}

// abandon ends the locks that were taken through conn, whose owner has closed
// it. The session may be alive, in the *sql.DB, with the locks on it. The next
// call that uses the session unlocks them.
func (led *ledger) abandon(conn *sql.Conn, cause error) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.abandonLocked(conn, false, cause)
}

// abandonLocked ends the locks that were taken through conn or, if others is
// true, those that were taken through any other connection.
func (led *ledger) abandonLocked(conn *sql.Conn, others bool, cause error) {
	for _, h := range led.locks {
		if h.a != nil && (h.a.conn.SQL() != conn) == others {
			h.abandonLocked(cause)
		}
	}
	for t := range led.tickets {
		if (t.a.conn.SQL() != conn) == others {
			led.forsakeLocked(t)
		}
	}
}

// expire ends the locks whose time is up and sets the timer for the next. The
// timer is set lazily: a refresh does not touch it.
func (led *ledger) expire() {
	led.mu.Lock()
	defer led.mu.Unlock()
	if !led.alarm.goesOff() {
		return
	}
	if next := led.leftLocked(); next < math.MaxInt64 {
		led.alarm.set(next, led.expire)
	}
	if led.owner != nil && len(led.unsettled) > 0 {
		led.owner.overdue()
	}
}

// left returns how long it takes until the first of the locks ends.
func (led *ledger) left() time.Duration {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.leftLocked()
}

func (led *ledger) leftLocked() time.Duration {
	now, left := time.Now(), time.Duration(math.MaxInt64)
	for _, h := range led.locks {
		if h.expireLocked(now); h.err == nil {
			left = min(left, h.leftLocked(now))
		}
	}
	return left
}

// letGoLocked removes the ledger from orphans if there is nothing to settle any
// more.
func (led *ledger) letGoLocked() {
	if led.kept && !led.hasStateLocked() {
		led.kept = false
		orphans.Delete(led)
	}
}

// hasStateLocked reports whether the session may have locks, tickets or a
// lease.
func (led *ledger) hasStateLocked() bool {
	return len(led.locks)+len(led.tickets) > 0 || led.lease.ttl > 0
}

// state reports whether the session was destroyed, whether it has an owner, and
// whether it may have locks, tickets or a lease.
func (led *ledger) state() (dead, owned, hasState bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.dead != nil, led.owner != nil, led.hasStateLocked()
}

// maxSilence is how long a session that holds a lock without a TTL waits for
// the answer to a statement. The wait is long because it is safe: the server
// gives the lock to nobody else while the session lives.
var maxSilence = time.Minute

// Silent returns how much longer the locks of the session can wait for a statement
// that the server has not answered. When none can wait, the session is lost.
func (led *ledger) Silent(since time.Duration) time.Duration {
	led.mu.Lock()
	defer led.mu.Unlock()
	now := time.Now()
	var more time.Duration
	for _, h := range led.locks {
		switch left := h.leftLocked(now); {
		case h.err != nil:
		case left < math.MaxInt64:
			more = max(more, left)
		default:
			more = max(more, maxSilence-since)
		}
	}
	if awaited := led.silence.awaited(); more == 0 && awaited > 0 && led.dead == nil {
		return min(awaited, lookAgain)
	}
	if led.silence.begin() && led.owner != nil && more > 0 {
		led.silence.cancels.Add(1)
		led.owner.slow(db.CancelBackendParams{Pid: led.who.pid, Started: led.who.started}, led.silence.cancels.Done)
	}
	if more > 0 {
		return min(more, patience) // The locks that can wait may be released meanwhile.
	}
	led.loseLocked(oneconn.ErrSilent)
	return 0
}
