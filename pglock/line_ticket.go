package pglock

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// A ticket is a place in a line.
type ticket struct {
	led    *ledger
	a      *access
	hint   *lineHint
	pid    int32        // the backend that has it
	hash   int64        // the line's: see lineHash
	number int32        // its number in the line
	ahead  atomic.Int32 // the predecessor's number, when last seen; 0: it is first, and stays so
	lowest atomic.Int32 // no number below is live
	place  *placeLease  // the session's lease for this place, if it could be set; nil: none
	after  int32        // of one that has no number yet: a number of the line; see nextTicket
}

// takeTicket joins the line of key. It returns nil, without an error, if
// several attempts met too many others that joined at the same time, or if the
// line has no number left until it is empty.
//
// A number that a batch has taken is given as next.
func takeTicket(ctx context.Context, tn turn, key Key, c *lineHint, next taken, p *placeLease) (*ticket, error) {
	t := &ticket{led: tn.led, a: tn.access, hint: c, hash: lineHash(key), pid: next.pid, number: next.number, place: p}
	var err error
	hint, lowest := c.numbers(key)
	own := slices.Max(append(tn.led.numbers(t.hash), 0)) // the session's highest number in this line
	due := func(outside bool) string {
		if !outside { // A rollback would take the lease back.
			return ""
		}
		return tn.led.settings.due(p)
	}
	if t.number > 0 {
		lowest = next.lowest
	} else if hint > 0 {
		var row db.TakeNextRow
		sent := time.Now()
		row, err = askWhere(ctx, tn, (*db.Queries).TakeNext, func(outside bool) db.TakeNextParams {
			return db.TakeNextParams{Hash: t.hash, Hint: max(hint, own), Own: own >= hint, Backend: tn.led.who.pid, Lease: due(outside)}
		})
		t.pid, t.number = row.Pid, row.Ticket
		if row.Leased {
			setPlace(tn, p, timeouts{row.Idle, row.IdleInTransaction}, sent)
		}
	}
	for n := 0; err == nil && t.number == 0 && n < 4; n++ {
		var row db.TakeTicketRow
		sent := time.Now()
		row, err = askWhere(ctx, tn, (*db.Queries).TakeTicket, func(outside bool) db.TakeTicketParams {
			return db.TakeTicketParams{Hash: t.hash, Own: own > 0, Backend: tn.led.who.pid, Lease: due(outside)}
		})
		t.pid, t.number, lowest = row.Pid, row.Ticket, row.Lowest
		if row.Leased {
			setPlace(tn, p, timeouts{row.Idle, row.IdleInTransaction}, sent)
		}
	}
	if err != nil {
		undoTicket(tn, t.hash, err)
		return nil, explain(err, false)
	}
	if t.number <= 0 {
		return nil, nil
	}
	t.enter(lowest)
	return t, nil
}

// enter enters t, which has its number, into the ledger. No number below lowest is
// live; 0: no ticket was ahead when this one was taken.
func (t *ticket) enter(lowest int32) {
	if lowest > 0 {
		t.ahead.Store(t.number - 1)
	} else {
		lowest = t.number
	}
	t.lowest.Store(lowest)
	t.led.place(t)
}

// A taken is a number in a line that was taken already; its zero is none.
type taken struct {
	pid            int32
	number, lowest int32 // lowest: no number below is live
}

// nextTicket returns a ticket without a number, which the first statement that waits
// for it takes, too. It returns nil if no number of the line is known, or if the
// session has something that it would have to wait for, or to keep.
func nextTicket(tn turn, key Key, c *lineHint) *ticket {
	last, lowest := c.numbers(key)
	if last == 0 || lowest < last-maxProbes/2 || !tn.led.empty() || len(tn.led.numbers(lineHash(key))) > 0 {
		return nil
	}
	t := &ticket{led: tn.led, a: tn.access, hint: c, hash: lineHash(key), pid: tn.led.who.pid, after: last}
	t.lowest.Store(lowest)
	return t
}

// numbered enters t, whose number in the line of key the backend pid has taken; 0:
// none.
func (t *ticket) numbered(key Key, pid, number int32) {
	t.after = 0
	if number == 0 {
		return
	}
	t.pid, t.number = pid, number
	t.enter(t.lowest.Load())
	t.hint.joined(key, t, true)
}

// find enters t, which a statement that failed with err may have taken.
func (t *ticket) find(tn turn, key Key, err error) error {
	row, lost := ask(context.Background(), tn, (*db.Queries).OwnTicket, t.hash)
	switch {
	case lost == nil && row.Pid != t.pid:
		lost = ErrPooler
		fallthrough
	case lost != nil:
		tn.destroy(lost)
		return explain(lost, false)
	case row.Ticket == 0:
		undoTicket(tn, t.hash, err)
		return tn.led.alive()
	}
	t.numbered(key, row.Pid, row.Ticket)
	return nil
}

// undoTicket makes sure that a takeTicket that failed with err has left nothing.
func undoTicket(tn turn, hash int64, err error) {
	if notSent(err) {
		return
	}
	switch sqlState(err) {
	case inFailedTransaction:
		return
	case "":
	default:
		var known []string
		for _, number := range tn.led.numbers(hash) {
			known = append(known, strconv.Itoa(int(number)))
		}
		_, err := ask(context.Background(), tn, (*db.Queries).UndoTicket,
			db.UndoTicketParams{Hash: hash, Shares: int32(len(known)), Known: "{" + strings.Join(known, ",") + "}"})
		if err == nil {
			return
		}
	}
	tn.destroy(err)
}

// live reports whether t still has its place.
func (t *ticket) live() bool { return t.led.has(t) }

// drop gives up the ticket t of this session. A ticket that stayed would stop
// the whole line, so the session is destroyed if it is not certain that the
// ticket is gone.
func (t *ticket) drop(tn turn) error {
	if !t.live() {
		return nil
	}
	row, err := ask(context.Background(), tn, (*db.Queries).DropTicket, db.DropTicketParams{Pid: t.pid, Hash: t.hash, Ticket: t.number})
	if err == nil && row.Pid != t.pid {
		err = ErrPooler
	}
	if errors.Is(err, ErrBusy) {
		t.led.forsake(t)
		return err
	}
	if err != nil {
		tn.destroy(err)
		return err
	}
	t.led.displace(t)
	return leavePlace(tn, t.place)
}
