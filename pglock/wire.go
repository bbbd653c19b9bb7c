package pglock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// What TryAcquire, Mark and Turn answer when they did not do it.
const (
	heldElsewhere = -1
	onStandby     = -2
	fenceTooOld   = -3
	notOurs       = -4 // the backend, which is not marked, or has another client's locks
	pretends      = -5 // the server, which grants each lock to everybody
	misread       = -6 // what the audit was to say, in the session's encoding
	noOffset      = -7 // swanlock.fence_offset, which is no number
)

// A wire is how statements get to a session. Whoever uses it has the turn.
type wire struct {
	*config
	conn   *sql.Conn
	raw    driver.Conn // what conn is to the driver
	sender sender
	q      *db.Queries // through sender
	closed atomic.Bool // its Session was closed
	led    atomic.Pointer[ledger]
	crowd  crowd
}

func newWire(c *config, conn *sql.Conn, s sender) *wire {
	return &wire{config: c, conn: conn, sender: s, q: db.New(s)}
}

// ledger finds the ledger of conn. Only the first call waits for a statement
// that is under way, as conn.Raw does: those who have a context wait in take.
func (w *wire) ledger() (*ledger, error) {
	if led := w.led.Load(); led != nil {
		return led, nil
	}
	led, _, err := ledgerOf(w.conn)
	w.led.Store(led)
	return led, err
}

// ask runs a statement on the session of led.
func (w *wire) ask(ctx context.Context, led *ledger, statement func(context.Context) error) error {
	err := led.watch.over(ctx, w.raw, statement)
	if sqlState(err) == "26000" { // DISCARD ALL or DEALLOCATE took the prepared statement: it did not run
		if gone := w.unprepare(ctx, led); errors.Is(gone, errSilent) {
			return gone
		}
		err = led.watch.over(ctx, w.raw, statement)
	}
	return err
}

// look runs a statement that changes nothing here: only if it is not known whether
// the server answers is the session over.
func (w *wire) look(ctx context.Context, led *ledger, statement func(context.Context) error) error {
	err := w.ask(ctx, led, statement)
	if err != nil && sqlState(err) == "" {
		w.destroy(led, err)
	}
	return err
}

// unprepare forgets what was prepared, which asks the server too, and takes no
// context. So the server must first show that it answers; should it fall silent
// just then, the call is left behind until the network gives up.
func (w *wire) unprepare(ctx context.Context, led *ledger) error {
	if err := led.watch.over(ctx, w.raw, w.conn.PingContext); err != nil {
		w.destroy(led, err)
		return err
	}
	forgotten := make(chan error, 1)
	go func() { forgotten <- w.sender.forget() }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-forgotten:
		return err
	case <-timer.C:
		w.destroy(led, errSilent)
		return errSilent
	}
}

// grant asks for the lock, and enters it in the ledger. Whatever its error,
// nothing is held.
func (w *wire) grant(ctx context.Context, h *hold, r request) error {
	if !h.led.marked || w.audit && h.led.schema == "" { // its table may have been made since
		if err := w.mark(ctx, h.led); err != nil {
			return err
		}
	}
	if w.audit && h.led.schema == "" {
		return fmt.Errorf("%w: no schema of the search_path has lock_audit: run its migration (swanlock migrate up)", ErrAudit)
	}
	sent := time.Now()
	answer, saved, err := w.try(ctx, h, r)
	if err == nil && answer == notOurs { // any more: a rollback or DISCARD ALL took the mark
		if err := w.mark(ctx, h.led); err != nil {
			return err
		}
		sent = time.Now()
		answer, saved, err = w.try(ctx, h, r)
	}
	if err != nil {
		if w.audit && sqlState(err) == "42P01" {
			h.led.schema = "" // The table is gone: the next acquire looks where it is now.
		}
		w.undo(ctx, h, err)
		return explain(err, w.audit)
	}
	h.led.touch(sent)
	switch answer {
	case heldElsewhere:
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
		return fmt.Errorf("%w (process %d is marked, another was asked for the lock)", ErrPooler, h.led.backend)
	}
	h.info.Fence = uint64(answer)
	h.began(sent)
	h.led.add(h, saved)
	if r.TTL > 0 && h.at == nil {
		w.warnLeaseless(saved)
	}
	if h.dead {
		return w.closeDead(ctx, h)
	}
	return nil
}

// mark makes the session's backend ours: no lock is taken on another. Whatever its
// error, it has taken none itself.
func (w *wire) mark(ctx context.Context, led *ledger) error {
	var row db.MarkRow
	err := w.ask(ctx, led, func(ctx context.Context) (err error) {
		row, err = w.q.Mark(ctx, led.token)
		return err
	})
	switch {
	case err != nil:
		if cutOff(err) {
			w.destroy(led, err)
		}
		if state := sqlState(err); state == "42883" || state == "42704" || state == "42601" {
			return fmt.Errorf("the server lacks what every PostgreSQL has: %w: %w", errors.ErrUnsupported, err)
		}
		return explain(err, false)
	case row.Answer == pretends:
		return errPretends
	case row.Answer == onStandby:
		return ErrStandby
	case row.Answer == notOurs:
		return fmt.Errorf("%w (process %d has locks for another client)", ErrPooler, row.Pid)
	}
	led.marked, led.backend, led.started, led.schema = true, row.Pid, row.Started, row.Schema
	return nil
}

// warnLeaseless says once that this server keeps no lease.
func (w *wire) warnLeaseless(saved timeouts) {
	if saved.idle == "" {
		w.leaseless.Do(func() {
			w.log.Warn("pglock: the server has no idle_session_timeout (PostgreSQL 14+): the TTL is kept by the holder alone")
		})
	}
}

// try asks for the lock. saved is what the lease's settings were.
func (w *wire) try(ctx context.Context, h *hold, r request) (answer int64, saved timeouts, err error) {
	lease := ""
	if r.TTL > 0 && h.at == nil {
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
			h.schema = h.led.schema
			row, err := w.auditIn(h.schema).TryAcquireAudited(ctx, db.TryAcquireAuditedParams{
				Key: int64(r.key), Shared: r.Shared, Fence: r.Fence, Lease: lease, Gate: r.gate, Session: h.led.token,
				Target: r.target, Owner: r.Owner, TtlMs: milliseconds(r.TTL), Backend: h.led.backend, Started: float64(h.led.started) / 1e6})
			h.pid, h.audit, h.dead, answer, saved = row.Pid, row.AuditID, row.Dead, row.Answer, timeouts{row.Idle, row.IdleInTransaction}
			return err
		case lease != "" || r.Shared || r.Fence || r.gate != 0:
			row, err := w.q.TryAcquireWith(ctx, db.TryAcquireWithParams{
				Key: int64(r.key), Shared: r.Shared, Fence: r.Fence, Lease: lease, Gate: r.gate, Session: h.led.token})
			h.pid, answer, saved = row.Pid, row.Answer, timeouts{row.Idle, row.IdleInTransaction}
			return err
		default:
			pid, err := w.sender.number(ctx, db.TryAcquire, h.led.token, int64(r.key))
			h.pid, answer = int32(pid), min(pid, 0)
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
				Key: int64(h.id.key), Shared: h.info.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction})
			return err
		}
		audited, err := w.auditIn(h.schema).RefreshAudited(ctx, db.RefreshAuditedParams{
			Key: int64(h.id.key), Shared: h.info.Shared, Idle: t.idle, IdleInTransaction: t.idleInTransaction, AuditID: h.audit})
		row = db.RefreshRow(audited)
		return err
	})
	return row, err
}

func (w *wire) probe(ctx context.Context, h *hold) (row db.RefreshRow, err error) {
	err = w.ask(ctx, h.led, func(ctx context.Context) error {
		row, err = w.q.Refresh(ctx, db.RefreshParams{Key: int64(h.id.key), Shared: h.info.Shared})
		return err
	})
	return row, err
}

// A released says whether that backend held the lock until it was asked.
type released struct {
	Pid      int32
	Released bool
}

// release unlocks and sets the lease to t.
func (w *wire) release(ctx context.Context, h *hold, t timeouts, audited bool) (row released, err error) {
	err = w.ask(ctx, h.led, func(ctx context.Context) error {
		switch {
		case audited:
		case t == timeouts{} && !h.info.Shared:
			pid, err := w.sender.number(ctx, db.Release, int64(h.pid), int64(h.id.key))
			row = released{int32(max(pid, -pid)), pid > 0}
			return err
		default:
			with, err := w.q.ReleaseWith(ctx, db.ReleaseWithParams{
				Key: int64(h.id.key), Shared: h.info.Shared, Pid: h.pid, Idle: t.idle, IdleInTransaction: t.idleInTransaction})
			row = released{with.Pid, with.Released}
			return err
		}
		reason := "released"
		if errors.Is(h.over(), swanlock.ErrExpired) {
			reason = "expired"
		}
		audited, err := w.auditIn(h.schema).ReleaseAudited(ctx, db.ReleaseAuditedParams{
			Key: int64(h.id.key), Shared: h.info.Shared, Pid: h.pid, Idle: t.idle, IdleInTransaction: t.idleInTransaction,
			AuditID: h.audit, EndReason: reason})
		row = released{audited.Pid, audited.Released}
		return err
	})
	return row, err
}

// closeDead closes the rows of those whom h's grant has proven gone. Whatever its
// error, nothing is held.
func (w *wire) closeDead(ctx context.Context, h *hold) error {
	err := w.ask(ctx, h.led, func(ctx context.Context) error { return w.auditIn(h.schema).CloseDead(ctx, h.audit) })
	switch {
	case err == nil:
		return nil
	case sqlState(err) == "":
		w.destroy(h.led, err)
	default:
		w.unlock(ctx, h)
	}
	return explain(err, true)
}

// auditLost corrects the row of a lock that was gone when it was released.
func (w *wire) auditLost(ctx context.Context, h *hold) error {
	return w.ask(ctx, h.led, func(ctx context.Context) error { return w.auditIn(h.schema).AuditLost(ctx, h.audit) })
}
