package pglock

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file is the lease of a caller's session that has a place in line, and no
// lock with a lease yet. Without it a waiter that is cut off would stop the line for
// as long as TCP takes to notice, and keep the lock if it was granted meanwhile.

// A placeLease is what one waiter wants of the session's lease, beside its locks.
type placeLease struct {
	ttl  time.Duration
	pid  int32
	left bool // the waiter has gone, but the server's settings may not know

	unasked bool // the waiter has no TTL
}

const (
	// minPlaceTTL is the shortest lease of a place: between two statements a waiter
	// pauses for a moment.
	minPlaceTTL = time.Second
	// placeTTL is that of a waiter without a TTL, which sends something every few
	// seconds.
	placeTTL = 10 * time.Second
)

// placeTTLOf returns the lease of a place on behalf of r, or 0 if there is to be none:
// the session has locks that are not to end by themselves.
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

// leasePlace makes the session ready for a place in line on behalf of r, before
// there is one. It returns nil if there is to be no lease, for the session's sake, or
// because the connection is in a transaction of the caller's, whose rollback would
// take it back.
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

// served strikes p out, whose waiter has the lock h: its lease is the lock's now.
func (tn turn) served(p *placeLease, h *hold) error {
	if p != nil && !p.unasked {
		tn.led.removePlace(p)
	}
	return tn.makeLasting(h.request)
}

// makeLasting takes away, before a lock without a TTL is held for r, the leases that
// nobody has asked for: they would end the lock.
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

// maxWait is how long one statement may wait in a server that looks for deadlocks
// after that time: what it finds out then costs all who lock, and is logged.
func maxWait(deadlock time.Duration) time.Duration {
	if deadlock <= 0 {
		deadlock = time.Second
	}
	return min(max(deadlock/10*9, minServerWait), maxServerWait)
}

const (
	// maxServerWait is the most that one statement waits in the server: it keeps
	// vacuum back meanwhile.
	maxServerWait = 3 * time.Second
	// minServerWait is the least, though the server may suspect a deadlock.
	minServerWait = 50 * time.Millisecond
)

// The ledger's part.

// leasedWithin reports whether the session has a lease of at most ttl.
func (led *ledger) leasedWithin(ttl time.Duration) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	want := led.wantLocked(nil)
	return led.owner != nil || want > 0 && want <= ttl && !led.settings.temporary
}

// addPlace notes a place, if it is to have a lease, and the settings that were before,
// if a statement that was sent at the time given has changed them.
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

// placesLocked returns the shortest lease that a place other than except wants, or
// best, if that is shorter; 0 is none.
func (led *ledger) placesLocked(except *placeLease, best time.Duration) time.Duration {
	for p := range led.places {
		if p != except && (best == 0 || p.ttl < best) {
			best = p.ttl
		}
	}
	return best
}

// leaseWithoutPlace returns the session's settings once p is left. ok is false if
// there is no such place.
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

// removePlace strikes p out.
func (led *ledger) removePlace(p *placeLease) {
	led.mu.Lock()
	defer led.mu.Unlock()
	delete(led.places, p)
	led.countLocked()
}

// leftPlaceLocked returns a place that was left, and the settings with it, or nil.
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

// A rhythm is that of one waiter. It waits in the server while it is next, or the
// line moves. The server logs each wait that it has to end, so one that is still not
// next after such a wait pauses before the following one, longer each time.
type rhythm struct {
	pause pause
	rest  time.Duration
	looks bool // the next step only looks
}

func newRhythm() *rhythm { return &rhythm{pause: *newPause()} }

// maxRest is the longest pause of one that is not next.
const maxRest = 2 * time.Second

// next returns how long to pause after a step of t's, most at most.
func (r *rhythm) next(t *ticket, s advanced, most time.Duration) time.Duration {
	ahead := t != nil && t.ahead.Load() != 0
	looked := r.looks
	r.looks = ahead && s.waited && s.timedOut // who is ahead may be gone since it was last told
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
