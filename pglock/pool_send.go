package pglock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// A batch is acquires and releases that travel in one statement, and perhaps a
// ticket that it takes, too.
type batch struct {
	batcher
	releases, acquires []*op // they are sorted by readers
	join               *join // nil: no ticket
}

// send sends the ops, in one statement if there are several.
func (b batch) send() {
	if len(b.releases)+len(b.acquires) > 1 {
		b.sendTogether()
		return
	}
	for _, o := range slices.Concat(b.releases, b.acquires) {
		if o.stays || o.ticket != nil || b.join != nil {
			b.sendTogether()
		} else {
			b.sendOne(o)
		}
	}
}

// sendTogether sends the ops in one statement.
func (b batch) sendTogether() {
	if err := b.prepare(context.Background()); err != nil {
		if gone := b.s.over(); gone != nil {
			err = gone
		}
		for _, o := range b.acquires {
			o.err = err
		}
		for _, o := range b.releases {
			b.sendOne(o)
		}
		return
	}
	b.counts.batch(len(b.releases) + len(b.acquires))
	sent := time.Now()
	row, err := b.ask()
	if err == nil && row.Pid != b.s.pid {
		b.endBehindPooler(row.Pid)
		b.failAll(b.releases)
		for _, o := range b.acquires {
			o.err = ErrPooler
		}
		return
	}
	var rows []auditRow
	if err == nil && b.audit {
		if rows, err = rowsOf(row, b.acquires); errors.Is(err, errUnwritten) {
			b.closeRows(rows)
		}
	}
	if err != nil {
		b.untangle(err)
		return
	}
	b.led.touch(sent)
	if b.join != nil {
		b.join.pid, b.join.number = row.Pid, row.Ticket
	}
	for _, o := range b.releases {
		o.err = b.released(o.h, o.answered(row.Released))
	}
	b.granted(b.acquires, row, rows, sent)
}

// ask sends the statement.
func (b batch) ask() (row db.BatchAuditedRow, err error) {
	unlocks, locks := numbered(b.releases), numbered(b.acquires)
	switch {
	case b.audit:
		row, err = askAs(context.Background(), b.turn, b.auditIn(b.led.schema), (*db.Queries).BatchAudited, b.audited(b.params(unlocks, locks)))
		for _, o := range b.acquires {
			o.h.schema = b.led.schema
		}
	case b.passesOn(unlocks, locks):
		var answer db.PassRow
		answer, err = ask(context.Background(), b.turn, (*db.Queries).Pass, b.pass(locks[0]))
		row = withoutRows(db.BatchRow(answer))
	default:
		var answer db.BatchRow
		answer, err = ask(context.Background(), b.turn, (*db.Queries).Batch, b.params(unlocks, locks))
		row = withoutRows(answer)
	}
	return row, b.whole(row, len(unlocks), len(locks), err)
}

func withoutRows(a db.BatchRow) db.BatchAuditedRow {
	return db.BatchAuditedRow{Pid: a.Pid, Released: a.Released, Acquired: a.Acquired, Ticket: a.Ticket, Fence: a.Fence}
}

// params returns what the statement is to unlock and to lock.
func (b batch) params(unlocks, locks []*op) db.BatchParams {
	params := db.BatchParams{
		Pid:     b.s.pid,
		Release: keys(unlocks),
		Unshare: flags(unlocks, (*op).shared),
		Acquire: keys(locks),
		Lines:   array(locks, func(o *op) int64 { return o.h.line }),
		Share:   flags(locks, (*op).shared),
		Tickets: "{}",
		Fence:   slices.ContainsFunc(b.acquires, func(o *op) bool { return o.h.Fence }),
	}
	if slices.ContainsFunc(locks, func(o *op) bool { return o.ticket != nil }) {
		params.Tickets = array(locks, func(o *op) int64 { return o.ticket.bits() })
	}
	if b.join != nil {
		params.Hash, params.Hint, params.Own = lineHash(b.join.key), b.join.hint, b.join.own
	}
	return params
}

// audited returns the params of a statement that also closes the rows of the
// releases, and writes those of the acquires.
func (b batch) audited(params db.BatchParams) db.BatchAuditedParams {
	return db.BatchAuditedParams{
		Pid: params.Pid, Release: params.Release, Unshare: params.Unshare, Acquire: params.Acquire, Lines: params.Lines, Share: params.Share, Tickets: params.Tickets,
		Hash: params.Hash, Hint: params.Hint, Own: params.Own,
		Closing: array(b.releases, func(o *op) int64 { return o.h.audit }),
		Of:      array(b.releases, func(o *op) int64 { return int64(o.number()) }),
		Expired: flags(b.releases, func(o *op) bool { return errors.Is(o.h.over(), swanlock.ErrExpired) }),
		Keys:    keys(b.acquires),
		Targets: texts(b.acquires, func(o *op) string { return o.h.target }),
		Owners:  texts(b.acquires, func(o *op) string { return o.h.Owner }),
		Ttls:    array(b.acquires, func(o *op) int64 { return milliseconds(o.h.TTL) }),
		Shared:  flags(b.acquires, (*op).shared),
		Under:   array(b.acquires, func(o *op) int64 { return int64(o.number()) }),
		Started: float64(b.led.who.started) / 1e6,
	}
}

// whole returns err or, if there is none, what is wrong with the answer: it is not
// all there, or its fence may not be on the server's disk.
func (b batch) whole(row db.BatchAuditedRow, unlocks, locks int, err error) error {
	if err == nil && row.Pid == b.s.pid && (len(row.Released) != unlocks || len(row.Acquired) != locks) {
		return fmt.Errorf("the server answered %d of %d unlocks and %d of %d locks", len(row.Released), unlocks, len(row.Acquired), locks)
	}
	return b.flushed(row.Fence, err)
}

// granted notes the server's answers to the acquires.
func (b batcher) granted(acquires []*op, row db.BatchAuditedRow, rows []auditRow, sent time.Time) {
	over := make([]error, len(acquires))
	var stale []int64
	for i, o := range acquires {
		if !o.answered(row.Acquired) {
			o.err = swanlock.ErrNotAcquired
			continue
		}
		h := o.h
		h.pid = row.Pid
		h.began(sent)
		if h.Fence || b.audit && !h.Shared {
			h.info.Fence = uint64(row.Fence)
		}
		if b.audit {
			h.audit, h.staleRows = rows[0].id, rows[0].stale
			rows = rows[1:]
		}
		if h.staleRows {
			stale = append(stale, h.audit)
		}
		if o.ticket != nil {
			o.ticket.hint.passed(o.ticket, o.ticket.number)
			b.led.displace(o.ticket)
		}
		over[i] = b.led.add(h, sent)
	}
	var unclosed error
	if len(stale) > 0 {
		unclosed = closeStaleRows(b.turn, b.led.schema, stale...)
	}
	// Now that all readers are in the ledger, none of them frees the others' lock.
	for i, o := range acquires {
		if o.err != nil {
			continue
		}
		if o.err = o.h.tooLate(o.ctx, over[i]); o.err == nil && o.h.staleRows {
			o.err = unclosed
		}
		if o.err != nil {
			release(b.turn, o.h)
		}
	}
}

// released notes the server's answer to the unlock of h, and returns the error
// of its Release.
func (b batcher) released(h *hold, held bool) error {
	if err := b.led.settled(h, held); !errors.Is(err, swanlock.ErrReleased) {
		return err
	}
	return nil
}

// untangle settles a batch that failed with err, of which some locks and
// unlocks may have been made: it gives the locks back, and finishes the
// unlocks. Then it sends each acquire by itself, so that none fails because of
// another one, unless the statement was cancelled, or a row has waited in vain.
func (b batch) untangle(err error) {
	var held map[Key]bool
	unknown := err
	if sqlState(err) != "" {
		held, unknown = heldKeys(context.Background(), b.turn)
	}
	alone := len(b.releases)+len(b.acquires) == 1 && b.join == nil
	if b.join != nil {
		undoTicket(b.turn, lineHash(b.join.key), err)
	}
	if sqlState(err) == noTable {
		b.led.schema = "" // The table is gone: it is looked for where it is now.
	}
	leaving := make(map[Key]bool) // true: as readers
	for _, o := range b.releases {
		leaving[o.h.key] = o.h.Shared
	}
	for _, o := range b.acquires { // A lock that was granted is given back, here or by its former holder's release.
		o.err = explain(err, b.audit)
		if o.ticket != nil {
			o.err = swanlock.ErrNotAcquired // It joins the line again.
			b.led.displace(o.ticket)
			undoTicket(b.turn, o.ticket.hash, err)
		}
		reader, leaves := leaving[o.h.key]
		if shared, ok := held[o.h.key]; ok && unknown == nil && o.answers() && shared == o.h.Shared && !(leaves && reader == shared) {
			unknown = unlockIfHeld(b.turn, o.h.key, shared)
			delete(held, o.h.key)
		}
	}
	if unknown != nil {
		b.destroy(err)
	}
	if b.led.alive() != nil {
		b.failAll(b.releases)
		for _, o := range b.acquires {
			o.err = fmt.Errorf("%w: %w", errSessionGone, err)
		}
		return
	}
	for _, o := range b.releases {
		shared, ok := held[o.h.key]
		switch {
		case ok && shared == o.h.Shared || o.stays:
			o.err = release(b.turn, o.h)
		case o.h.audit != 0:
			o.err = b.closeReleased(o.h)
		default: // The session lives, so only the batch can have unlocked it.
			o.err = b.released(o.h, true)
		}
	}
	if alone || sqlState(err) == queryCanceled {
		return
	}
	var inVain error // A new row waits for the table alone, so the others would wait in vain, too.
	for _, o := range b.acquires {
		switch {
		case o.ticket != nil || !b.stillWanted(o):
		case inVain != nil:
			o.err = inVain
		default:
			o.err, o.stays, o.leader = nil, false, nil
			if b.acquire(o); b.audit && waitEnded(o.err) {
				inVain = o.err
			}
		}
	}
}

// closeReleased notes that h was unlocked by a batch that has failed, so that its
// row was not closed, and closes it. When it was unlocked is not known.
func (b batcher) closeReleased(h *hold) error {
	expired := errors.Is(h.over(), swanlock.ErrExpired)
	over := b.released(h, true)
	unaudited := b.writing(func() error { return auditReleased(b.turn, h, longAgo, endReason(expired)) })
	if over != nil {
		return over
	}
	return unaudited
}

// closeRows closes the rows of a batch whose locks are given back. If one waits in
// vain, the others are left to the next holders.
func (b batcher) closeRows(rows []auditRow) {
	for _, r := range rows {
		_ = b.writing(func() error {
			return auditReleased(b.turn, &hold{audit: r.id, schema: b.led.schema}, longAgo, endReason(false))
		})
	}
}

// An auditRow is what the server says of a row that it has written.
type auditRow struct {
	id    int64
	stale bool // see hold.staleRows
}

// rowsOf returns the rows that were written for the acquires that were granted,
// and an error if the server has not answered for each.
func rowsOf(row db.BatchAuditedRow, acquires []*op) (rows []auditRow, err error) {
	granted := 0
	for _, o := range acquires {
		if o.answered(row.Acquired) {
			granted++
		}
	}
	for id := range strings.SplitSeq(row.Ids, ",") {
		if id == "" {
			break
		}
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the server answered %q for a row: %w", id, err)
		}
		rows = append(rows, auditRow{id: n})
	}
	if len(rows) < granted { // It is not known whose are missing.
		return rows, errUnwritten
	}
	if len(rows) != granted || len(row.Dead) != granted {
		return nil, fmt.Errorf("the server wrote %d of %d rows", len(rows), granted)
	}
	for i := range rows {
		rows[i].stale = row.Dead[i] == '1'
	}
	return rows, nil
}
