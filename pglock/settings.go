package pglock

import (
	"context"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file keeps track of the two settings that make the server's lease, on a
// session whose owner may begin a transaction, roll it back, and use SET LOCAL.
//
// A rollback takes back what a statement of ours has set. That matters where
// the lease was made longer, because the shorter one is there again. So until a
// statement has shown that the change has lasted, the locks count on the
// shorter lease.

// settings is what is known of the two. All fields but floor are used by the
// holder of the turn.
type settings struct {
	home  timeouts // the caller's own values, which are put back
	known bool     // home was read outside of a transaction, so no SET LOCAL is in it
	// marked is the transaction in which Mark has read home. If the next
	// statement is in another transaction, home is known.
	marked int64

	gen  int64 // the witness of the last change that made the lease longer
	xact int64 // the transaction of that change
	// floor is the shortest lease that a rollback may bring back, 0 for none. It is
	// guarded by the ledger's mutex.
	floor time.Duration

	// temporary says that the lease ends with a transaction, whose number is
	// local. Before it was set there, the settings were here, perhaps by the
	// caller's SET LOCAL.
	temporary bool
	local     int64
	here      timeouts
}

// A change is what a release, or a waiter that leaves, does to the settings.
type change struct {
	timeouts
	from time.Duration // the lease before, if the change makes it longer
	gen  string        // the witness of a change that makes it longer; otherwise empty
}

// witness returns the value of swanlock.lease on the server if the last change
// has lasted.
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

// wantLocked returns the lease that the session is to have: the shortest TTL of
// the locks other than except, and of the places in line. It is 0 if none has a
// TTL.
func (led *ledger) wantLocked(except *hold) (ttl time.Duration) {
	for _, h := range led.locks {
		if t := h.info.TTL; h != except && t > 0 && (ttl == 0 || t < ttl) {
			ttl = t
		}
	}
	return led.placesLocked(nil, ttl)
}

// leased reports whether the session is to have a lease.
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

// leaseWithout returns the change of the settings that the release of h makes.
func (led *ledger) leaseWithout(h *hold) (c change) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if h.info.TTL == 0 || led.locks[h.id] != h || led.owner != nil || led.settings.temporary {
		return c
	}
	return led.changeLocked(led.wantLocked(nil), led.wantLocked(h))
}

// changeLocked returns the change that makes a lease of was one of next.
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

// changed notes that a statement in the transaction xact has made the change c.
func (led *ledger) changed(c change, xact int64) {
	if c.gen != "" {
		led.settings.gen++
		led.lower(c.from, xact)
	}
}

// wanted returns the settings that a refresh is to set for the session. They
// are empty if the session has no lease, or one that ends with the transaction.
func (led *ledger) wanted() timeouts {
	led.mu.Lock()
	defer led.mu.Unlock()
	ttl := led.wantLocked(nil)
	if ttl == 0 || led.owner != nil || led.settings.temporary {
		return timeouts{}
	}
	return led.settings.home.of(ttl)
}

// saw notes in which transaction a statement was, and which witness it has
// read. It reports whether the last change was rolled back.
func (led *ledger) saw(xact int64, witness string) (reverted bool) {
	led.mu.Lock()
	defer led.mu.Unlock()
	s := &led.settings
	if s.floor == 0 || xact == s.xact {
		return false // In the transaction of the change it cannot be known yet.
	}
	if witness != s.witness() {
		return true
	}
	s.floor = 0
	led.countLocked()
	return false
}

// read notes the settings that Mark has read.
func (led *ledger) read(row db.MarkRow) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if s := &led.settings; led.wantLocked(nil) == 0 {
		s.home, s.known, s.temporary = timeouts{row.Idle, row.IdleInTransaction}, false, false
		s.marked = row.Xact
	}
}

// A premise is what a try may take for granted of the settings. The fields are
// parameters of TryAcquireWith, and described there.
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

// tried notes what a try has shown of the settings. It returns what is left to
// be done about them, once a lock that was granted is in the ledger.
func (led *ledger) tried(row tried, lease string) (todo func(turn) error) {
	s := &led.settings
	marked := s.marked
	s.marked = 0
	if row.xact == 0 { // The statement has not read the settings.
		return func(turn) error { return nil }
	}
	if marked != 0 && row.xact != marked {
		s.known = true
	}
	reverted := led.saw(row.xact, row.witness)
	if row.temporary {
		if !s.temporary || s.local != row.xact { // Otherwise it has read our own lease.
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

// set sets those of t that are not empty, for the transaction alone if
// temporary is true, and returns what the settings were before.
func (tn turn) set(t timeouts, temporary bool, gen string) (db.LeaseRow, error) {
	return look(context.Background(), tn, (*db.Queries).Lease, db.LeaseParams{Pid: tn.led.backend,
		SetIdle: t.idle, SetIdleInTransaction: t.idleInTransaction, Temporary: temporary, Gen: gen})
}

// confirm finds out whether the last change has lasted, and makes it again if
// not. If the server refuses to say, the change stays unconfirmed. The error is
// that of a session that is over.
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

// putAgain sets the settings again after a rollback has taken the last change
// back. It then looks whether that lasts, which cannot be known yet in a
// transaction.
func (tn turn) putAgain() error {
	s := &tn.led.settings
	if !s.known {
		return tn.learn()
	}
	row, err := tn.set(tn.led.target(s.home), false, strconv.FormatInt(s.gen+1, 10))
	if err != nil {
		return err
	}
	s.gen, s.xact, s.temporary = s.gen+1, row.Xact, false // The lease is the session's now.
	if !tn.led.pending() {
		return nil
	}
	if row, err = tn.set(timeouts{}, false, ""); err == nil {
		tn.led.saw(row.Xact, row.Witness)
	}
	return err
}

// target returns what the settings are to be, which is own if there is no
// lease.
func (led *ledger) target(own timeouts) timeouts {
	led.mu.Lock()
	defer led.mu.Unlock()
	if ttl := led.wantLocked(nil); ttl > 0 {
		return own.of(ttl)
	}
	return own
}

// learn finds out what the caller's own settings are. Two statements whose
// transactions differ were in no transaction of the caller's, so the second has
// read them. In a transaction they cannot be known, since a SET LOCAL may hide
// them. The lease then ends with the transaction, and our first statement after
// it sets the session's.
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
		if s.temporary = false; !reverted || !s.known { // Otherwise it is a lease of ours.
			s.home, s.known = now, true
		}
		return tn.putAgain()
	}
	if !s.temporary || s.local != then.Xact { // Otherwise it is our own lease.
		s.here, s.temporary, s.local = now, true, then.Xact
	}
	_, err = tn.set(tn.led.target(s.here), true, "")
	return err
}

// ease sets the lease that is left after the release of h, if the lease may be
// one that ends with the transaction.
func (tn turn) ease(h *hold) error {
	s := &tn.led.settings
	if !s.temporary || h.info.TTL == 0 {
		return nil
	}
	local := s.local
	err := tn.learn()
	if err == nil && s.temporary && s.local == local { // A ROLLBACK TO may bring the old one back.
		tn.led.lower(h.info.TTL, local)
	}
	s.temporary = s.temporary && tn.led.leased()
	return err
}

// lower notes that a rollback of the transaction xact may bring back a lease of
// ttl.
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
