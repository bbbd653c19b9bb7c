package pglock

import (
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
)

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
	if !led.stalled.Swap(true) {
		close(*led.silence.Load()) // There will be no answer to wait for.
	}
	led.disarmLocked()
	now := time.Now()
	for _, h := range led.locks {
		h.expireLocked(now) // Its own end may be why the session is gone.
		h.abandonLocked(cause)
		if led.owner != nil {
			led.owner.freed(h)
		}
	}
	clear(led.locks)
	clear(led.readers)
	clear(led.tickets)
	clear(led.places)
	led.unsettled, led.abandoned, led.lease.ttl, led.owner = nil, nil, 0, nil
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
		if h.a != nil && (h.a.sql() != conn) == others {
			h.abandonLocked(cause)
		}
	}
	for t := range led.tickets {
		if (t.a.sql() != conn) == others && !slices.Contains(led.abandoned, t) {
			led.abandoned = append(led.abandoned, t)
		}
	}
}

// armLocked makes the timer go off in d, if it would not do so sooner.
func (led *ledger) armLocked(d time.Duration) {
	at := time.Now().Add(d)
	switch {
	case led.timer == nil:
		led.timer = time.AfterFunc(d, led.expire)
	case at.Before(led.wake):
		led.timer.Reset(d)
	default:
		return
	}
	led.wake = at
}

func (led *ledger) disarmLocked() {
	if led.timer != nil {
		led.timer.Stop()
		led.timer = nil
	}
}

// expire ends the locks whose time is up and sets the timer for the next. The
// timer is set lazily: a refresh does not touch it.
func (led *ledger) expire() {
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.timer == nil {
		return
	}
	now := time.Now()
	next := time.Duration(math.MaxInt64)
	for _, h := range led.locks {
		if h.expireLocked(now); h.err == nil {
			next = min(next, h.lease.left(now), led.lease.left(now))
		}
	}
	led.timer = nil
	if next < math.MaxInt64 {
		led.armLocked(next)
	}
	if led.owner != nil && len(led.unsettled) > 0 {
		led.owner.overdue()
	}
}

// endAll ends locks that are to be unlocked on behalf of somebody else than their
// holders, who must know of it first.
func (led *ledger) endAll(holds []*hold) {
	led.mu.Lock()
	defer led.mu.Unlock()
	now := time.Now()
	for _, h := range holds {
		if h.expireLocked(now); h.err == nil {
			h.endLocked(swanlock.ErrReleased)
			h.ending = true
		}
	}
}
