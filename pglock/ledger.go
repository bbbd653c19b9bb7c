package pglock

import (
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// A ledger is what this process knows of one PostgreSQL session: the locks and
// the places in line that it has, and what is still to be settled with the
// server. PostgreSQL lets a session take a lock that it holds already, and then
// wants as many unlocks. So all lockers that use a session must find the same
// ledger: two on one *sql.Conn, or one on a connection that the *sql.DB hands
// out again with a lock on it. They find it by the driver's connection, or else
// by the mark that the server has: see identity.go.
type ledger struct {
	turns oneconn.Turns // only the holder of the turn uses the session
	token string        // the mark by which the server knows the session
	gone  chan struct{} // closed when the session was destroyed
	// While a statement takes longer than callers wait for it, silence is
	// closed and stalled is true.
	silence atomic.Pointer[chan struct{}]
	stalled atomic.Bool
	spoke   atomic.Bool             // the server has answered a statement of ours
	callers atomic.Pointer[callers] // those that wait for the first answer
	// cancels counts the cancels that are under way on the server. cancelled
	// says that one of them was sent during the last statement.
	cancels   sync.WaitGroup
	cancelled atomic.Bool

	// Used by the holder of the turn.
	midway  bool   // a statement was sent in this turn
	marked  bool   // the token was sent; a rollback or DISCARD ALL may have removed it since
	backend int32  // the process id that was marked last, or 0; mu is held, too, to write it
	started int64  // when that process was started, as Mark answers; mu is held, too, to write it
	schema  string // the quoted schema of lock_audit; empty if it was not found

	deadlock time.Duration // deadlock_timeout; 0: not asked for yet

	next atomic.Pointer[ledger] // the ledger to use instead, if the session turned out to have one already

	mu        sync.Mutex
	last      weak.Pointer[sql.Conn]   // the connection that last led to the session
	kept      bool                     // this ledger is in orphans
	dead      error                    // why the session was destroyed; nil while it lives
	locks     map[lockID]*hold         // the locks that the server may hold for this session
	unsettled []*hold                  // those of locks that have ended here, and are to be unlocked
	tickets   map[*ticket]struct{}     // the session's places in line
	abandoned []*ticket                // those of tickets that are to be dropped, because no caller waits on them
	readers   map[Key]int              // how many of locks are readers' of a key; the server has one lock for them
	lease     lease                    // the shortest TTL of the locks, or what owner has set; it starts with the last statement
	settings  settings                 // the settings that make the lease on the server
	places    map[*placeLease]struct{} // the leases of places in line
	timer     *time.Timer              // ends locks that have expired
	wake      time.Time                // when the timer goes off
	owner     owner                    // nil: the session is on a caller's connection
}

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

// A lockID tells the locks of a session apart. A session has one lock on a key;
// only the readers of a pool share a key on one session, and are numbered from
// 1.
type lockID struct {
	key    Key
	reader int
}

// ledgers has a ledger for each driver's connection on which a lock was taken.
// A ledger must not keep its connection alive, so a lock that is over drops its
// reference to it.
var ledgers = oneconn.Map[*ledger]{Gone: orphaned}

func ledgerOf(conn *sql.Conn) (*ledger, error) {
	led, err := ledgers.Of(conn, newLedger)
	if err == nil {
		led = led.current()
		led.cameThrough(conn)
	}
	return led, err
}

func newLedger() *ledger {
	led := &ledger{turns: oneconn.NewTurns(), token: newToken(), gone: make(chan struct{}),
		locks: make(map[lockID]*hold), tickets: make(map[*ticket]struct{})}
	silence := make(chan struct{})
	led.silence.Store(&silence)
	led.register()
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
		return e, led.deadLocked()
	}
	e = entry{unsettled: len(led.unsettled)+len(led.abandoned) > 0 || led.leftPlaceLocked() != nil, held: led.locks[lockID{key: r.key}]}
	if r.TTL > 0 && led.owner == nil {
		ttl := r.TTL
		if shortest := led.wantLocked(nil); shortest > 0 {
			ttl = min(ttl, shortest)
		}
		e.lease = timeouts{}.of(ttl).idleInTransaction
	}
	return e, nil
}

// add enters a lock that the server has granted to a statement sent at the time
// given. It returns why the lock is over already, or nil.
func (led *ledger) add(h *hold, sent time.Time) error {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.locks[h.id] = h
	led.countReaderLocked(h.id, 1)
	led.touchLocked(sent)
	led.countLocked()
	now := time.Now()
	if h.lease.ttl > 0 || led.lease.ttl > 0 {
		led.armLocked(min(h.lease.left(now), led.lease.left(now)))
	}
	h.expireLocked(now)
	return h.err
}

// contains reports whether the server may still hold h for this session.
func (led *ledger) contains(h *hold) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.locks[h.id] == h
}

// held returns the lock on key that the server may think this session holds, or
// nil; a pool's readers are left out.
func (led *ledger) held(key Key) *hold {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.locks[lockID{key: key}]
}

// holds returns all locks that the server may think this session holds.
func (led *ledger) holds() []*hold {
	led.mu.Lock()
	defer led.mu.Unlock()
	return slices.Collect(maps.Values(led.locks))
}

// any returns one of holds, or nil.
func (led *ledger) any() *hold {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		return h
	}
	return nil
}

// empty reports whether the session holds nothing.
func (led *ledger) empty() bool { return led.any() == nil }

// place enters the place in line of t.
func (led *ledger) place(t *ticket) {
	led.mu.Lock()
	led.tickets[t] = struct{}{}
	led.mu.Unlock()
}

// displace strikes out the place in line of t.
func (led *ledger) displace(t *ticket) {
	led.mu.Lock()
	defer led.mu.Unlock()
	delete(led.tickets, t)
	led.abandoned = slices.DeleteFunc(led.abandoned, func(o *ticket) bool { return o == t })
	led.letGoLocked()
}

// has reports whether t still has its place.
func (led *ledger) has(t *ticket) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	_, ok := led.tickets[t]
	return ok
}

// numbers returns the numbers of the session's tickets in the line of hash.
func (led *ledger) numbers(hash int64) (numbers []int32) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for t := range led.tickets {
		if t.hash == hash {
			numbers = append(numbers, t.number)
		}
	}
	return numbers
}

// nextUnsettled returns a lock that is to be unlocked, or a ticket that is to be
// dropped, if there is one.
func (led *ledger) nextUnsettled() (*hold, *ticket) {
	led.mu.Lock()
	defer led.mu.Unlock()
	switch {
	case len(led.abandoned) > 0:
		return nil, led.abandoned[0]
	case len(led.unsettled) > 0:
		return led.unsettled[0], nil
	}
	return nil, nil
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
	led.removeLocked(h)
	return h.err
}

// removeLocked strikes out a lock that the session does not hold any more.
func (led *ledger) removeLocked(h *hold) {
	led.unsettled = slices.DeleteFunc(led.unsettled, func(o *hold) bool { return o == h })
	if led.locks[h.id] != h {
		return
	}
	delete(led.locks, h.id)
	led.countReaderLocked(h.id, -1)
	h.letGoLocked()
	led.countLocked()
	if len(led.locks) == 0 {
		led.disarmLocked()
	}
	if led.owner != nil {
		led.owner.freed(h)
	}
	led.letGoLocked()
}

// takenThrough returns the locks and the tickets that were taken through a, for
// a caller that frees them. The Release of these locks then has nothing left to
// do.
func (led *ledger) takenThrough(a *access) (holds []*hold, tickets []*ticket) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		if h.a == a {
			h.released = true
			holds = append(holds, h)
		}
	}
	for t := range led.tickets {
		if t.a == a {
			tickets = append(tickets, t)
		}
	}
	return holds, tickets
}

// hasFrom reports whether the session has a lock that was taken through a.
func (led *ledger) hasFrom(a *access) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		if h.a == a {
			return true
		}
	}
	return false
}

// own makes o the owner of the session, which has set its lease to l. If o is
// nil, the session has no owner any more.
func (led *ledger) own(o owner, l lease) {
	led.mu.Lock()
	led.owner, led.lease = o, l
	led.settings = settings{gen: led.settings.gen}
	led.mu.Unlock()
}

// shorten notes that a statement sent at the time given has set the lease of an
// owned session to ttl.
func (led *ledger) shorten(ttl time.Duration, sent time.Time) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.lease = lease{ttl, sent}
	if len(led.locks) > 0 {
		led.armLocked(led.lease.left(time.Now()))
	}
}

// owned reports whether the session has an owner.
func (led *ledger) owned() bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.owner != nil
}

// alive returns an error if the session was destroyed.
func (led *ledger) alive() error {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.deadLocked()
}

func (led *ledger) deadLocked() error {
	if led.dead == nil {
		return nil
	}
	return fmt.Errorf("the session was destroyed (%w): take another connection: %w", led.dead, sql.ErrConnDone)
}

// touch notes that a statement sent at the time given was answered. It has
// restarted the lease on the server.
func (led *ledger) touch(sent time.Time) {
	led.mu.Lock()
	led.touchLocked(sent)
	led.mu.Unlock()
}

func (led *ledger) touchLocked(sent time.Time) {
	if sent.After(led.lease.start) {
		led.lease.start = sent
	}
}

// renewed notes that a statement sent at the time given has proven the locks for
// which proven reports true: their TTL starts anew.
func (led *ledger) renewed(sent time.Time, proven func(*hold) bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.touchLocked(sent)
	for _, h := range led.locks {
		if !proven(h) {
			continue
		}
		if h.expireLocked(sent); h.err == nil {
			h.lease.start = sent
		}
	}
}

// expected returns the number of the session's locks and the sum of the halves
// of their keys, as the statement Heartbeat should answer.
func (led *ledger) expected() (locks, sum int64) {
	led.mu.Lock()
	defer led.mu.Unlock()
	add := func(key Key) {
		locks++
		sum += int64(uint64(key)>>32) + int64(uint64(key)&0xffffffff)
	}
	for id := range led.locks {
		if id.reader == 0 {
			add(id.key)
		}
	}
	for key := range led.readers { // The server shows one lock for all readers of a key.
		add(key)
	}
	return locks, sum
}
