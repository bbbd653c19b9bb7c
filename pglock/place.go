package pglock

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file gives a caller's session a lease while it has a place in line, and
// no lock with a lease yet. Without it a waiter that is cut off would stop the
// line for as long as TCP takes to notice, and keep the lock if that was
// granted meanwhile.

// A placeLease is the lease that one waiter wants for its session.
type placeLease struct {
	ttl  time.Duration
	pid  int32 // the backend whose settings were changed
	left bool  // the waiter has left, but the server's settings may still be there

	unasked bool // the waiter has no TTL
}

const (
	// minPlaceTTL is the shortest lease of a place. A waiter pauses between two
	// statements, and must not lose its session meanwhile.
	minPlaceTTL = time.Second
	// placeTTL is the lease of the place of a waiter without a TTL, which sends
	// a statement every few seconds.
	placeTTL = 10 * time.Second
)

// placeTTLOf returns the lease of a place for r. It is 0 if there is to be
// none, since the session has locks without a TTL, which a lease would end.
func (led *ledger) placeTTLOf(r request) time.Duration {
	if r.TTL > 0 {
		return max(r.TTL, minPlaceTTL)
	}
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		if h.lease.ttl == 0 {
			return 0
		}
	}
	return placeTTL
}

// leasePlace gives the session a lease, before it takes a ticket for r. It
// returns nil if there is to be none: see placeTTLOf. There is none either if
// the connection is in a transaction of the caller's, whose rollback would take
// the lease back.
func (tn turn) leasePlace(r request) (*placeLease, error) {
	p := &placeLease{ttl: tn.led.placeTTLOf(r), unasked: r.TTL == 0}
	leased := p.ttl == 0 || tn.led.leasedWithin(p.ttl)
	if leased && tn.led.deadlock > 0 {
		return tn.led.addPlace(p, timeouts{}, time.Time{}), nil
	}
	row, err := look(context.Background(), tn, (*db.Queries).PrepareWait, db.PrepareWaitParams{})
	if err != nil {
		return nil, explain(err, false)
	}
	tn.led.deadlock = time.Duration(row.DeadlockMs) * time.Millisecond
	if leased {
		return tn.led.addPlace(p, timeouts{}, time.Time{}), nil
	}
	saved := timeouts{row.Idle, row.IdleInTransaction}
	set := saved.of(p.ttl)
	p.pid = row.Pid
	sent := time.Now()
	row, err = look(context.Background(), tn, (*db.Queries).PrepareWait,
		db.PrepareWaitParams{Pid: p.pid, Xact: row.Xact, SetIdle: set.idle, SetIdleInTransaction: set.idleInTransaction})
	if err != nil {
		return nil, explain(err, false)
	}
	if !row.Sets {
		return nil, nil
	}
	return tn.led.addPlace(p, saved, sent), nil
}

// leavePlace puts the settings back for a waiter that leaves without the lock. If
// that fails on a session that lives, settle does it later.
func (tn turn) leavePlace(p *placeLease) error {
	c, ok := tn.led.leaseWithoutPlace(p)
	if !ok {
		return tn.led.alive()
	}
	if c.gen != "" {
		row, err := tn.set(c.timeouts, false, c.gen)
		if err != nil {
			return err
		}
		tn.led.changed(c, row.Xact)
	}
	tn.led.removePlace(p)
	if c.gen != "" && !tn.led.empty() {
		return tn.confirm()
	}
	return nil
}

// served strikes out p when its waiter has got the lock h, whose TTL is the
// lease from now on.
func (tn turn) served(p *placeLease, h *hold) error {
	if p != nil && !p.unasked {
		tn.led.removePlace(p)
	}
	return tn.makeLasting(h.request)
}

// makeLasting takes away the leases that waiters without a TTL have, before r
// takes a lock without a TTL: they would end that lock.
func (tn turn) makeLasting(r request) error {
	for r.TTL == 0 {
		p := tn.led.unaskedPlace()
		if p == nil {
			return nil
		}
		if err := tn.leavePlace(p); err != nil {
			return err
		}
	}
	return nil
}

// maxWait returns how long one statement may wait in the server. That is
// shorter than deadlock, the deadlock_timeout: when that is over, the server
// looks for a deadlock, which stops all other lockers, and is logged.
func maxWait(deadlock time.Duration) time.Duration {
	if deadlock <= 0 {
		deadlock = time.Second
	}
	return min(max(deadlock/10*9, minServerWait), maxServerWait)
}

const (
	// maxServerWait is the longest that one statement waits in the server,
	// since it holds back vacuum meanwhile.
	maxServerWait = 3 * time.Second
	// minServerWait is the shortest, even if the server looks for deadlocks
	// sooner.
	minServerWait = 50 * time.Millisecond
)

// The rest of the file is the ledger's part.

// leasedWithin reports whether the session has a lease of at most ttl.
func (led *ledger) leasedWithin(ttl time.Duration) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	want := led.wantLocked(nil)
	return led.owner != nil || want > 0 && want <= ttl && !led.settings.temporary
}

// addPlace enters p, and returns it. It returns nil, and enters nothing, if p
// is to have no lease. If sent is not zero, a statement sent then has set the
// lease, and saved is what the settings were before.
func (led *ledger) addPlace(p *placeLease, saved timeouts, sent time.Time) *placeLease {
	led.mu.Lock()
	defer led.mu.Unlock()
	if p.ttl == 0 || led.owner != nil || led.dead != nil {
		return nil
	}
	if p.pid == 0 {
		p.pid = led.backend
	}
	if led.places == nil {
		led.places = make(map[*placeLease]struct{})
	}
	had := led.wantLocked(nil) > 0
	led.places[p] = struct{}{}
	if !sent.IsZero() {
		if known := had && !led.settings.temporary; !known {
			led.settings.home, led.settings.known, led.settings.temporary = saved, true, false
		}
		led.countLocked()
		led.touchLocked(sent)
		if len(led.locks) > 0 {
			led.armLocked(led.lease.left(time.Now()))
		}
	}
	return p
}

// placesLocked returns the shortest lease that a place other than except wants,
// or best if that is shorter. 0 stands for no lease.
func (led *ledger) placesLocked(except *placeLease, best time.Duration) time.Duration {
	for p := range led.places {
		if p != except && (best == 0 || p.ttl < best) {
			best = p.ttl
		}
	}
	return best
}

// leaseWithoutPlace marks p as left, and returns the change of the settings
// that its removal makes. ok is false if p is not in the ledger.
func (led *ledger) leaseWithoutPlace(p *placeLease) (c change, ok bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if _, ok = led.places[p]; !ok {
		return c, false
	}
	p.left = true
	was := led.wantLocked(nil)
	delete(led.places, p)
	c = led.changeLocked(was, led.wantLocked(nil))
	led.places[p] = struct{}{}
	return c, true
}

// removePlace strikes out p.
func (led *ledger) removePlace(p *placeLease) {
	led.mu.Lock()
	defer led.mu.Unlock()
	delete(led.places, p)
	led.countLocked()
}

// leftPlaceLocked returns a place that was left and whose settings are to be
// put back, or nil.
func (led *ledger) leftPlaceLocked() *placeLease {
	for p := range led.places {
		if p.left {
			return p
		}
	}
	return nil
}

// unaskedPlace returns a place whose waiter has no TTL, or nil.
func (led *ledger) unaskedPlace() *placeLease {
	led.mu.Lock()
	defer led.mu.Unlock()
	for p := range led.places {
		if p.unasked {
			return p
		}
	}
	return nil
}

func (led *ledger) leftPlace() *placeLease {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.leftPlaceLocked()
}

// A rhythm decides when a waiter waits in the server, looks, or pauses. A
// waiter waits in the server while it is next, or while the line moves. The
// server logs each wait that it has to end, so a waiter that is still not next
// after such a wait pauses before the following one, longer each time.
type rhythm struct {
	pause pause
	rest  time.Duration
	looks bool // the next step only looks
}

func newRhythm() *rhythm { return &rhythm{pause: *newPause()} }

// maxRest is the longest pause of a waiter that is not next.
const maxRest = 2 * time.Second

// next returns how long to pause after a step of the waiter with the ticket t.
// It is never longer than most.
func (r *rhythm) next(t *ticket, s advanced, most time.Duration) time.Duration {
	ahead := t != nil && t.ahead.Load() != 0
	looked := r.looks
	r.looks = ahead && s.waited && s.timedOut // The ticket ahead may be gone by now.
	switch {
	case r.looks:
		return 0
	case looked && ahead:
		r.rest = min(max(2*r.rest, 250*time.Millisecond), maxRest)
		return min(r.rest, most)
	case s.waited, looked:
		r.rest = 0
		return 0
	}
	return min(r.pause.next(), most)
}
