package pglock

import (
	"context"
	"slices"

	"github.com/swanlake-io/swanlock"
)

// A registry knows for each key which callers of a pool hold it, ask for it, or
// wait for it. Its mutex is the roster's, since a key that is claimed takes room
// on a session.
type registry struct {
	*roster
	claims     map[Key]*claim
	queues     map[Key]*queue
	own        map[Key]*waiter // those that have a session to themselves: see seat
	lastReader int             // the number that a reader was last given
	drained    chan struct{}   // closed when closed is true and claims is empty
}

// A claim says that callers of the pool hold a key, or are asking for it. It
// saves round trips, and keeps apart callers that share a session, which the
// server cannot tell from one another.
type claim struct {
	shared bool
	n      int          // how many callers
	at     *poolSession // the session of the last of them
}

// A queue has the callers of a pool that wait for one key, in the order of
// their tickets. Only the first looks what is ahead of it in the line of all
// hosts, since the first is ahead of the others. A queue is never empty.
type queue struct{ waiters []*waiter }

// A waiter is a caller of a pool with a ticket in a line: it takes one, waits to
// be first, and takes the lock or leaves.
type waiter struct {
	p     *Pool
	r     request
	ctx   context.Context
	s     *poolSession // the session that has the ticket
	own   bool         // s is for this waiter alone, which also waits on it
	t     *ticket
	tried bool // a try has failed before
	woken chan struct{}

	// Guarded by roster.mu.
	asking bool // it asks the server for the lock
	given  *op  // the acquire with which a holder of this pool passes the lock on; nil: none
}

// isNext reports whether me is first in the line of all hosts, with its ticket on a
// session that others use too.
func (me *waiter) isNext() bool { return !me.own && me.t.ahead.Load() == 0 }

// wakeLocked makes the waiter look again.
func (me *waiter) wakeLocked() {
	select {
	case me.woken <- struct{}{}:
	default:
	}
}

func newRegistry(r *roster) *registry {
	return &registry{roster: r, claims: make(map[Key]*claim), queues: make(map[Key]*queue), own: make(map[Key]*waiter), drained: make(chan struct{})}
}

// claim reserves h's key for one caller, or for one reader more, and returns the
// session on which to ask for it.
func (r *registry) claim(h *hold) (*poolSession, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errPoolClosed
	}
	if r.queues[h.key] != nil { // A try does not overtake the pool's waiters.
		return nil, swanlock.ErrNotAcquired
	}
	c := r.claims[h.key]
	if c != nil && !(c.shared && h.Shared) {
		return nil, swanlock.ErrNotAcquired
	}
	if c != nil && c.at.fitsLocked(leaseOf(h.TTL)) {
		r.claimLocked(h, c.at)
		return c.at, nil
	}
	s, err := r.chooseLocked(leaseOf(h.TTL))
	if err == nil {
		r.claimLocked(h, s)
	}
	return s, err
}

// claimLocked notes that h is held, or asked for, on s, and takes room there.
func (r *registry) claimLocked(h *hold, s *poolSession) {
	c := r.claims[h.key]
	if c == nil {
		c = &claim{}
		r.claims[h.key] = c
	}
	r.reserveLocked(s)
	c.n++
	c.shared, c.at = h.Shared, s
	h.pool = s
	if h.Shared {
		r.lastReader++
		h.id.reader = r.lastReader
	}
}

// claimOn is claim for a lock that is asked for, or was granted, on s and nowhere
// else, also while others wait for it.
func (r *registry) claimOn(h *hold, s *poolSession) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed { // Close would not wait for its release.
		return errPoolClosed
	}
	r.claimLocked(h, s)
	return nil
}

// claimants returns how many callers have claimed key.
func (r *registry) claimants(key Key) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.claims[key]; c != nil {
		return c.n
	}
	return 0
}

// unclaim gives back the claim of h, and its room. Further calls do nothing.
func (r *registry) unclaim(h *hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h.pool == nil {
		return
	}
	r.unreserveLocked(h.pool)
	h.pool = nil
	c := r.claims[h.key]
	if c.n--; c.n > 0 {
		return
	}
	delete(r.claims, h.key)
	if q := r.queues[h.key]; q != nil {
		q.wakeLocked()
	}
	r.drainLocked()
}

// close refuses new work from now on. Then drained is closed when nothing is held
// any more.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.drainLocked()
}

// drainLocked tells Close if nothing is held any more.
func (r *registry) drainLocked() {
	if !r.closed || len(r.claims) > 0 {
		return
	}
	select {
	case <-r.drained:
	default:
		close(r.drained)
	}
}

// hasWaiters reports whether callers of this pool wait for key.
func (r *registry) hasWaiters(key Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queues[key] != nil
}

// seat finds a session for the ticket of me. A caller that is the pool's first for
// a key gets an empty session to itself, if there is one. Its ticket then needs no
// statement to be dropped.
func (r *registry) seat(me *waiter) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errPoolClosed
	}
	key, lease := me.r.key, leaseOf(me.r.TTL)
	if s := r.passesLocked(key); s != nil && s.isOpen() && s.fitsLocked(lease) && !r.fullLocked() {
		me.s = s
	}
	if me.s == nil && r.queues[key] == nil && r.own[key] == nil {
		if me.s = r.toWaitAloneLocked(lease); me.s != nil {
			me.own, r.own[key] = true, me
		}
	}
	if me.s == nil {
		me.s, err = r.chooseLocked(lease)
	}
	if err == nil {
		r.reserveLocked(me.s)
	}
	return err
}

// passesLocked returns the session on which the next waiter for key should have its
// ticket, so that the lock can be passed on to it, or nil. That is the last waiter's,
// which will hold the lock when the next one is first; those of the holders before
// that need not be alike, and would stay so if each waiter took the holder's.
func (r *registry) passesLocked(key Key) *poolSession {
	if q := r.queues[key]; q != nil {
		if last := q.waiters[len(q.waiters)-1]; !last.own && !last.r.Shared {
			return last.s
		}
	}
	if c := r.claims[key]; c != nil && !c.shared {
		return c.at
	}
	return nil
}

// unseat gives back what seat took.
func (r *registry) unseat(me *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unreserveLocked(me.s)
	if me.own {
		delete(r.own, me.r.key)
		r.vacateLocked(me.s)
	}
}

// waitersLocked returns how many callers wait in line, or are just joining it with a
// statement that waits.
func (r *registry) waitersLocked() (n int) {
	for _, q := range r.queues {
		n += len(q.waiters)
	}
	for key, me := range r.own {
		if q := r.queues[key]; q == nil || !slices.Contains(q.waiters, me) {
			n++
		}
	}
	return n
}

// enqueue puts me into the queue by the number of its ticket. The order of the
// calls may be another, if the tickets were taken on different sessions.
func (r *registry) enqueue(me *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[me.r.key]
	if q == nil {
		q = &queue{}
		r.queues[me.r.key] = q
	}
	i, _ := slices.BinarySearchFunc(q.waiters, me.t.number, func(w *waiter, n int32) int { return int(w.t.number) - int(n) })
	q.waiters = slices.Insert(q.waiters, i, me)
}

// dequeue takes me out of its queue, and returns what is passed on to it.
func (r *registry) dequeue(me *waiter) (given *op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[me.r.key]
	i := slices.Index(q.waiters, me)
	q.waiters = slices.Delete(q.waiters, i, i+1)
	if len(q.waiters) == 0 {
		delete(r.queues, me.r.key)
	} else if i == 0 {
		if next := q.waiters[0].t; me.t.ahead.Load() == 0 && next.ahead.Load() == me.t.number {
			next.ahead.Store(0) // The one that leaves was first in line, so the next is now.
		}
		q.wakeLocked()
	}
	return me.given
}

// wakeLocked makes the first waiter look again.
func (q *queue) wakeLocked() {
	q.waiters[0].wakeLocked()
}
