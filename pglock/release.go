package pglock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file finds out whether a session still holds a lock, and frees one.

// refresh asks whether the session still holds the lock, and sets the lease
// again.
func refresh(ctx context.Context, tn turn, h *hold, audited bool) (db.RefreshRow, error) {
	t := tn.led.settings.wanted()
	if !audited {
		return ask(ctx, tn, (*db.Queries).Refresh, db.RefreshParams{
			Key: int64(h.key), Shared: h.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction})
	}
	row, err := askAs(ctx, tn, tn.auditIn(h.schema), (*db.Queries).RefreshAudited, db.RefreshAuditedParams{
		Key: int64(h.key), Shared: h.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction, AuditID: h.audit})
	return db.RefreshRow(row), err
}

// probe only asks whether the session still holds the lock.
func probe(tn turn, h *hold) (db.RefreshRow, error) {
	return ask(context.Background(), tn, (*db.Queries).Refresh, db.RefreshParams{Key: int64(h.key), Shared: h.Shared})
}

// proven returns an error if row says that the lock is lost, and ends the lock
// then.
func proven(tn turn, h *hold, row db.RefreshRow) error {
	switch {
	case row.Pid != h.pid:
		return wrongBackend(tn, h, row.Pid)
	case !row.Held:
		err := h.lose(errNotHeld)
		release(tn, h) // It puts back the settings.
		return err
	}
	return nil
}

// examine asks the session whether it still holds the lock after a refresh
// that failed with err; audited reports whether it was the audit's row that failed.
func examine(tn turn, h *hold, err error, audited bool) error {
	if notSent(err) {
		return err
	}
	state := sqlState(err)
	err = explain(err, audited)
	if state != "" && state != inFailedTransaction {
		row, again := probe(tn, h)
		if again == nil {
			if lost := proven(tn, h, row); lost != nil {
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
func wrongBackend(tn turn, h *hold, pid int32) error {
	err := h.lose(fmt.Errorf("%w (process %d granted the lock, %d answered)", ErrPooler, h.pid, pid))
	held := tn.led.holds()
	tn.led.lose(ErrPooler) // The holders are told before another session can have their locks.
	for _, other := range held {
		terminate(tn, other)
	}
	tn.destroy(ErrPooler)
	return err
}

// terminate ends the backend that granted h, if it still holds the lock.
func terminate(tn turn, h *hold) {
	_, err := ask(context.Background(), tn, (*db.Queries).Terminate, db.TerminateParams{Key: int64(h.key), Shared: h.Shared, Pid: h.pid})
	if err != nil {
		tn.log.Warn("pglock: a backend behind a pooler may still hold a lock", "pid", h.pid, "target", quote(h.target), "err", err)
	}
}

// A released says which backend answered, and whether it held the lock until then.
type released struct {
	Pid      int32
	Released bool
	Xact     int64 // its transaction; 0 if it had no settings to change
}

// unlock frees the lock and makes the change c of the settings.
func unlock(tn turn, h *hold, c change, audited, expired bool) (released, error) {
	ctx := context.Background()
	switch {
	case audited:
		row, err := askAs(ctx, tn, tn.auditIn(h.schema), (*db.Queries).ReleaseAudited, db.ReleaseAuditedParams{
			Key: int64(h.key), Shared: h.Shared, Pid: h.pid, Idle: c.idle, IdleInTransaction: c.idleInTransaction,
			Gen: c.gen, AuditID: h.audit, EndReason: endReason(expired)})
		return released{row.Pid, row.Released, row.Xact}, err
	case c == change{} && !h.Shared && h.audit == 0:
		pid, err := ask(ctx, tn, (*db.Queries).Release, db.ReleaseParams{Pid: int64(h.pid), Key: int64(h.key)})
		return released{Pid: int32(max(pid, -pid)), Released: pid > 0}, err
	default:
		row, err := ask(ctx, tn, (*db.Queries).ReleaseWith, db.ReleaseWithParams{
			Key: int64(h.key), Shared: h.Shared, Pid: h.pid, Idle: c.idle, IdleInTransaction: c.idleInTransaction, Gen: c.gen})
		return released{row.Pid, row.Released, row.Xact}, err
	}
}

// unlockIfHeld unlocks key once, if the session has it. It is for locks that
// are not in the ledger.
func unlockIfHeld(tn turn, key Key, shared bool) error {
	_, err := ask(context.Background(), tn, (*db.Queries).Undo, db.UndoParams{Key: int64(key), Shared: shared})
	return err
}

// release frees the lock on the server and ends it. It returns nil if the
// server says that the lock was held until then.
func release(tn turn, h *hold) error {
	if !tn.led.contains(h) { // The session is gone, or h was settled meanwhile.
		return h.over()
	}
	if readers := tn.led.readersOf(h.key); readers > 1 || readers == 1 && h.id.reader == 0 {
		return leaveReaders(tn, h)
	}
	var unaudited error
	if h.audit != 0 {
		unaudited = tn.unwritable()
	}
	c := leaseWithout(tn, h)
	expired := errors.Is(h.over(), swanlock.ErrExpired)
	sent := time.Now()
	row, err := unlock(tn, h, c, h.audit != 0 && unaudited == nil, expired)
	if notSent(err) {
		return err
	}
	if sqlState(err) != "" {
		// The error is the server's, so the session lives: ask it to unlock,
		// and no more.
		failed := err
		if h.audit != 0 && unaudited == nil {
			unaudited = tn.unwritten(err)
		}
		row, err = unlock(tn, h, c, false, expired)
		if err == nil && row.Pid == h.pid {
			// If the session does not hold the lock any more, the first
			// statement has unlocked it, unless it was refused before it ran.
			at := row.Xact
			if !row.Released {
				at = longAgo
				row.Released = !refused(tn, h, failed)
			}
			if h.audit != 0 && inTheWay(failed) {
				unaudited = tn.unwritten(auditReleased(tn, h, at, endReason(expired)))
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
		return wrongBackend(tn, h, row.Pid)
	}
	tn.led.touch(sent)
	noteChange(tn, c, row.Xact)
	over := tn.led.settled(h, row.Released)
	ease(tn, h)
	if c.gen != "" && !tn.led.empty() { // The other locks count on the shorter lease until then.
		confirm(tn)
	}
	if !row.Released && h.audit != 0 && unaudited == nil {
		_ = tn.writing(func() error { return auditLost(tn, h) })
	}
	switch {
	case !errors.Is(over, swanlock.ErrReleased):
		return over
	case h.audit != 0:
		return unaudited
	}
	return nil
}

// refused reports whether the statement that was to release h was refused before it
// ran, since it failed with err. Then it is refused, too, where it has nothing to do;
// otherwise the error may be that of a trigger, which comes after the unlock.
func refused(tn turn, h *hold, err error) bool {
	if !strings.HasPrefix(sqlState(err), "42") {
		return false
	}
	if h.audit != 0 {
		_, err = unlock(tn, &hold{request: h.request, schema: h.schema}, change{}, true, false)
	}
	return strings.HasPrefix(sqlState(err), "42")
}

// leaveReaders ends the lock of a reader on a session that has it for others,
// too.
func leaveReaders(tn turn, h *hold) error {
	expired := errors.Is(h.over(), swanlock.ErrExpired)
	row, err := probe(tn, h)
	if sqlState(err) != "" { // It was cancelled, perhaps: the session lives.
		row, err = probe(tn, h)
	}
	switch {
	case notSent(err):
		return err
	case err != nil:
		tn.destroy(explain(err, false))
		return h.over()
	case row.Pid != h.pid:
		return wrongBackend(tn, h, row.Pid)
	}
	var unaudited error
	if h.audit != 0 {
		unaudited = tn.writing(func() error {
			if row.Held {
				return auditReleased(tn, h, row.Xact, endReason(expired))
			}
			_, err := refresh(context.Background(), tn, h, true) // It closes the row.
			return err
		})
	}
	if over := tn.led.settled(h, row.Held); !errors.Is(over, swanlock.ErrReleased) {
		return over
	}
	return unaudited
}
