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

// This file is what the answers of the server mean: a grant, a proof, an unlock,
// an error. What cannot be settled is destroyed.

// grant asks for the lock, and enters it in the ledger. Whatever its error,
// nothing is held.
func (tn turn) grant(ctx context.Context, h *hold, lease string) error {
	if !tn.led.marked || tn.audit && tn.led.schema == "" { // its table may have been made since
		if err := tn.mark(ctx); err != nil {
			return err
		}
	}
	if tn.audit && tn.led.schema == "" {
		return fmt.Errorf("%w: no schema of the search_path has lock_audit: run its migration (swanlock migrate up)", ErrAudit)
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
	if err == nil && row.answer > 0 && tn.led.cancelled.Load() {
		err = errUnflushed
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
	switch row.answer {
	case heldElsewhere:
		tn.led.touch(sent)
		return swanlock.ErrNotAcquired
	case onStandby:
		return ErrStandby
	case fenceTooOld:
		return ErrFenceInTransaction
	case misread:
		return fmt.Errorf("%w: the connection's client_encoding is not UTF8, and the target or the owner is not ASCII: connect with client_encoding=UTF8", ErrAudit)
	case noOffset:
		return errors.New("no fence: the setting swanlock.fence_offset must be a whole number of at most 18 digits (ALTER DATABASE ... SET swanlock.fence_offset = '0')")
	case notOurs:
		return fmt.Errorf("%w (process %d is marked, another was asked for the lock)", ErrPooler, tn.led.backend)
	}
	h.info.Fence = uint64(row.answer)
	h.began(sent)
	over := tn.led.add(h, sent)
	settings(tn)
	if lease != "" {
		tn.warnLeaseless(row.saved)
	}
	if h.staleRows {
		if err := tn.closeStaleRows(h); err != nil {
			return err
		}
	}
	if late := h.tooLate(ctx, over); late != nil {
		tn.release(h)
		return late
	}
	return nil
}

// undo makes sure that a try that failed with err has left nothing: an error
// does not mean that the lock was not granted. If the server spoke, the session
// is asked to unlock; otherwise, or if it cannot, it is destroyed.
//
// It returns err, and with it that the caller's transaction has failed.
func (tn turn) undo(h *hold, err error) error {
	switch state := sqlState(err); {
	case notSent(err), state == inFailedTransaction, state == noPreparedStatement, state == duplicatePreparedStatement:
		return err // refused before it ran
	case state == "":
	case h.Shared && tn.led.hasOtherReader(h.key, h):
		tn.led.doubt(h.key) // an unlock might free the other reader's share
		return err
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

// checkHeld asks the server about h, which the session holds by the ledger and is
// asked for again. It does not restart that lock's TTL.
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
	// That lock is lost, which its holder is told. This one may be had if the
	// session lives.
	if errors.Is(err, ErrPooler) {
		return ErrPooler
	}
	if dead := tn.led.alive(); dead != nil {
		return dead
	}
	_, err = ledgerOf(tn.sql())
	return err
}

// settle unlocks what has ended here but may still be locked on the server, and
// leaves the lines that nobody waits in any more.
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
		tn.release(h)
		if tn.led.contains(h) {
			return fmt.Errorf("the session still has to unlock %s: %w", quote(h.target), sql.ErrConnDone)
		}
	}
}

// renew proves the lock and restarts its TTL.
func (tn turn) renew(ctx context.Context, h *hold) error {
	sent := time.Now()
	row, err := tn.refresh(ctx, h, h.audit != 0)
	for n := 1; h.audit != 0 && tn.again(ctx, err, n); n++ {
		failed := err
		sent = time.Now()
		if row, err = tn.refresh(ctx, h, true); sqlState(err) == inFailedTransaction {
			err = aborted(failed)
			break
		}
	}
	var unaudited error
	if state := sqlState(err); h.audit != 0 && state != "" && state != inFailedTransaction && !errors.Is(err, ErrAbortedTransaction) {
		// The server spoke, so the session lives: the lock itself does not need the row.
		failed := err
		unaudited = explain(err, true)
		sent = time.Now()
		if row, err = tn.refresh(ctx, h, false); sqlState(err) == inFailedTransaction {
			err = aborted(failed)
		}
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
	tn.settle() // the lease that was set again is also that of a lock that has ended
	if over := h.over(); over != nil {
		return over
	}
	return unaudited
}

// proven judges what the server said of the lock, and clears up after a loss.
func (tn turn) proven(h *hold, row db.RefreshRow) error {
	switch {
	case row.Pid != h.pid:
		return tn.wrongBackend(h, row.Pid)
	case !row.Held:
		err := h.lose(errNotHeld)
		tn.release(h) // puts back the settings
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
		return err // the session lives, and its locks outlive the transaction
	}
	tn.destroy(err)
	return h.over()
}

// wrongBackend ends the lock when another backend answered. The one that granted it
// cannot be spoken to, only ended, and so it is with the session's other locks.
func (tn turn) wrongBackend(h *hold, pid int32) error {
	err := h.lose(fmt.Errorf("%w (process %d granted the lock, %d answered)", ErrPooler, h.pid, pid))
	held := tn.led.holds()
	tn.led.lose(ErrPooler) // before anybody else can have what the backend held
	for _, other := range held {
		tn.terminate(other)
	}
	tn.destroy(ErrPooler)
	return err
}

// release frees the lock on the server and ends it. It returns nil if the lock
// was held until now.
func (tn turn) release(h *hold) error {
	if !tn.led.contains(h) { // its session is gone, or it was settled meanwhile
		return h.over()
	}
	c := tn.led.leaseWithout(h)
	expired := errors.Is(h.over(), swanlock.ErrExpired)
	sent := time.Now()
	row, err := tn.unlock(h, c, h.audit != 0, expired)
	var unaudited error
	if sqlState(err) != "" {
		// The server spoke, so the session lives: ask it for the unlock alone.
		failed := err
		unaudited = explain(err, h.audit != 0)
		if shares := h.Shared && tn.led.hasOtherReader(h.key, h); shares {
			row, err = tn.leaveShare(h)
		} else {
			row, err = tn.unlock(h, c, false, expired)
		}
		if err == nil && row.Pid == h.pid && h.audit != 0 {
			// If the session does not hold it any more, it was the first that unlocked,
			// unless that was refused before it ran.
			row.Released = row.Released || !strings.HasPrefix(sqlState(failed), "42")
			if inTheWay(failed) {
				unaudited = explain(tn.auditReleased(h, row.Xact, endReason(expired)), true)
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
	if h.Shared && tn.led.doubted(h.key) {
		if err := tn.unlockIfHeld(h.key, true); err != nil {
			tn.destroy(err)
		}
	}
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

// leaveShare ends the share of a reader whose unlock has failed, on a session with
// other readers: their shares cannot be told from its own, which goes with the last
// of them if it is there still.
func (tn turn) leaveShare(h *hold) (released, error) {
	row, err := tn.probe(h)
	if err == nil {
		tn.led.doubt(h.key)
	}
	return released{Pid: row.Pid, Released: row.Held, Xact: row.Xact}, err
}

// releaseAll releases what was taken through the access of tn, and leaves its
// lines. It returns what went wrong with a lock that its holder was not told of.
func (tn turn) releaseAll() (errs []error) {
	holds, tickets := tn.led.takenThrough(tn.access)
	for _, t := range tickets {
		if err := tn.drop(t); err != nil {
			errs = append(errs, err)
		}
	}
	for _, h := range holds {
		if err := tn.release(h); err != nil && !errors.Is(err, errDropped) {
			errs = append(errs, fmt.Errorf("pglock: release %s: %w", quote(h.target), err))
		}
	}
	return errs
}
