package pglock

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// A roster has the sessions of a pool, and chooses the one on which a lock is
// taken, a ticket is kept, or a waiter waits.
type roster struct {
	*config
	guest      *guest
	newSession func(lease time.Duration) *poolSession // begins to open one

	mu       sync.Mutex // guards the following, the registry, and some fields of the sessions
	closed   bool       // Close was called: no new work is accepted
	sessions []*poolSession
	locks    int // locks and tickets on all sessions
	maxLocks int // half of the locks that the server has memory for
	waiting  int // how many sessions wait in the server
	// warnedScarce is true if the log says that locks of different TTLs share a
	// session.
	warnedScarce bool
	// warnedStarved is true if the log says that the pool has all connections
	// while others wait for one.
	warnedStarved bool
}

func newRoster(c *config, g *guest, newSession func(time.Duration) *poolSession) *roster {
	return &roster{config: c, guest: g, newSession: newSession, maxLocks: math.MaxInt}
}

// all returns the sessions that there are.
func (r *roster) all() []*poolSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sessions)
}

// chooseLocked picks a session that has room for a lock of that lease, or opens
// one.
func (r *roster) chooseLocked(lease time.Duration) (*poolSession, error) {
	if r.fullLocked() {
		return nil, fmt.Errorf("%w (%d, half of the server's lock table)", ErrPoolFull, r.locks)
	}
	var best *poolSession
	for _, s := range r.sessions {
		if s.fitsLocked(lease) && (best == nil || s.lease > best.lease) {
			best = s
		}
	}
	if best == nil || best.lease < lease {
		if s := r.openLocked(lease, false); s != nil {
			best = s
		}
	}
	if best == nil {
		best = r.shareLocked(lease)
	}
	if best == nil && slices.ContainsFunc(r.sessions, (*poolSession).silent) {
		return nil, oneconn.ErrSilent
	}
	if best == nil {
		best = r.openLocked(lease, true)
	}
	if best != nil {
		return best, nil
	}
	return nil, fmt.Errorf("%w (%d, on %d sessions)", ErrPoolFull, r.locks, len(r.sessions))
}

// shareLocked returns the session with the fewest locks, if one has room, for a
// lock that would have a session of its own if there were connections enough.
// The session's lease becomes the lock's, if that is shorter.
func (r *roster) shareLocked(lease time.Duration) (best *poolSession) {
	for _, s := range r.sessions {
		if s.gone || s.waits || s.locks >= locksPerSession || s.silent() {
			continue
		}
		if best == nil || s.locks < best.locks {
			best = s
		}
	}
	if best != nil && lease > 0 && (best.lease == 0 || best.lease > lease) {
		best.lease = lease
	}
	if best != nil && !r.warnedScarce {
		r.warnedScarce = true
		go r.log.Warn( // in a goroutine, since a handler may look at the pool
			"pglock: too few connections for a session for each range of TTLs: locks share the shortest lease of their session: raise SetMaxOpenConns, or WithMaxSessions",
			"sessions", len(r.sessions), "limit", r.guest.limit())
	}
	return best
}

// warnStarved warns once if the program waits for a connection, and the pool has
// them all: a holder that waits so does not release its lock.
func (r *roster) warnStarved() {
	r.mu.Lock()
	n := len(r.sessions)
	warn := r.guest.starved(n) && !r.warnedStarved
	r.warnedStarved = r.warnedStarved || warn
	r.mu.Unlock()
	if warn {
		r.log.Warn("pglock: the program waits for a connection, and locks keep all that the *sql.DB may open: raise SetMaxOpenConns", "sessions", n)
	}
}

// openLocked adds a session to the pool and begins to open it. It returns nil if the
// pool may have no more, or if all connections are in use. If needed is set, opening
// it waits a while for one of them, unless another session has just done so in vain.
func (r *roster) openLocked(lease time.Duration, needed bool) *poolSession {
	n := len(r.sessions)
	for _, s := range r.sessions {
		if s.isLost() { // It is about to be forgotten.
			n--
		}
	}
	mayWait := needed && r.guest.shortage() == nil
	if n > 0 && (n >= r.guest.limit() || !mayWait && !r.guest.spare(0)) {
		return nil
	}
	s := r.newSession(lease)
	r.sessions = append(r.sessions, s)
	return s
}

// reserveLocked reserves room on s for a lock, or for a ticket.
func (r *roster) reserveLocked(s *poolSession) {
	s.locks++
	r.locks++
}

func (r *roster) unreserveLocked(s *poolSession) {
	s.locks--
	r.locks--
}

// fullLocked reports whether the pool has all the locks and tickets that it may.
func (r *roster) fullLocked() bool { return r.locks >= r.maxLocks }

// measured notes that the server has memory for room locks. The pool takes half
// of them at most: when the server's lock table is full, no client can connect
// any more.
func (r *roster) measured(room int64) {
	r.mu.Lock()
	r.maxLocks = int(room / 2)
	r.mu.Unlock()
}

// mayWaitLocked reports whether one more session may wait in the server.
func (r *roster) mayWaitLocked() bool {
	return !r.polling && !r.closed && r.waiting < r.maxWaiters
}

// toWaitAloneLocked returns an empty session of that lease, for a waiter that has
// its ticket there and waits there, too; vacate is to be called afterwards. It is
// nil unless another session is left to cancel the wait, and a connection for the
// holder.
func (r *roster) toWaitAloneLocked(lease time.Duration) *poolSession {
	if !r.mayWaitLocked() || r.fullLocked() {
		return nil
	}
	s := r.emptyLocked(lease, nil)
	if s == nil || !s.isOpen() || r.otherLocked(s) == nil {
		return nil
	}
	room := func(other *poolSession) bool { return other != s && other.isOpen() && other.fitsLocked(lease) }
	if !r.guest.spare(1) && !slices.ContainsFunc(r.sessions, room) {
		return nil
	}
	r.occupyLocked(s)
	return s
}

// toWaitOn returns a session of that lease for a waiter that has its ticket on
// another one, or nil if no more may wait. vacate is to be called afterwards.
func (r *roster) toWaitOn(lease time.Duration, ticketed *poolSession) *poolSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.mayWaitLocked() {
		return nil
	}
	s := r.emptyLocked(lease, ticketed)
	if s == nil {
		// A connection is left for the holder.
		if len(r.sessions) >= maxSessions/2 || !r.guest.spare(1) {
			return nil
		}
		s = r.openLocked(lease, false)
	}
	if s == nil || !s.isOpen() { // The waiter only looks meanwhile.
		return nil
	}
	r.occupyLocked(s)
	return s
}

// emptyLocked returns a session of that lease, other than except, that has no
// locks and no tickets, or nil. It prefers one that is open.
func (r *roster) emptyLocked(lease time.Duration, except *poolSession) (s *poolSession) {
	for _, other := range r.sessions {
		if other.locks == 0 && !other.waits && other.lease == lease && other != except && !other.silent() {
			if s = other; s.isOpen() {
				break
			}
		}
	}
	return s
}

// occupyLocked reserves s for the wait of one waiter; vacate ends that.
func (r *roster) occupyLocked(s *poolSession) {
	s.waits = true
	r.waiting++
}

func (r *roster) vacateLocked(s *poolSession) {
	s.waits = false
	r.waiting--
}

func (r *roster) vacate(s *poolSession) {
	r.mu.Lock()
	r.vacateLocked(s)
	r.mu.Unlock()
}

// other returns an open session other than s that does not wait in the server,
// or nil.
func (r *roster) other(s *poolSession) *poolSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.otherLocked(s)
}

func (r *roster) otherLocked(s *poolSession) *poolSession {
	for _, other := range r.sessions {
		if other != s && !other.waits && other.isOpen() && !other.silent() {
			return other
		}
	}
	return nil
}

// hasOther reports whether the pool has an open session beside s, whatever that is
// used for.
func (r *roster) hasOther(s *poolSession) bool {
	return slices.ContainsFunc(r.all(), func(other *poolSession) bool { return other != s && other.isOpen() })
}

// forget removes a session from the pool, because it is dead, to be closed, or
// could not be opened. If unused is true, it does so only if the session is not
// used, and reports whether it did.
func (r *roster) forget(s *poolSession, unused bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A session that waits needs another to be cancelled with.
	if unused && (s.locks > 0 || s.waits || r.waiting > 0 && r.otherLocked(s) == nil) {
		return false
	}
	s.gone = true
	r.sessions = slices.DeleteFunc(r.sessions, func(other *poolSession) bool { return other == s })
	return true
}
