package pglock

import (
	"context"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file gives a caller's session a lease while it has a place in line, and
// no lock with a lease yet. Without it a waiter that is cut off would stop the
// line for as long as TCP takes to notice, and keep the lock if that was
// granted meanwhile.

const (
	// minPlaceTTL is the shortest lease of a place. A waiter pauses between two
	// statements, and must not lose its session meanwhile.
	minPlaceTTL = time.Second
	// unaskedTTL is the lease of the place of a waiter without a TTL, which sends
	// a statement every few seconds.
	unaskedTTL = 10 * time.Second
)

// placeTTL returns the lease of a place for r. It is 0 if there is to be none,
// since the session has locks without a TTL, which a lease would end.
func placeTTL(tn turn, r request) time.Duration {
	switch {
	case r.TTL > 0:
		return max(r.TTL, minPlaceTTL)
	case slices.ContainsFunc(tn.led.holds(), func(h *hold) bool { return h.TTL == 0 }):
		return 0
	}
	return unaskedTTL
}

// leasePlace gives the session a lease, before it takes a ticket for r, or leaves
// that to the statement which takes it. It returns nil if there is to be none: see
// placeTTL. There is none either if the connection is in a transaction of the
// caller's, whose rollback would take the lease back: two statements find that out,
// where it is not left to the driver.
func leasePlace(tn turn, r request) (*placeLease, error) {
	p := &placeLease{ttl: placeTTL(tn, r), unasked: r.TTL == 0}
	leased := p.ttl == 0 || tn.led.settings.leasedWithin(p.ttl)
	switch {
	case tn.led.deadlock == 0: // It is not known yet, and asked for below.
	case leased:
		return addPlace(tn, p), nil
	case tn.led.settings.bare() && tn.conn.KnowsTransactions():
		return p, nil // It is not set yet.
	}
	row, err := look(context.Background(), tn, (*db.Queries).PrepareWait, db.PrepareWaitParams{})
	if err != nil {
		return nil, explain(err, false)
	}
	tn.led.deadlock = time.Duration(row.DeadlockMs) * time.Millisecond
	if leased {
		return addPlace(tn, p), nil
	}
	saved := timeouts{row.Idle, row.IdleInTransaction}
	set := saved.of(p.ttl)
	sent := time.Now()
	row, err = look(context.Background(), tn, (*db.Queries).PrepareWait,
		db.PrepareWaitParams{Pid: row.Pid, Xact: row.Xact, SetIdle: set.idle, SetIdleInTransaction: set.idleInTransaction})
	if err != nil {
		return nil, explain(err, false)
	}
	if !row.Sets {
		return nil, nil
	}
	return setPlace(tn, p, saved, sent), nil
}

// setPlace enters p, which a statement outside of the caller's transactions has set.
// saved is what the settings were before.
func setPlace(tn turn, p *placeLease, saved timeouts, sent time.Time) *placeLease {
	s := &tn.led.settings
	if (s.want() == 0 || s.temporary) && !(s.known && s.pending()) { // Otherwise saved may be a lease of ours.
		s.home, s.known, s.temporary = saved, true, false
	}
	p = addPlace(tn, p)
	tn.led.recount(sent)
	return p
}

// addPlace enters p, and returns it. It returns nil, and enters nothing, if p is
// to have no lease.
func addPlace(tn turn, p *placeLease) *placeLease {
	s := &tn.led.settings
	if p.ttl == 0 || s.owned || tn.led.alive() != nil {
		return nil
	}
	if s.places == nil {
		s.places = make(placeLeases)
	}
	s.places[p] = struct{}{}
	return p
}

// homeWithout returns the settings to be put back when the waiter of p is granted a
// lock without a TTL. They are empty if p is not why the session has a lease, or not
// alone.
func homeWithout(tn turn, p *placeLease) timeouts {
	s := &tn.led.settings
	if _, ok := s.places[p]; !ok || !p.unasked || s.places.shortest(p, s.locks) > 0 || !s.known || s.temporary || s.pending() {
		return timeouts{}
	}
	return s.home
}

// removePlace strikes out p.
func removePlace(tn turn, p *placeLease) {
	delete(tn.led.settings.places, p)
	tn.led.recount(time.Time{})
}

// leavePlace puts the settings back for a waiter that leaves without the lock. If
// that fails on a session that lives, settle does it later.
func leavePlace(tn turn, p *placeLease) error {
	s := &tn.led.settings
	dead := tn.led.alive()
	if _, ok := s.places[p]; !ok || dead != nil {
		return dead
	}
	p.left = true
	c := s.change(s.places.shortest(p, s.locks))
	if c.gen != "" {
		row, err := setTimeouts(tn, c.timeouts, false, c.gen)
		if err != nil {
			return err
		}
		noteChange(tn, c, row.Xact)
	}
	removePlace(tn, p)
	if c.gen != "" && !tn.led.empty() {
		return confirm(tn)
	}
	return nil
}

// served strikes out p when its waiter has got the lock h, whose TTL is the
// lease from now on.
func served(tn turn, p *placeLease, h *hold) error {
	if p != nil && !p.unasked {
		removePlace(tn, p)
	}
	return makeLasting(tn, h.request)
}

// makeLasting takes away the leases that waiters without a TTL have, before r
// takes a lock without a TTL: they would end that lock.
func makeLasting(tn turn, r request) error {
	for r.TTL == 0 {
		p := tn.led.settings.places.unasked()
		if p == nil {
			return nil
		}
		if err := leavePlace(tn, p); err != nil {
			return err
		}
	}
	return nil
}
