package pglock

import (
	"fmt"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A claim is what a pool's callers hold of a key, or ask for just now. It saves
// round trips, and keeps apart callers that share a session, which the server
// cannot tell from one another.
type claim struct {
	shared bool
	n      int
	at     *poolSession // where the last one is
}

// claim reserves h's key for one caller, or for one reader more, and returns the
// session on which to ask for it.
func (p *Pool) claim(h *hold) (*poolSession, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	if p.queues[h.key] != nil { // a try does not overtake those that wait
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

// claimLocked notes that h is, or is to be, held on s, where there is room
// reserved.
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

// claimants returns how many have claimed key.
func (p *Pool) claimants(key Key) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.claims[key]; c != nil {
		return c.n
	}
	return 0
}

// unclaim gives back what claimLocked has noted, once.
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

// chooseLocked picks a session with room for a lock of that lease, or makes one,
// and reserves the room.
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

// newSessionLocked makes one and opens it.
func (p *Pool) newSessionLocked(lease time.Duration) *poolSession {
	s := &poolSession{p: p, lease: lease, ready: make(chan struct{})}
	p.sessions = append(p.sessions, s)
	p.work.Go(s.open)
	return s
}

// reserveLocked keeps room for a lock, or a ticket.
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

// measured notes that the server has room for so many locks in all, of which
// the pool takes half at most: when the table is full, nobody can connect.
func (p *Pool) measured(room int64) {
	p.mu.Lock()
	p.maxLocks = int(room / 2)
	p.mu.Unlock()
}

// forget takes a session that is dead, closed, or was not opened, off the list;
// if it must be unused, only then.
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
