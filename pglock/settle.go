package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file decides what the server's answers mean: a grant, a proof, an
// unlock, an error. Where the state of a lock cannot be found out, the session
// is destroyed.

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
func (tn turn) grant(ctx context.Context, h *hold, lease string) error {
	if err := tn.prepare(ctx); err != nil {
		return err
	}
	sent := time.Now()
	row, err := tn.try(ctx, h, lease)
	for n := 1; err != nil && tn.audit && inTheWay(err); n++ {
		if err = tn.undo(h, err); !tn.again(ctx, err, n) {
			return explain(err, true)
		}
		sent = time.Now()
		row, err = tn.try(ctx, h, lease)
	}
	if err == nil && row.answer == notOurs {
		// The mark is gone: a rollback or DISCARD ALL took it.
		tn.led.marked = false
		if err := tn.mark(ctx); err != nil {
			return err
		}
		sent = time.Now()
		row, err = tn.try(ctx, h, lease)
	}
	if err != nil {
		if tn.audit && sqlState(err) == noTable {
			tn.led.schema = "" // The table is gone: the next acquire looks where it is now.
		}
		tn.led.settings.marked = 0
		return explain(tn.undo(h, err), tn.audit)
	}
	settings := tn.led.tried(row, lease)
	if row.answer < 0 {
		settings(tn)
	}
	switch {
	case row.answer == heldElsewhere:
		tn.led.touch(sent)
		return swanlock.ErrNotAcquired
	case row.answer == notOurs:
		return fmt.Errorf("%w (process %d is marked, another was asked for the lock)", ErrPooler, tn.led.backend)
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
	if h.staleRows {
		if err := tn.closeStaleRows(h.schema, h.audit); err != nil {
			tn.release(h)
			return err
		}
	}
	if late := h.tooLate(ctx, over); late != nil {
		tn.release(h)
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
func (tn turn) undo(h *hold, err error) error {
	switch state := sqlState(err); {
	case notSent(err), state == inFailedTransaction, state == noPreparedStatement, state == duplicatePreparedStatement:
		return err // The statement was refused before it ran.
	case state == "":
	default:
		undone := tn.unlockIfHeld(h.key, h.Shared)
		if undone == nil {
			return err
		}
		// A role that may not unlock may still ask.
		if row, unknown := tn.probe(h); unknown == nil && !row.Held {
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
func (tn turn) checkHeld(h *hold) error {
	row, err := tn.probe(h)
	if err != nil {
		err = tn.examine(h, err)
	} else if err = tn.proven(h, row); err == nil {
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

// settle unlocks the locks that have ended here but that the server may still
// hold, drops the tickets of callers that have left, and takes back the leases
// of their places.
func (tn turn) settle() error {
	for {
		h, t := tn.led.nextUnsettled()
		if t != nil {
			if err := tn.drop(t); err != nil {
				return err
			}
			continue
		}
		if p := tn.led.leftPlace(); h == nil && p != nil {
			if err := tn.leavePlace(p); err != nil {
				return err
			}
			continue
		}
		if h == nil {
			return tn.led.alive()
		}
		err := tn.release(h)
		if notSent(err) {
			return err
		}
		if tn.led.contains(h) {
			return fmt.Errorf("the session still has to unlock %s: %w", quote(h.target), sql.ErrConnDone)
		}
	}
}

// renew proves the lock and restarts its TTL.
func (tn turn) renew(ctx context.Context, h *hold, itself bool) error {
	audited := h.audit != 0
	if audited && itself && errors.Is(tn.outside(ctx), errInTransaction) {
		audited = false // in one that is read-only the row would make it fail
	}
	sent := time.Now()
	row, err := tn.refresh(ctx, h, audited)
	var failed error // of the attempt before
	for n := 1; audited && tn.again(ctx, err, n); n++ {
		failed, sent = err, time.Now()
		row, err = tn.refresh(ctx, h, true)
	}
	var unaudited error
	if state := sqlState(err); audited && state != "" && state != inFailedTransaction {
		// The error is the server's, so the session lives, and the lock can be
		// refreshed without its row.
		unaudited = explain(err, true)
		failed, sent = err, time.Now()
		row, err = tn.refresh(ctx, h, false)
	}
	if failed != nil && sqlState(err) == inFailedTransaction {
		err = aborted(failed)
	}
	if err != nil {
		return tn.examine(h, err)
	}
	if err := tn.proven(h, row); err != nil {
		return err
	}
	tn.led.renewed(sent, func(other *hold) bool { return other == h })
	switch reverted := tn.led.saw(row.Xact, row.Witness); {
	case tn.led.settings.temporary:
		tn.learn()
	case reverted:
		tn.putAgain()
	}
	tn.settle() // A lock that has ended must not live on by the lease that was set again.
	if over := h.over(); over != nil {
		return over
	}
	return unaudited
}

// proven returns an error if row says that the lock is lost, and ends the lock
// then.
func (tn turn) proven(h *hold, row db.RefreshRow) error {
	switch {
	case row.Pid != h.pid:
		return tn.wrongBackend(h, row.Pid)
	case !row.Held:
		err := h.lose(errNotHeld)
		tn.release(h) // It puts back the settings.
		return err
	}
	return nil
}

// examine asks the session whether it still holds the lock after a refresh
// that failed with err.
func (tn turn) examine(h *hold, err error) error {
	if notSent(err) {
		return err
	}
	state := sqlState(err)
	err = explain(err, h.audit != 0)
	if state != "" && state != inFailedTransaction {
		row, again := tn.probe(h)
		if again == nil {
			if lost := tn.proven(h, row); lost != nil {
				return lost
			}
			return err
		}
		state = sqlState(again)
	}
	if state == inFailedTransaction {
		return err // The session lives, and its locks outlive the transaction.
	}
	tn.destroy(err)
	return h.over()
}

// wrongBackend ends the lock when the backend pid answered, and not the one
// that granted it. That one cannot be sent anything any more, so it is ended,
// and with it all locks of the session.
func (tn turn) wrongBackend(h *hold, pid int32) error {
	err := h.lose(fmt.Errorf("%w (process %d granted the lock, %d answered)", ErrPooler, h.pid, pid))
	held := tn.led.holds()
	tn.led.lose(ErrPooler) // The holders are told before another session can have their locks.
	for _, other := range held {
		tn.terminate(other)
	}
	tn.destroy(ErrPooler)
	return err
}

// release frees the lock on the server and ends it. It returns nil if the
// server says that the lock was held until then.
func (tn turn) release(h *hold) error {
	if !tn.led.contains(h) { // The session is gone, or h was settled meanwhile.
		return h.over()
	}
	if tn.led.shared(h) {
		return tn.leaveReaders(h)
	}
	c := tn.led.leaseWithout(h)
	expired := errors.Is(h.over(), swanlock.ErrExpired)
	sent := time.Now()
	row, err := tn.unlock(h, c, h.audit != 0, expired)
	if notSent(err) {
		return err
	}
	var unaudited error
	if sqlState(err) != "" {
		// The error is the server's, so the session lives: ask it to unlock,
		// and no more.
		failed := err
		unaudited = explain(err, h.audit != 0)
		row, err = tn.unlock(h, c, false, expired)
		if err == nil && row.Pid == h.pid {
			// If the session does not hold the lock any more, the first
			// statement has unlocked it, unless it was refused before it ran.
			at := row.Xact
			if !row.Released {
				at = longAgo
				row.Released = !strings.HasPrefix(sqlState(failed), "42")
			}
			if h.audit != 0 && inTheWay(failed) {
				unaudited = explain(tn.auditReleased(h, at, endReason(expired)), true)
			}
		} else if sqlState(err) == inFailedTransaction {
			err = aborted(failed)
		}
	}
	if err != nil {
		tn.destroy(explain(err, false))
		return h.over()
	}
	if row.Pid != h.pid {
		return tn.wrongBackend(h, row.Pid)
	}
	tn.led.touch(sent)
	tn.led.changed(c, row.Xact)
	over := tn.led.settled(h, row.Released)
	tn.ease(h)
	if c.gen != "" && !tn.led.empty() { // The other locks count on the shorter lease until then.
		tn.confirm()
	}
	if !row.Released && h.audit != 0 && unaudited == nil {
		tn.auditLost(h)
	}
	switch {
	case !errors.Is(over, swanlock.ErrReleased):
		return over
	case h.audit != 0:
		return unaudited
	}
	return nil
}

// leaveReaders ends the lock of a reader on a session that has it for others,
// too.
func (tn turn) leaveReaders(h *hold) error {
	expired := errors.Is(h.over(), swanlock.ErrExpired)
	row, err := tn.probe(h)
	if sqlState(err) != "" { // It was cancelled, perhaps: the session lives.
		row, err = tn.probe(h)
	}
	switch {
	case notSent(err):
		return err
	case err != nil:
		tn.destroy(explain(err, false))
		return h.over()
	case row.Pid != h.pid:
		return tn.wrongBackend(h, row.Pid)
	}
	var unaudited error
	switch {
	case h.audit == 0:
	case row.Held:
		unaudited = explain(tn.auditReleased(h, row.Xact, endReason(expired)), true)
	default:
		tn.refresh(context.Background(), h, true) // It closes the row.
	}
	if over := tn.led.settled(h, row.Held); !errors.Is(over, swanlock.ErrReleased) {
		return over
	}
	return unaudited
}

// releaseAll releases the locks that were taken through the access of tn, and
// drops its tickets. Its errors are those of locks whose holders were not told.
func (tn turn) releaseAll() (errs []error) {
	holds, tickets := tn.led.takenThrough(tn.access)
	for _, t := range tickets {
		if err := tn.drop(t); err != nil {
			errs = append(errs, err)
		}
	}
	tn.led.endAll(holds)
	for _, h := range holds {
		if err := tn.release(h); err != nil && !errors.Is(err, errDropped) {
			errs = append(errs, fmt.Errorf("pglock: release %s: %w", quote(h.target), err))
		}
	}
	return errs
}
