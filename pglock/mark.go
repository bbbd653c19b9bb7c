package pglock

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/swanlake-io/swanlock/db"
)

// mark writes the session's token to its backend, as the setting
// swanlock.session: the statements that take locks work on no other backend.
// Whatever its error, no lock was taken. If the session turns out to be one
// that has a ledger already, this turn is not the turn of that ledger: see
// current.
func (tn turn) mark(ctx context.Context) error { return tn.markInstead(ctx, "") }

// markInstead is mark for a session whose present mark may be replaced if it is
// instead.
func (tn turn) markInstead(ctx context.Context, instead string) error {
	row, err := ask(ctx, tn, (*db.Queries).Mark, db.MarkParams{Session: tn.led.who.token, Instead: instead})
	switch {
	case err != nil:
		if cutOff(err) && !notSent(err) {
			tn.destroy(err)
		}
		if state := sqlState(err); state == noFunction || state == noObject || state == syntaxError {
			return fmt.Errorf("the server lacks what every PostgreSQL has, so use the package leaselock: %w: %w", errors.ErrUnsupported, err)
		}
		return explain(err, false)
	case row.Answer == pretends:
		return errPretends
	case row.Answer == onStandby:
		return ErrStandby
	}
	switch former, other := formerOf(tn.led, row, instead); {
	case former == abandonedSession:
		return tn.adopt(ctx, other, row)
	case former == endedSession:
		marks(tn.led, row)
		tn.destroy(errEnded)
		return errEnded
	case row.Answer == notOurs && former == emptySession:
		return tn.markInstead(ctx, row.Before)
	case row.Answer == notOurs:
		return fmt.Errorf("%w (process %d has locks for another client)", ErrPooler, row.Pid)
	}
	marks(tn.led, row)
	if !tn.led.marked { // Otherwise mark was called to find the audit's table.
		tn.led.settings.read(row)
	}
	tn.led.marked, tn.led.schema = true, row.Schema
	return nil
}

// A former says what this process knows of the session that Mark has found.
type former int

const (
	foreignSession   former = iota // another program's, or one that is in use
	emptySession                   // ours, not in use, and without locks, tickets or a lease
	abandonedSession               // ours; its connection was closed with some of these on it
	endedSession                   // ours; it was to be destroyed, but is alive
)

// formerOf returns what is known of the session that had the mark of row, and
// its ledger, if there is one.
func formerOf(led *ledger, row db.MarkRow, instead string) (former, *ledger) {
	at := backend{row.Pid, row.Started}
	ours := strings.HasPrefix(row.Before, process)
	who := &led.who
	if at == (backend{who.pid, who.started}) && row.Started != 0 && ours && row.Before != who.token {
		// Perhaps a rollback has brought back the mark that was before ours.
		if before := ledgerIn(&byToken, row.Before); before == nil || isLeft(before) {
			return emptySession, nil
		}
	}
	if who.pid != 0 || row.Before == who.token || row.Before == instead && instead != "" {
		return foreignSession, nil
	}
	// A rollback may have brought back an older mark than that of the backend's
	// ledger, or none.
	var other *ledger
	if row.Started != 0 && (row.Before == "" || ours) {
		other = ledgerIn(&byBackend, at)
	}
	switch {
	case other != nil:
	case row.Before == "":
		return foreignSession, nil
	case ours:
		if other = ledgerIn(&byToken, row.Before); other == nil {
			return emptySession, nil
		}
	default:
		return foreignSession, nil
	}
	itsBackend, open := other.who.seen()
	dead, owned, hasState := other.state()
	switch {
	case itsBackend != at:
		return foreignSession, other
	case dead:
		return endedSession, other
	case owned, open:
		return foreignSession, other // A pooler gave the same backend to both.
	case hasState:
		return abandonedSession, other
	}
	return emptySession, other
}

// isLeft reports whether nobody uses the ledger, and nothing is to be settled.
func isLeft(led *ledger) bool {
	_, open := led.who.seen()
	_, owned, hasState := led.state()
	return !open && !owned && !hasState
}

// adopt makes other, the session's ledger, the ledger of this connection too.
// From then on only other is used. The caller must still take the turn of
// other; before that nothing was locked.
func (tn turn) adopt(ctx context.Context, other *ledger, row db.MarkRow) error {
	if row.Answer != notOurs { // Mark has replaced the mark of other, since that had no locks.
		_, err := ask(ctx, tn, (*db.Queries).Mark, db.MarkParams{Session: other.who.token, Instead: tn.led.who.token})
		if err != nil { // Both ledgers may be the session's, so both end with it.
			marks(tn.led, row)
			other.lose(err)
			tn.destroy(err)
			return explain(err, false)
		}
	}
	other.who.cameThrough(tn.sql())
	tn.led.who.next.Store(other)
	return nil
}
