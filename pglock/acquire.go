package pglock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file asks for a lock, and decides what the answer means. Where it cannot be
// found out whether the session has the lock, the session is destroyed; so it is
// in release.go.

// What TryAcquire, Mark and Turn answer when they have taken or marked nothing.
const (
	heldElsewhere = -1
	onStandby     = -2
	fenceTooOld   = -3 // the transaction has its id already, which is older than the grant
	notOurs       = -4 // the backend is not marked, or has another client's locks
	pretends      = -5 // the server grants each lock to everybody
	misread       = -6 // the session's encoding would garble the audit's texts
	noOffset      = -7 // swanlock.fence_offset is no number
)

// refusal returns the error of a statement that has answered one of these and
// taken nothing.
func refusal(answer int64) error {
	switch answer {
	case heldElsewhere:
		return swanlock.ErrNotAcquired
	case onStandby:
		return ErrStandby
	case fenceTooOld:
		return ErrFenceInTransaction
	case pretends:
		return errPretends
	case misread:
		return fmt.Errorf("%w: the connection's client_encoding is not UTF8, and the target or the owner is not ASCII: connect with client_encoding=UTF8", ErrAudit)
	case noOffset:
		return errors.New("no fence: the setting swanlock.fence_offset must be a whole number of at most 18 digits (ALTER DATABASE ... SET swanlock.fence_offset = '0')")
	}
	return fmt.Errorf("the server has answered %d", answer)
}

// A tried is the answer to a try.
type tried struct {
	answer int64    // 0 or the fence, or one of the above
	saved  timeouts // the settings before the try changed them

	xact      int64  // 0: the statement returns neither this nor the next two
	witness   string // see settings
	temporary bool   // the lease ends with the transaction
}

// tryLock asks for the lock, and sets the lease that the session is to have if the
// lock is granted.
func tryLock(ctx context.Context, tn turn, h *hold, lease string) (t tried, err error) {
	p := tn.led.settings.premise()
	switch {
	case tn.audit:
		h.schema = tn.led.schema
		var row db.TryAcquireAuditedRow
		row, err = askAs(ctx, tn, tn.auditIn(h.schema), (*db.Queries).TryAcquireAudited, db.TryAcquireAuditedParams{
			Key: int64(h.key), Shared: h.Shared, Fence: h.Fence, Lease: lease, Line: h.line, Session: tn.led.who.token,
			Sure: p.sure, Marked: p.marked, Home: p.home, Gen: p.gen,
			Target: h.target, Owner: h.Owner, TtlMs: milliseconds(h.TTL), Backend: tn.led.who.pid, Started: float64(tn.led.who.started) / 1e6})
		h.pid, h.audit, h.staleRows = row.Pid, row.AuditID, row.Dead
		t = tried{row.Answer, timeouts{row.Idle, row.IdleInTransaction}, row.Xact, row.Witness, row.Temporary}
	case lease != "" || h.Shared || h.Fence || h.line != 0 || tn.led.settings.pending():
		var row db.TryAcquireWithRow
		row, err = ask(ctx, tn, (*db.Queries).TryAcquireWith, db.TryAcquireWithParams{
			Key: int64(h.key), Shared: h.Shared, Fence: h.Fence, Lease: lease, Line: h.line, Session: tn.led.who.token,
			Sure: p.sure, Marked: p.marked, Home: p.home, Gen: p.gen})
		h.pid = row.Pid
		t = tried{row.Answer, timeouts{row.Idle, row.IdleInTransaction}, row.Xact, row.Witness, row.Temporary}
	default:
		var pid int64
		pid, err = ask(ctx, tn, (*db.Queries).TryAcquire, db.TryAcquireParams{Session: tn.led.who.token, Key: int64(h.key)})
		h.pid = int32(pid)
		t.answer = min(pid, 0)
	}
	return t, tn.flushed(t.answer, err)
}

// flushed returns errUnflushed instead of err if there is none, and the fence may
// not be on the server's disk.
func (tn turn) flushed(fence int64, err error) error {
	if err == nil && fence > 0 && tn.led.silence.cancelled.Load() {
		return errUnflushed
	}
	return err
}

// prepare marks the session, and finds the audit's table, where that is to be done
// before an acquire. The table may have been created since it was last looked for.
func (tn turn) prepare(ctx context.Context) error {
	if !tn.led.marked || tn.audit && tn.led.schema == "" {
		if err := tn.mark(ctx); err != nil {
			return err
		}
	}
	if tn.audit && tn.led.schema == "" {
		return fmt.Errorf("%w: no schema of the search_path has lock_audit: run its migration (swanlock migrate up)", ErrAudit)
	}
	return nil
}

// grant asks for the lock, and enters it in the ledger. If it fails, nothing is
// held.
func grant(ctx context.Context, tn turn, h *hold, lease string) error {
	if err := tn.prepare(ctx); err != nil {
		return err
	}
	if tn.audit && tn.readOnly() {
		return errReadOnly
	}
	begun := time.Now()
	sent := begun
	row, err := tryLock(ctx, tn, h, lease)
	for n := 1; err != nil && tn.audit && inTheWay(err); n++ {
		if err = undo(tn, h, err); !again(ctx, tn, err, n, begun) {
			return explain(err, true)
		}
		sent = time.Now()
		row, err = tryLock(ctx, tn, h, lease)
	}
	if err == nil && row.answer == notOurs {
		// The mark is gone: a rollback or DISCARD ALL took it.
		tn.led.marked = false
		if err := tn.mark(ctx); err != nil {
			return err
		}
		sent = time.Now()
		row, err = tryLock(ctx, tn, h, lease)
	}
	if err != nil {
		if tn.audit && sqlState(err) == noTable {
			tn.led.schema = "" // The table is gone: the next acquire looks where it is now.
		}
		tn.led.settings.readIn = 0
		if err = undo(tn, h, err); tn.audit {
			return tn.unwritten(err)
		}
		return explain(err, false)
	}
	settings := noteTry(tn, row, lease)
	if row.answer < 0 {
		settings(tn)
	}
	switch {
	case row.answer == heldElsewhere:
		tn.led.touch(sent)
		return swanlock.ErrNotAcquired
	case row.answer == notOurs:
		return fmt.Errorf("%w (process %d is marked, another was asked for the lock)", ErrPooler, tn.led.who.pid)
	case row.answer < 0:
		return refusal(row.answer)
	}
	h.info.Fence = uint64(row.answer)
	h.began(sent)
	over := tn.led.add(h, sent)
	settings(tn)
	if lease != "" {
		tn.warnLeaseless(row.saved)
	}
	if tn.audit && h.audit == 0 {
		release(tn, h)
		return explain(errUnwritten, true)
	}
	if h.staleRows {
		if err := closeStaleRows(tn, h.schema, h.audit); err != nil {
			release(tn, h)
			return err
		}
	}
	if late := h.tooLate(ctx, over); late != nil {
		release(tn, h)
		return late
	}
	return nil
}

// undo makes sure that a try that failed with err has left nothing: in spite of
// the error the lock may have been granted. If the error is the server's, the
// session is asked to unlock; otherwise, or if it cannot, the session is
// destroyed.
//
// It returns err, joined with ErrAbortedTransaction if the caller's transaction
// has failed.
func undo(tn turn, h *hold, err error) error {
	switch state := sqlState(err); {
	case notSent(err), state == inFailedTransaction, state == noPreparedStatement, state == duplicatePreparedStatement:
		return err // The statement was refused before it ran.
	case state == "":
	default:
		undone := unlockIfHeld(tn, h.key, h.Shared)
		if undone == nil && !h.bare {
			return err
		}
		// A role that may not unlock may still ask. What was unlocked of a bare lock
		// was the bare lock itself, if the statement failed before it took another.
		if row, unknown := probe(tn, h); unknown == nil && (undone == nil || !row.Held) {
			h.bare = row.Held
			return err
		}
		if sqlState(undone) == inFailedTransaction {
			err = aborted(err)
		}
	}
	tn.destroy(err)
	return err
}

// checkHeld asks the server whether the session still holds h, when a caller
// asks for the same key again. It returns swanlock.ErrAlreadyHeld if so, and
// nil if that lock is lost and another may be asked for. It does not restart
// the TTL of h.
func checkHeld(tn turn, h *hold) error {
	row, err := probe(tn, h)
	if err != nil {
		err = examine(tn, h, err, false)
	} else if err = proven(tn, h, row); err == nil {
		return swanlock.ErrAlreadyHeld
	}
	if h.over() == nil {
		return err
	}
	// That lock is lost, and its holder was told. The caller may have the new
	// one if the session lives.
	if errors.Is(err, ErrPooler) {
		return ErrPooler
	}
	if dead := tn.led.alive(); dead != nil {
		return dead
	}
	_, err = ledgerOf(tn.sql())
	return err
}
