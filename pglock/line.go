package pglock

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// A line is the queue in which callers on all hosts wait for a lock, first
// come, first served. It works like a CLH queue lock: each waiter has a ticket,
// an advisory lock of its session, and waits for the ticket of its predecessor.
// queries/line.sql says how that is made.

// goneAhead is what Turn answers when the ticket ahead is gone, and Turn has
// not found out which ticket is ahead now.
const goneAhead = -3

// maxProbes is how many numbers Turn tries one by one, at most. To try that
// many costs as much as a look at pg_locks that meets no other locker.
const maxProbes = 256

// numberBits is how many of a ticket's 64 bits are its number: see queries/line.sql.
const numberBits = 18

// lineHash returns the hash of the key's line: the key, with zeros in the bits
// of the tickets' numbers.
func lineHash(k Key) int64 { return int64(k) &^ (1<<numberBits - 1) }

// A lineHint remembers the line that was last joined here, so that a caller that
// wants the key again joins its end at once. A try would mostly be in vain, and
// otherwise overtake the others just when one of them is being told that it is
// first.
type lineHint struct {
	mu            sync.Mutex
	contended     bool
	key           Key
	lastTicket    int32 // the number that was last taken here
	lowestTicket  int32 // no number below is live
	joinedAt      time.Time
	lastContended time.Time // when another waiter was last seen
}

// hintLifetime is how long a hint is used.
const hintLifetime = 100 * time.Millisecond

// at reports whether the line that was last joined is that of key, and had
// other waiters.
func (c *lineHint) at(key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contended && c.key == key
}

// numbers returns the number that was last taken in key's line, and the number
// below which none is live. Both are 0 if the hint is too old: all tickets
// behind that number may be gone.
func (c *lineHint) numbers(key Key) (last, lowest int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.contended || c.key != key || time.Since(c.joinedAt) > hintLifetime {
		return 0, 0
	}
	return c.lastTicket, c.lowestTicket
}

// joined notes the ticket t that was taken for key. tried says that a try had
// failed before, so that there is another caller even if t is first in line.
func (c *lineHint) joined(key Key, t *ticket, tried bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case tried || t.ahead.Load() != 0:
		c.contended, c.lastContended = true, now
	case c.key != key:
		return
	case now.Sub(c.lastContended) > hintLifetime:
		c.contended = false
	}
	c.key, c.lastTicket, c.lowestTicket, c.joinedAt = key, t.number, t.lowest.Load(), now
}

// passed notes that no number below lowest is live in t's line. The hint may be
// of a later line for the same key: then lowest is not between its two numbers.
func (c *lineHint) passed(t *ticket, lowest int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lineHash(c.key) == t.hash && c.lowestTicket <= lowest && lowest <= c.lastTicket {
		c.lowestTicket = lowest
	}
}

// An advanced is the result of advance.
type advanced struct {
	granted  bool // the session holds the lock
	waited   bool // the statement waited in the server, so the caller need not pause
	timedOut bool // the server ended that wait, and has logged so
}

// advance asks whether t has reached the front of its line, and takes the lock
// then. If wait is not 0, the statement waits in the server for that long at
// most, first for the ticket ahead and then for the lock, unless it is in a
// transaction of the caller's.
func (t *ticket) advance(ctx context.Context, tn turn, h *hold, wait time.Duration) (advanced, error) {
	pid := t.pid
	if t.led != tn.led {
		pid = tn.led.who.pid
	}
	params := db.TurnParams{Ahead: t.ahead.Load(), Lowest: t.lowest.Load(), Hash: t.hash, Ticket: t.number, Hint: t.after,
		Shared: h.Shared, Key: int64(h.key), Mine: t.led == tn.led}
	takes := t.after > 0
	switch {
	case takes:
	case params.Ahead == 0:
		params.Lowest = t.number // No number is tried.
	case slices.Min(append(tn.led.numbers(t.hash), t.number)) < t.number:
		// A ticket of this same session is ahead, which the session can neither
		// wait for nor find by trying.
		wait, params.Lowest = 0, 0
	case params.Lowest < t.number-maxProbes:
		params.Lowest = 0
	}
	if wait > 0 {
		params.Slice = strconv.FormatInt(milliseconds(wait), 10)
	}
	sent := time.Now()
	row, err := askWhere(ctx, tn, (*db.Queries).Turn, func(outside bool) db.TurnParams {
		if outside {
			home := homeWithout(tn, t.place)
			params.Backend, params.Idle, params.IdleInTransaction = tn.led.who.pid, home.idle, home.idleInTransaction
		}
		if tn.conn.InTransaction() { // It may have been begun after the ticket was taken.
			params.Slice = ""
		}
		return params
	})
	switch {
	case waitEnded(err):
		// The wait ended, but the lock may have been granted all the same.
		if takes {
			if err := t.find(tn, h.key, err); err != nil {
				return advanced{waited: true}, err
			}
		}
		return waitedOut(tn, h, pid, sent)
	case err != nil:
		if takes {
			undoTicket(tn, t.hash, err)
		}
		undo(tn, h, err)
		return advanced{}, explain(err, false)
	}
	tn.led.touch(sent)
	h.pid = row.Pid
	if takes {
		t.numbered(h.key, row.Pid, row.Ticket)
	}
	if row.Pid != pid {
		terminate(tn, h)
		if t.led == tn.led {
			t.drop(tn)
		}
		tn.destroy(ErrPooler)
		return advanced{}, ErrPooler
	}
	waited := advanced{waited: row.Waits}
	switch row.Answer {
	case onStandby:
		return advanced{}, ErrStandby
	case heldElsewhere:
		t.ahead.Store(0)
		return advanced{}, nil
	case goneAhead:
		err := t.lookAhead(ctx, tn)
		waited.waited = err == nil && (row.Waits || t.ahead.Load() == 0)
		return waited, err
	case 0:
		t.ahead.Store(0)
		t.hint.passed(t, t.number)
		if params.Mine {
			t.led.displace(t)
		}
		if row.Restored {
			removePlace(tn, t.place)
		}
		h.began(sent)
		waited.granted = true
		return waited, nil
	default:
		t.ahead.Store(int32(row.Answer))
		return waited, nil
	}
}

// waitedOut finds out whether a wait that the server ended has got the lock.
func waitedOut(tn turn, h *hold, pid int32, began time.Time) (advanced, error) {
	sent := time.Now()
	held, err := probe(tn, h)
	if err == nil && held.Pid != pid {
		err = ErrPooler
	}
	if err != nil {
		tn.destroy(err)
		return advanced{waited: true}, err
	}
	tn.led.touch(sent)
	h.pid = pid
	h.began(began)
	return advanced{granted: held.Held, waited: true, timedOut: !held.Held}, nil
}

// lookAhead finds the ticket that is ahead of t, however far, by a look at
// pg_locks.
func (t *ticket) lookAhead(ctx context.Context, tn turn) error {
	row, err := look(ctx, tn, (*db.Queries).Ahead, db.AheadParams{Hash: t.hash, Ticket: t.number})
	if err == nil {
		t.ahead.Store(row.Ahead)
		t.lowest.Store(row.Lowest)
		t.hint.passed(t, row.Lowest)
	}
	return explain(err, false)
}

// complete gives the bare lock that the line granted its fence, audit row and
// lease. It takes the lock a second time, in the statement that does these, and
// then unlocks it once. If it fails, nothing is held.
func complete(ctx context.Context, tn turn, h *hold) error {
	granted := h.info.AcquiredAt
	if !h.Fence && !tn.audit && (h.TTL == 0 || tn.led.settings.owned) {
		over := tn.led.add(h, granted)
		if late := h.tooLate(ctx, over); late != nil {
			release(tn, h)
			return late
		}
		return nil
	}
	h.bare = true
	e, err := tn.led.enter(tn.sql(), h.request)
	if err == nil {
		err = grant(ctx, tn, h, e.lease)
	}
	if err != nil {
		unlockBare(tn, h)
		return err
	}
	h.info.AcquiredAt = granted
	if !h.bare { // The lock that the line granted went with a statement that was repeated.
		return nil
	}
	row, err := unlock(tn, h, change{}, false, false)
	if err == nil && (row.Pid != h.pid || !row.Released) {
		err = ErrPooler
	}
	if err != nil {
		tn.destroy(err)
	}
	return err
}

// unlockBare gives back the bare lock that the line granted.
func unlockBare(tn turn, h *hold) {
	if tn.led.alive() != nil {
		return
	}
	if still := unlockIfHeld(tn, h.key, h.Shared); still != nil {
		tn.destroy(still)
	}
}

// elsewhere reports whether a try failed because another session has the lock.
func elsewhere(err error) bool {
	return errors.Is(err, swanlock.ErrNotAcquired) && !errors.Is(err, swanlock.ErrAlreadyHeld)
}
