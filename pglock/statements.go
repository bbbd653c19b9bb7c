package pglock

import (
	"context"
	"errors"
	"fmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file sends the statements of a lock's life. What their answers mean is
// in settle.go.

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

// try asks for the lock, and sets the lease that the session is to have if the
// lock is granted.
func (tn turn) try(ctx context.Context, h *hold, lease string) (t tried, err error) {
	p := tn.led.premise()
	switch {
	case tn.audit:
		h.schema = tn.led.schema
		var row db.TryAcquireAuditedRow
		row, err = askAs(ctx, tn, tn.auditIn(h.schema), (*db.Queries).TryAcquireAudited, db.TryAcquireAuditedParams{
			Key: int64(h.key), Shared: h.Shared, Fence: h.Fence, Lease: lease, Line: h.line, Session: tn.led.token,
			Sure: p.sure, Marked: p.marked, Home: p.home, Gen: p.gen,
			Target: h.target, Owner: h.Owner, TtlMs: milliseconds(h.TTL), Backend: tn.led.backend, Started: float64(tn.led.started) / 1e6})
		h.pid, h.audit, h.staleRows = row.Pid, row.AuditID, row.Dead
		t = tried{row.Answer, timeouts{row.Idle, row.IdleInTransaction}, row.Xact, row.Witness, row.Temporary}
	case lease != "" || h.Shared || h.Fence || h.line != 0 || tn.led.pending():
		var row db.TryAcquireWithRow
		row, err = ask(ctx, tn, (*db.Queries).TryAcquireWith, db.TryAcquireWithParams{
			Key: int64(h.key), Shared: h.Shared, Fence: h.Fence, Lease: lease, Line: h.line, Session: tn.led.token,
			Sure: p.sure, Marked: p.marked, Home: p.home, Gen: p.gen})
		h.pid = row.Pid
		t = tried{row.Answer, timeouts{row.Idle, row.IdleInTransaction}, row.Xact, row.Witness, row.Temporary}
	default:
		var pid int64
		pid, err = ask(ctx, tn, (*db.Queries).TryAcquire, db.TryAcquireParams{Session: tn.led.token, Key: int64(h.key)})
		h.pid = int32(pid)
		t.answer = min(pid, 0)
	}
	return t, tn.flushed(t.answer, err)
}

// refresh asks whether the session still holds the lock, and sets the lease
// again.
func (tn turn) refresh(ctx context.Context, h *hold, audited bool) (db.RefreshRow, error) {
	t := tn.led.wanted()
	if !audited {
		return ask(ctx, tn, (*db.Queries).Refresh, db.RefreshParams{
			Key: int64(h.key), Shared: h.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction})
	}
	row, err := askAs(ctx, tn, tn.auditIn(h.schema), (*db.Queries).RefreshAudited, db.RefreshAuditedParams{
		Key: int64(h.key), Shared: h.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction, AuditID: h.audit})
	return db.RefreshRow(row), err
}

// probe only asks whether the session still holds the lock.
func (tn turn) probe(h *hold) (db.RefreshRow, error) {
	return ask(context.Background(), tn, (*db.Queries).Refresh, db.RefreshParams{Key: int64(h.key), Shared: h.Shared})
}

// A released says which backend answered, and whether it held the lock until then.
type released struct {
	Pid      int32
	Released bool
	Xact     int64 // its transaction; 0 if it had no settings to change
}

// unlock frees the lock and makes the change c of the settings.
func (tn turn) unlock(h *hold, c change, audited, expired bool) (released, error) {
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

// endReason returns the end_reason of a row of the audit.
func endReason(expired bool) string {
	if expired {
		return "expired"
	}
	return "released"
}

// unlockIfHeld unlocks key once, if the session has it. It is for locks that
// are not in the ledger.
func (tn turn) unlockIfHeld(key Key, shared bool) error {
	_, err := ask(context.Background(), tn, (*db.Queries).Undo, db.UndoParams{Key: int64(key), Shared: shared})
	return err
}

// terminate ends the backend that granted h, if it still holds the lock.
func (tn turn) terminate(h *hold) {
	_, err := ask(context.Background(), tn, (*db.Queries).Terminate, db.TerminateParams{Key: int64(h.key), Shared: h.Shared, Pid: h.pid})
	if err != nil {
		tn.log.Warn("pglock: a backend behind a pooler may still hold a lock", "pid", h.pid, "target", quote(h.target), "err", err)
	}
}

// closeStaleRows closes the audit's rows of holders that are dead, as the grants
// with the rows granted have proven.
func (tn turn) closeStaleRows(schema string, granted ...int64) error {
	ids := array(granted, func(id int64) int64 { return id })
	err := tn.writeAgain(func(ctx context.Context) error { return tn.auditIn(schema).CloseDead(ctx, ids) })
	if err != nil && sqlState(err) == "" && !notSent(err) {
		tn.destroy(err)
	}
	return explain(err, true)
}

// auditLost corrects the row of a lock that the session did not hold any more
// when it was released.
func (tn turn) auditLost(h *hold) error {
	return tn.writeAgain(func(ctx context.Context) error { return tn.auditIn(h.schema).AuditLost(ctx, h.audit) })
}
