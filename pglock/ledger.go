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

// A ledger is what this process knows of one PostgreSQL session: the locks and the
// places in line that it has, and what is still to be settled with the server.
// PostgreSQL lets a session take a lock that it holds, and then wants as many
// unlocks, so all who use the session must find the same ledger: two lockers on
// one *sql.Conn, or one whose connection the pool hands out again with a lock on
// it. The driver's connection is what they have in common, or else the mark that
// the server has: see identity.go.
type ledger struct {
	turns oneconn.Turns // whose holder alone uses the session
	token string        // tells the server whose session it is
	gone  chan struct{} // closed when the session was destroyed
	// silence is closed while a statement takes longer than callers wait for it, and
	// stalled is true.
	silence atomic.Pointer[chan struct{}]
	stalled atomic.Bool
	spoke   atomic.Bool             // the server has answered a statement of ours
	callers atomic.Pointer[callers] // of those that wait for the first answer
	// cancels are under way on the server, and cancelled says that one has met the
	// last statement.
	cancels   sync.WaitGroup
	cancelled atomic.Bool

	// Used by the holder of the turn.
	marked  bool   // the server was told the token, and knows it unless it was made to forget
	backend int32  // that was marked last; 0: none. It is written under mu, too,
	started int64  // as is when it was started, as Mark says it
	schema  string // where lock_audit is, quoted; empty if it was not found

	deadlock time.Duration // deadlock_timeout; 0: not asked yet

	next atomic.Pointer[ledger] // the session's ledger, if this turned out to be one too many

	mu        sync.Mutex
	last      weak.Pointer[sql.Conn]   // through which the session was last come to
	kept      bool                     // in orphans
	dead      error                    // why the session was destroyed
	locks     map[lockID]*hold         // what the server may think this session holds
	unsettled []*hold                  // those of them that have ended here
	tickets   map[*ticket]struct{}     // its places in line
	abandoned []*ticket                // those of them that nobody waits on any more
	doubts    map[Key]bool             // that the session may have a share of more than it has readers
	lease     lease                    // the shortest TTL of the locks, or what owner has set; from the last statement on
	settings  settings                 // behind the lease
	places    map[*placeLease]struct{} // those whose waiters want a lease
	timer     *time.Timer              // ends what has expired
	wake      time.Time                // when the timer goes off
	owner     owner                    // nil: the session is on a caller's connection
}

// An owner has a session to itself, which it may use at any time and whose lease
// it has set once. Its methods are called with the ledger's mutex held.
type owner interface {
	// freed is told that the session does not have h any more.
	freed(h *hold)
	// overdue is told that locks have ended by themselves, and are to be unlocked.
	overdue()
	// slow is told that the session is waiting for a statement, which may be
	// cancelled; it calls done once it does not do so any more.
	slow(session db.CancelBackendParams, done func())
}

// A lockID tells the locks of a session apart. A key is there once, but for the
// readers of a pool, which are numbered from 1.
type lockID struct {
	key    Key
	reader int
}

// ledgers has a ledger for each driver's connection that was ever locked on. A
// ledger must not keep its connection alive, so a lock that is over lets go of it.
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

// An entry is what an acquire must know of the session that it is to be made on.
type entry struct {
	unsettled bool
	held      *hold // the lock on the key that the session has by the ledger
	lease     string
}

// enter begins an acquire of r through conn: what other connections have left on
// the session is given up, since the pool has handed it out again.
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

// add enters a lock that the server has granted to a statement that was sent at
// the time given. It returns why the lock is over, if it is.
func (led *ledger) add(h *hold, sent time.Time) error {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.locks[h.id] = h
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

// place enters a place in line.
func (led *ledger) place(t *ticket) {
	led.mu.Lock()
	led.tickets[t] = struct{}{}
	led.mu.Unlock()
}

// displace strikes it out.
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

// numbers returns the session's places in the line of hash.
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

// settled notes what the server said of an unlock: whether the session held h
// until then. It returns why h is over.
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

// removeLocked strikes out a lock that the server does not hold for us any more.
func (led *ledger) removeLocked(h *hold) {
	led.unsettled = slices.DeleteFunc(led.unsettled, func(o *hold) bool { return o == h })
	if led.locks[h.id] != h {
		return
	}
	delete(led.locks, h.id)
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

// takenThrough returns the locks that were taken through a, and its places in
// line. The Release of these locks has nothing to do any more.
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

// endAll ends locks that are to be unlocked on behalf of somebody else than their
// holders, who must know of it first.
func (led *ledger) endAll(holds []*hold) {
	led.mu.Lock()
	defer led.mu.Unlock()
	now := time.Now()
	for _, h := range holds {
		h.expireLocked(now)
		h.endLocked(swanlock.ErrReleased)
	}
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

// own makes o the owner of the session, whose lease is l. A nil one ends that.
func (led *ledger) own(o owner, l lease) {
	led.mu.Lock()
	led.owner, led.lease = o, l
	led.settings = settings{gen: led.settings.gen}
	led.mu.Unlock()
}

// shorten makes the lease of an owned session ttl, as a statement that was sent at
// the time given has set it.
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

// touch notes that a statement, sent at the time given, was answered: it has
// restarted the server's count.
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
// which all reports true. It returns for each of them why it is over, or nil.
func (led *ledger) renewed(sent time.Time, all func(*hold) bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.touchLocked(sent)
	for _, h := range led.locks {
		if !all(h) {
			continue
		}
		if h.expireLocked(sent); h.err == nil {
			h.lease.start = sent
		}
	}
}

// expected returns the number of the session's locks and the sum of their keys, as
// a heartbeat should find them.
func (led *ledger) expected() (locks, sum int64) {
	led.mu.Lock()
	defer led.mu.Unlock()
	var read map[Key]bool
	for id := range led.locks {
		if id.reader > 0 { // the server shows one for all of them
			if read[id.key] {
				continue
			}
			if read == nil {
				read = make(map[Key]bool)
			}
			read[id.key] = true
		}
		locks++
		sum += int64(uint64(id.key)>>32) + int64(uint64(id.key)&0xffffffff)
	}
	return locks, sum
}
