package pglock

import (
	"fmt"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A claim says that callers of the pool hold a key, or are asking for it. It
// saves round trips, and keeps apart callers that share a session, which the
// server cannot tell from one another.
type claim struct {
	shared bool
	n      int          // how many callers
	at     *poolSession // the session of the last of them
}

// claim reserves h's key for one caller, or for one reader more, and returns the
// session on which to ask for it.
func (p *Pool) claim(h *hold) (*poolSession, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	if p.queues[h.key] != nil { // A try does not overtake the pool's waiters.
		return nil, swanlock.ErrNotAcquired
	}
	c := p.claims[h.key]
	if c != nil && !(c.shared && h.Shared) {
		return nil, swanlock.ErrNotAcquired
	}
	if c != nil && c.at.fitsLocked(leaseOf(h.TTL)) {
		p.reserveLocked(c.at)
		p.claimLocked(h, c.at)
		return c.at, nil
	}
	s, err := p.chooseLocked(leaseOf(h.TTL))
	if err == nil {
		p.claimLocked(h, s)
	}
	return s, err
}

// claimLocked notes that h is held, or asked for, on s. Room on s must be
// reserved before.
func (p *Pool) claimLocked(h *hold, s *poolSession) {
	c := p.claims[h.key]
	if c == nil {
		c = &claim{}
		p.claims[h.key] = c
	}
	c.n++
	c.shared, c.at = h.Shared, s
	h.pool = s
	if h.Shared {
		p.lastReader++
		h.id.reader = p.lastReader
	}
}

// claimMore is claimLocked, with the room, for a lock that is asked for on s and
// nowhere else.
func (p *Pool) claimMore(h *hold, s *poolSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserveLocked(s)
	p.claimLocked(h, s)
}

// claimants returns how many callers have claimed key.
func (p *Pool) claimants(key Key) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.claims[key]; c != nil {
		return c.n
	}
	return 0
}

// unclaim gives back the claim of h, and its room. Further calls do nothing.
func (p *Pool) unclaim(h *hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.pool == nil {
		return
	}
	p.unreserveLocked(h.pool)
	h.pool = nil
	c := p.claims[h.key]
	if c.n--; c.n > 0 {
		return
	}
	delete(p.claims, h.key)
	if q := p.queues[h.key]; q != nil {
		q.wakeLocked()
	}
	if p.closed && len(p.claims) == 0 {
		p.drainedLocked()
	}
}

// chooseLocked picks a session that has room for a lock of that lease, or opens
// one. It reserves the room.
func (p *Pool) chooseLocked(lease time.Duration) (*poolSession, error) {
	if p.locks >= p.maxLocks {
		return nil, fmt.Errorf("%w (%d, half of the server's lock table)", ErrPoolFull, p.locks)
	}
	var best *poolSession
	for _, s := range p.sessions {
		if s.fitsLocked(lease) && (best == nil || s.lease > best.lease) {
			best = s
		}
	}
	if (best == nil || best.lease < lease) && p.mayOpenLocked() {
		best = p.newSessionLocked(lease)
	}
	if best == nil {
		best = p.shareLocked(lease)
	}
	if best == nil {
		return nil, fmt.Errorf("%w (%d, on %d sessions)", ErrPoolFull, p.locks, len(p.sessions))
	}
	p.reserveLocked(best)
	return best, nil
}

// newSessionLocked adds a session to the pool and begins to open it.
func (p *Pool) newSessionLocked(lease time.Duration) *poolSession {
	s := &poolSession{p: p, lease: lease, ready: make(chan struct{})}
	p.sessions = append(p.sessions, s)
	p.work.Go(s.open)
	return s
}

// reserveLocked reserves room on s for a lock, or for a ticket.
func (p *Pool) reserveLocked(s *poolSession) {
	s.locks++
	p.locks++
}

func (p *Pool) unreserveLocked(s *poolSession) {
	s.locks--
	p.locks--
}

// drainedLocked tells Close that nothing is held.
func (p *Pool) drainedLocked() {
	select {
	case <-p.drained:
	default:
		close(p.drained)
	}
}

// measured notes that the server has memory for room locks. The pool takes half
// of them at most: when the server's lock table is full, no client can connect
// any more.
func (p *Pool) measured(room int64) {
	p.mu.Lock()
	p.maxLocks = int(room / 2)
	p.mu.Unlock()
}

// forget removes a session from the pool, because it is dead, to be closed, or
// could not be opened. If unused is true, it does so only if the session is not
// used, and reports whether it did.
func (p *Pool) forget(s *poolSession, unused bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A session that waits needs another to be cancelled with.
	if unused && (s.locks > 0 || s.waits || p.waitingSessions > 0 && p.openSessionOtherThanLocked(s) == nil) {
		return false
	}
	s.gone = true
	p.sessions = slices.DeleteFunc(p.sessions, func(other *poolSession) bool { return other == s })
	return true
}
