package pglock

import (
	"context"
	"database/sql"
	"errors"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// What TryAcquire answers when it did not grant the lock.
const (
	heldElsewhere = -1
	onStandby     = -2
	fenceTooOld   = -3
)

// A wire is how statements get to a session. Whoever uses it has the turn.
type wire struct {
	*config
	conn   *sql.Conn
	q      *db.Queries
	forget func() error // drops what was prepared
}

// ask runs a statement on the session of led.
func (w *wire) ask(ctx context.Context, led *ledger, statement func(context.Context) error) error {
	err := led.watch.over(ctx, statement)
	if sqlState(err) == "26000" { // DISCARD ALL or DEALLOCATE took the prepared statement: it did not run
		w.forget()
		err = led.watch.over(ctx, statement)
	}
	return err
}

// try asks for the lock. saved is what the lease's settings were.
func (w *wire) try(ctx context.Context, h *hold, r request) (answer int64, saved timeouts, err error) {
	lease := ""
	if r.TTL > 0 {
		h.led.mu.Lock()
		ttl := r.TTL
		if h.led.lease.ttl > 0 {
			ttl = min(ttl, h.led.lease.ttl)
		}
		h.led.mu.Unlock()
		lease = timeouts{}.of(ttl).idleInTransaction
	}
	err = w.ask(ctx, h.led, func(ctx context.Context) error {
		switch {
		case w.audit:
			row, err := w.q.TryAcquireAudited(ctx, db.TryAcquireAuditedParams{
				Key: int64(r.key), Shared: r.Shared, Fence: r.Fence, Lease: lease,
				Target: r.target, Owner: r.Owner, TtlMs: milliseconds(r.TTL)})
			h.pid, h.audit, answer, saved = row.Pid, row.AuditID, row.Answer, timeouts{row.Idle, row.IdleInTransaction}
			return err
		case lease != "":
			row, err := w.q.TryAcquireLeased(ctx, db.TryAcquireLeasedParams{
				Key: int64(r.key), Shared: r.Shared, Fence: r.Fence, Lease: lease})
			h.pid, answer, saved = row.Pid, row.Answer, timeouts{row.Idle, row.IdleInTransaction}
			return err
		default:
			row, err := w.q.TryAcquire(ctx, db.TryAcquireParams{Key: int64(r.key), Shared: r.Shared, Fence: r.Fence})
			h.pid, answer = row.Pid, row.Answer
			return err
		}
	})
	return answer, saved, err
}

// refresh proves the lock and sets the lease; probe only proves it.
func (w *wire) refresh(ctx context.Context, h *hold, t timeouts) (row db.RefreshRow, err error) {
	err = w.ask(ctx, h.led, func(ctx context.Context) error {
		if h.audit == 0 {
			row, err = w.q.Refresh(ctx, db.RefreshParams{
				Key: int64(h.key), Shared: h.info.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction})
			return err
		}
		audited, err := w.q.RefreshAudited(ctx, db.RefreshAuditedParams{
			Key: int64(h.key), Shared: h.info.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction, AuditID: h.audit})
		row = db.RefreshRow(audited)
		return err
	})
	return row, err
}

func (w *wire) probe(ctx context.Context, h *hold) (row db.RefreshRow, err error) {
	err = w.ask(ctx, h.led, func(ctx context.Context) error {
		row, err = w.q.Refresh(ctx, db.RefreshParams{Key: int64(h.key), Shared: h.info.Shared})
		return err
	})
	return row, err
}

// release unlocks and sets the lease to t.
func (w *wire) release(ctx context.Context, h *hold, t timeouts, audited bool) (row db.ReleaseRow, err error) {
	err = w.ask(ctx, h.led, func(ctx context.Context) error {
		switch {
		case audited:
		case t == timeouts{}:
			row, err = w.q.Release(ctx, db.ReleaseParams{Key: int64(h.key), Shared: h.info.Shared, Pid: h.pid})
			return err
		default:
			leased, err := w.q.ReleaseLeased(ctx, db.ReleaseLeasedParams{
				Key: int64(h.key), Shared: h.info.Shared, Pid: h.pid, Idle: t.idle, IdleInTransaction: t.idleInTransaction})
			row = db.ReleaseRow{Pid: leased.Pid, Released: leased.Released}
			return err
		}
		reason := "released"
		if errors.Is(h.over(), swanlock.ErrExpired) {
			reason = "expired"
		}
		audited, err := w.q.ReleaseAudited(ctx, db.ReleaseAuditedParams{
			Key: int64(h.key), Shared: h.info.Shared, Pid: h.pid, Idle: t.idle, IdleInTransaction: t.idleInTransaction,
			AuditID: h.audit, EndReason: reason})
		row = db.ReleaseRow{Pid: audited.Pid, Released: audited.Released}
		return err
	})
	return row, err
}

// auditLost corrects the row of a lock that was gone when it was released.
func (w *wire) auditLost(ctx context.Context, h *hold) error {
	return w.ask(ctx, h.led, func(ctx context.Context) error { return w.q.AuditLost(ctx, h.audit) })
}
