package pglock

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file is for the holder of the turn: it notes what statements have shown of
// the settings and have done to them, and sends those that only look or set.

// leaseWithout returns the change of the settings that the release of h makes.
func leaseWithout(tn turn, h *hold) (c change) {
	s := &tn.led.settings
	if h.info.TTL == 0 || s.owned || s.temporary {
		return c
	}
	return s.change(s.places.shortest(nil, tn.led.shortest(h)))
}

// noteChange notes that a statement in the transaction xact has made the change c.
func noteChange(tn turn, c change, xact int64) {
	if c.gen != "" {
		tn.led.settings.gen++
		lowerFloor(tn, c.from, xact)
	}
}

// lowerFloor notes that a rollback of the transaction xact may bring back a lease of
// ttl.
func lowerFloor(tn turn, ttl time.Duration, xact int64) {
	s := &tn.led.settings
	s.xact = xact
	if s.floor == 0 || ttl < s.floor {
		s.floor = ttl
	}
	tn.led.recount(time.Time{})
}

// sawWitness notes in which transaction a statement was, and which witness it has
// read. It reports whether the last change was rolled back.
func sawWitness(tn turn, xact int64, witness string) (reverted bool) {
	s := &tn.led.settings
	if s.floor == 0 || xact == s.xact {
		return false // In the transaction of the change it cannot be known yet.
	}
	if witness != s.witness() {
		return true
	}
	if s.temporary { // The lease has ended with its transaction, and no witness tells.
		return false
	}
	s.floor = 0
	tn.led.recount(time.Time{})
	return false
}

// noteTry notes what a try has shown of the settings. It returns what is left to
// be done about them, once a lock that was granted is in the ledger.
func noteTry(tn turn, row tried, lease string) (todo func(turn) error) {
	s := &tn.led.settings
	readIn := s.readIn
	s.readIn = 0
	if row.xact == 0 { // The statement has not read the settings.
		return func(turn) error { return nil }
	}
	if readIn != 0 && row.xact != readIn {
		s.known = true
	}
	reverted := sawWitness(tn, row.xact, row.witness)
	if row.temporary {
		if !s.temporary || s.local != row.xact { // Otherwise it has read our own lease.
			s.here = row.saved
		}
		s.temporary, s.local = true, row.xact
		mayComeBack(tn, s.here, lease, row.xact)
		mayComeBack(tn, s.home, lease, row.xact) // A SET LOCAL may hide it.
		return learn
	}
	if lease != "" && row.answer >= 0 {
		s.temporary = false
		reverted = mayComeBack(tn, row.saved, lease, row.xact) || reverted
	}
	if reverted {
		return putAgain
	}
	return func(turn) error { return nil }
}

// mayComeBack reports whether the end of the transaction xact may bring back before,
// the caller's own settings, which end the session sooner than lease. Until a change
// has a witness, the locks count on them.
func mayComeBack(tn turn, before timeouts, lease string, xact int64) bool {
	d := before.shortest()
	if d == 0 || d >= shown(lease+"ms") || tn.sees(tn.conn.OutsideTransaction) {
		return false
	}
	lowerFloor(tn, d, xact)
	return true
}

// setTimeouts sets those of t that are not empty, for the transaction alone if
// temporary is true, and returns what the settings were before.
func setTimeouts(tn turn, t timeouts, temporary bool, gen string) (db.LeaseRow, error) {
	return look(context.Background(), tn, (*db.Queries).Lease, db.LeaseParams{Pid: tn.led.who.pid,
		SetIdle: t.idle, SetIdleInTransaction: t.idleInTransaction, Temporary: temporary, Gen: gen})
}

// confirm finds out whether the last change has lasted, and makes it again if
// not. If the server refuses to say, the change stays unconfirmed. The error is
// that of a session that is over.
func confirm(tn turn) error {
	if !tn.led.settings.pending() || tn.led.alive() != nil {
		return nil
	}
	if tn.led.settings.temporary {
		learn(tn)
		return tn.led.alive()
	}
	row, err := setTimeouts(tn, timeouts{}, false, "")
	if err == nil && sawWitness(tn, row.Xact, row.Witness) {
		putAgain(tn)
	}
	return tn.led.alive()
}

// putAgain sets the settings again after a rollback has taken the last change
// back. It then looks whether that lasts, which cannot be known yet in a
// transaction.
func putAgain(tn turn) error {
	s := &tn.led.settings
	if !s.known {
		return learn(tn)
	}
	row, err := setTimeouts(tn, s.target(s.home), false, s.nextWitness())
	if err != nil {
		return err
	}
	s.gen, s.xact, s.temporary = s.gen+1, row.Xact, false // The lease is the session's now.
	if !s.pending() {
		return nil
	}
	if row, err = setTimeouts(tn, timeouts{}, false, ""); err == nil {
		sawWitness(tn, row.Xact, row.Witness)
	}
	return err
}

// learn finds out what the caller's own settings are. Two statements whose
// transactions differ were in no transaction of the caller's, so the second has
// read them. In a transaction they cannot be known, since a SET LOCAL may hide
// them. The lease then ends with the transaction, and our first statement after
// it sets the session's.
func learn(tn turn) error {
	var first, then db.LeaseRow
	err := tn.do(context.Background(), func(ctx context.Context) (err error) {
		params := db.LeaseParams{Pid: tn.led.who.pid}
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
	reverted := sawWitness(tn, then.Xact, then.Witness)
	if first.Xact != then.Xact {
		if s.temporary = false; !reverted || !s.known { // Otherwise it is a lease of ours.
			s.home, s.known = now, true
		}
		return putAgain(tn)
	}
	if !s.temporary || s.local != then.Xact { // Otherwise it is our own lease.
		s.here, s.temporary, s.local = now, true, then.Xact
	}
	_, err = setTimeouts(tn, s.target(s.here), true, "")
	return err
}

// ease sets the lease that is left after the release of h, if the lease may be
// one that ends with the transaction.
func ease(tn turn, h *hold) error {
	s := &tn.led.settings
	if !s.temporary || h.info.TTL == 0 {
		return nil
	}
	local := s.local
	err := learn(tn)
	if err == nil && s.temporary && s.local == local { // A ROLLBACK TO may bring the old one back.
		lowerFloor(tn, h.info.TTL, local)
	}
	s.temporary = s.temporary && s.want() > 0
	return err
}
