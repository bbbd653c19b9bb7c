package pglock

import (
	"context"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file is what is known of the two settings that make the server's lease, on
// a session whose owner may begin a transaction, roll it back, and use SET LOCAL.
//
// A change of ours that is rolled back brings back what was before. That matters if
// the change had made the lease longer: until a statement has shown that the change
// has lasted, the locks count on the lease that was before it.

// settings is that knowledge. But for floor it is used by the holder of the turn.
type settings struct {
	home  timeouts // the caller's own
	known bool     // they were read outside of a transaction
	// marked is the transaction in which Mark has read home, for the statement after
	// it: if that is in another, home is known.
	marked int64

	gen  int64 // the witness of the last change that made the lease longer
	xact int64 // the transaction of that change
	// floor is the shortest lease that a rollback may bring back, 0 for none. It is
	// guarded by the ledger's mutex.
	floor time.Duration

	// temporary says that the lease is one of the transaction local alone, where
	// here is what the settings were: the caller's SET LOCAL perhaps.
	temporary bool
	local     int64
	here      timeouts
}

// A change is what a release does to the settings.
type change struct {
	timeouts
	from time.Duration // the lease before, if it gets longer
	gen  string        // and the witness of that; or ''
}

// witness is what the server shows of the last change, if that has lasted.
func (s *settings) witness() string {
	if s.gen == 0 {
		return ""
	}
	return strconv.FormatInt(s.gen, 10)
}

// pending reports whether a rollback may bring back a shorter lease.
func (led *ledger) pending() bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.settings.floor > 0 && led.dead == nil
}

// wantLocked returns the shortest TTL of the locks, but for except, and of the places
// in line, or 0: what the server's lease is to be.
func (led *ledger) wantLocked(except *hold) (ttl time.Duration) {
	for _, h := range led.locks {
		if t := h.info.TTL; h != except && t > 0 && (ttl == 0 || t < ttl) {
			ttl = t
		}
	}
	return led.placesLocked(nil, ttl)
}

// leased reports whether there is to be a lease.
func (led *ledger) leased() bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.wantLocked(nil) > 0
}

// countLocked sets the lease that the locks count on.
func (led *ledger) countLocked() {
	if led.owner != nil {
		return
	}
	ttl := led.wantLocked(nil)
	if floor := led.settings.floor; floor > 0 && len(led.locks) > 0 && (ttl == 0 || floor < ttl) {
		ttl = floor
	}
	led.lease.ttl = ttl
}

// leaseWithout returns the session's settings once h is removed.
func (led *ledger) leaseWithout(h *hold) (c change) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if h.info.TTL == 0 || led.locks[h.id] != h || led.owner != nil || led.settings.temporary {
		return c
	}
	return led.changeLocked(led.wantLocked(nil), led.wantLocked(h))
}

// changeLocked makes the lease next.
func (led *ledger) changeLocked(was, next time.Duration) (c change) {
	c.timeouts = led.settings.home
	if next > 0 {
		c.timeouts = c.timeouts.of(next)
	}
	if next != was {
		c.from, c.gen = was, strconv.FormatInt(led.settings.gen+1, 10)
	}
	return c
}

// changed notes that a statement of the transaction xact has made the change c.
func (led *ledger) changed(c change, xact int64) {
	if c.gen != "" {
		led.settings.gen++
		led.lower(c.from, xact)
	}
}

// wanted returns what the server's settings must be now, as far as a statement may
// set them for the session.
func (led *ledger) wanted() timeouts {
	led.mu.Lock()
	defer led.mu.Unlock()
	ttl := led.wantLocked(nil)
	if ttl == 0 || led.owner != nil || led.settings.temporary {
		return timeouts{}
	}
	return led.settings.home.of(ttl)
}

// saw notes which transaction a statement was in and which witness it has seen. It
// reports whether the last change was rolled back.
func (led *ledger) saw(xact int64, witness string) (reverted bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	s := &led.settings
	if s.floor == 0 || xact == s.xact {
		return false // or nobody knows yet
	}
	if witness != s.witness() {
		return true
	}
	s.floor = 0
	led.countLocked()
	return false
}

// read notes what Mark has read.
func (led *ledger) read(row db.MarkRow) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if s := &led.settings; led.wantLocked(nil) == 0 {
		s.home, s.known, s.temporary = timeouts{row.Idle, row.IdleInTransaction}, false, false
		s.marked = row.Xact
	}
}

// A premise is what a try may take for granted of the settings: see TryAcquireWith.
type premise struct {
	sure      bool
	marked    int64
	home, gen string
}

func (led *ledger) premise() (p premise) {
	led.mu.Lock()
	defer led.mu.Unlock()
	s := &led.settings
	p.sure = led.wantLocked(nil) > 0 && !s.temporary
	if s.known || s.marked != 0 {
		p.home, p.marked = s.home.idle+"/"+s.home.idleInTransaction, s.marked
	}
	if s.known && s.floor > 0 {
		p.gen = s.witness()
	}
	return p
}

// tried notes what a try has shown of the settings, and returns what is left to
// do about them once the lock, if there is one, is in the ledger.
func (led *ledger) tried(row tried, lease string) (todo func(turn) error) {
	s := &led.settings
	marked := s.marked
	s.marked = 0
	if row.xact == 0 { // it has not looked
		return func(turn) error { return nil }
	}
	if marked != 0 && row.xact != marked {
		s.known = true
	}
	reverted := led.saw(row.xact, row.witness)
	if row.temporary {
		if !s.temporary || s.local != row.xact { // else it has read our own lease
			s.here = row.saved
		}
		s.temporary, s.local = true, row.xact
		return turn.learn
	}
	if lease != "" && row.answer >= 0 {
		s.temporary = false
	}
	if reverted {
		return turn.putAgain
	}
	return func(turn) error { return nil }
}

// set reads the settings, and then sets those that are not empty.
func (tn turn) set(t timeouts, temporary bool, gen string) (db.LeaseRow, error) {
	return look(context.Background(), tn, (*db.Queries).Lease, db.LeaseParams{Pid: tn.led.backend,
		SetIdle: t.idle, SetIdleInTransaction: t.idleInTransaction, Temporary: temporary, Gen: gen})
}

// confirm finds out whether the last change has lasted, and makes it again if not.
// What the server does not say stays unconfirmed; the error is that of a session
// that is over.
func (tn turn) confirm() error {
	if !tn.led.pending() {
		return nil
	}
	row, err := tn.set(timeouts{}, false, "")
	if err == nil && tn.led.saw(row.Xact, row.Witness) {
		tn.putAgain()
	}
	return tn.led.alive()
}

// putAgain sets the settings after a rollback has brought back what they were, and
// sees whether that lasts: in a transaction it is not known yet.
func (tn turn) putAgain() error {
	s := &tn.led.settings
	if !s.known {
		return tn.learn()
	}
	row, err := tn.set(tn.led.target(s.home), false, strconv.FormatInt(s.gen+1, 10))
	if err != nil {
		return err
	}
	s.gen, s.xact, s.temporary = s.gen+1, row.Xact, false // it is the session's now
	if !tn.led.pending() {
		return nil
	}
	if row, err = tn.set(timeouts{}, false, ""); err == nil {
		tn.led.saw(row.Xact, row.Witness)
	}
	return err
}

// target is what the settings are to be, own if there is no lease.
func (led *ledger) target(own timeouts) timeouts {
	led.mu.Lock()
	defer led.mu.Unlock()
	if ttl := led.wantLocked(nil); ttl > 0 {
		return own.of(ttl)
	}
	return own
}

// learn finds out what the caller's own settings are. In a transaction that cannot
// be told: what they are there may be a SET LOCAL. So the lease is one of the
// transaction too, and the first statement of ours outside of it sets that of the
// session.
func (tn turn) learn() error {
	var first, then db.LeaseRow
	err := tn.do(context.Background(), func(ctx context.Context) (err error) {
		params := db.LeaseParams{Pid: tn.led.backend}
		if first, err = tn.q.Lease(ctx, params); err == nil {
			then, err = tn.q.Lease(ctx, params)
		}
		return err
	})
	if err != nil {
		if sqlState(err) == "" && !notSent(err) {
			tn.destroy(err)
		}
		return err
	}
	s := &tn.led.settings
	now := timeouts{then.Idle, then.IdleInTransaction}
	reverted := tn.led.saw(then.Xact, then.Witness)
	if first.Xact != then.Xact {
		if s.temporary = false; !reverted || !s.known { // else it is a lease of ours
			s.home, s.known = now, true
		}
		return tn.putAgain()
	}
	if !s.temporary || s.local != then.Xact { // else it is our own lease
		s.here, s.temporary, s.local = now, true, then.Xact
	}
	_, err = tn.set(tn.led.target(s.here), true, "")
	return err
}

// ease is what a release does of which the lease may be that of a transaction alone.
func (tn turn) ease(h *hold) error {
	s := &tn.led.settings
	if !s.temporary || h.info.TTL == 0 {
		return nil
	}
	local := s.local
	err := tn.learn()
	if err == nil && s.temporary && s.local == local { // ROLLBACK TO may bring it back
		tn.led.lower(h.info.TTL, local)
	}
	s.temporary = s.temporary && tn.led.leased()
	return err
}

// lower notes that a rollback of what was done in the transaction xact may bring
// back a lease of ttl.
func (led *ledger) lower(ttl time.Duration, xact int64) {
	led.mu.Lock()
	defer led.mu.Unlock()
	s := &led.settings
	s.xact = xact
	if s.floor == 0 || ttl < s.floor {
		s.floor = ttl
	}
	led.countLocked()
}
