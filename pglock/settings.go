package pglock

import (
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

// Settings are what is known of the two, and what they are to be. They are used by
// the holder of the turn alone. What the locks count on is the ledger's, and set
// anew (recount) when these have changed.
type settings struct {
	locks  time.Duration // the shortest TTL of the session's locks; 0: none has one
	places placeLeases   // of the callers that wait in line
	owned  bool          // the session's owner has set its lease

	home  timeouts // the caller's own values, which are put back
	known bool     // home was read outside of a transaction, so no SET LOCAL is in it
	// readIn is the transaction in which Mark has read home. If the next
	// statement is in another transaction, home is known.
	readIn int64

	base  int64         // random, since the session may have the witness of an earlier ledger
	gen   int64         // how many changes have made the lease longer
	xact  int64         // the transaction of that change
	floor time.Duration // the shortest lease that a rollback may bring back; 0: none

	// temporary says that the lease ends with a transaction, whose number is
	// local. Before it was set there, the settings were here, perhaps by the
	// caller's SET LOCAL.
	temporary bool
	local     int64
	here      timeouts
}

// witness returns the value of swanlock.lease on the server if the last change
// has lasted.
func (s *settings) witness() string {
	if s.gen == 0 {
		return ""
	}
	return strconv.FormatInt(s.base+s.gen, 10)
}

// nextWitness returns the witness of a change that makes the lease longer.
func (s *settings) nextWitness() string { return strconv.FormatInt(s.base+s.gen+1, 10) }

// pending reports whether a rollback may bring back a shorter lease.
func (s *settings) pending() bool { return s.floor > 0 }

// want returns the lease that the session is to have: the shortest TTL of the
// locks and of the places in line. It is 0 if none has a TTL.
func (s *settings) want() time.Duration { return s.places.shortest(nil, s.locks) }

// wantFor returns want for a session that is to have a lock of ttl, too.
func (s *settings) wantFor(ttl time.Duration) time.Duration {
	if want := s.want(); want > 0 {
		return min(ttl, want)
	}
	return ttl
}

// leasedWithin reports whether the session has a lease of at most ttl.
func (s *settings) leasedWithin(ttl time.Duration) bool {
	want := s.want()
	return s.owned || want > 0 && want <= ttl && !s.temporary
}

// bare reports whether the session has no lease of ours, nor one that a rollback may
// bring back.
func (s *settings) bare() bool { return s.want() == 0 && !s.pending() && !s.temporary }

// due returns p's lease in milliseconds, for the statement that takes the ticket. It
// is empty if there is none, or if it is set already.
func (s *settings) due(p *placeLease) string {
	if _, set := s.places[p]; set || p == nil {
		return ""
	}
	return strconv.FormatInt(milliseconds(p.ttl), 10)
}

// counted returns the lease on which the locks count.
func (s *settings) counted(locked bool) time.Duration {
	ttl := s.want()
	if s.floor > 0 && locked && (ttl == 0 || s.floor < ttl) {
		ttl = s.floor
	}
	return ttl
}

// wanted returns the settings that a refresh is to set for the session. They
// are empty if the session has no lease, or one that ends with the transaction.
func (s *settings) wanted() timeouts {
	ttl := s.want()
	if ttl == 0 || s.owned || s.temporary {
		return timeouts{}
	}
	return s.home.of(ttl)
}

// target returns what the settings are to be, which is own if there is no
// lease.
func (s *settings) target(own timeouts) timeouts {
	if ttl := s.want(); ttl > 0 {
		return own.of(ttl)
	}
	return own
}

// read notes the settings that Mark has read, unless they may be a lease of ours: the
// session has one, or a rollback may have brought one back.
func (s *settings) read(row db.MarkRow) {
	if s.want() == 0 && !s.pending() {
		s.home, s.known, s.temporary = timeouts{row.Idle, row.IdleInTransaction}, false, false
		s.readIn = row.Xact
	}
}

// A premise is what a try may take for granted of the settings. The fields are
// parameters of TryAcquireWith, and described there.
type premise struct {
	sure      bool
	marked    int64
	home, gen string
}

func (s *settings) premise() (p premise) {
	p.sure = s.want() > 0 && !s.temporary
	if s.known || s.readIn != 0 {
		p.home, p.marked = s.home.idle+"/"+s.home.idleInTransaction, s.readIn
	}
	if s.known && s.floor > 0 {
		p.gen = s.witness()
	}
	return p
}

// A change is what a release, or a waiter that leaves, does to the settings.
type change struct {
	timeouts
	from time.Duration // the lease before, if the change makes it longer
	gen  string        // the witness of a change that makes it longer; otherwise empty
}

// change returns the change that makes the lease one of next.
func (s *settings) change(next time.Duration) (c change) {
	c.timeouts = s.home
	if next > 0 {
		c.timeouts = c.timeouts.of(next)
	}
	if was := s.want(); next != was {
		c.from, c.gen = was, s.nextWitness()
	}
	return c
}

// A placeLease is the lease that one waiter wants for its session.
type placeLease struct {
	ttl  time.Duration
	left bool // the waiter has left, but the server's settings may still be there

	unasked bool // the waiter has no TTL
}

// placeLeases are the leases of the places in line that a session has.
type placeLeases map[*placeLease]struct{}

// shortest returns the shortest lease that a place other than except wants, or best
// if that is shorter. 0 stands for no lease.
func (l placeLeases) shortest(except *placeLease, best time.Duration) time.Duration {
	for p := range l {
		if p != except && (best == 0 || p.ttl < best) {
			best = p.ttl
		}
	}
	return best
}

// left returns a place that was left and whose settings are to be put back, or
// nil.
func (l placeLeases) left() *placeLease {
	for p := range l {
		if p.left {
			return p
		}
	}
	return nil
}

// unasked returns a place whose waiter has no TTL, or nil.
func (l placeLeases) unasked() *placeLease {
	for p := range l {
		if p.unasked {
			return p
		}
	}
	return nil
}
