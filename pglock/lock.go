package pglock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/after"
)

// A PostgresLock is a lock held by a PostgreSQL session. It is a
// swanlock.DistributedLock; its methods may be called by several goroutines at
// once.
//
// If it is dropped without Release, the garbage collector finds out and a
// warning is logged. With WithAutoRefresh, and in a Pool, the lock is then
// released. Otherwise nothing is sent on the caller's connection, and the lock
// ends with the TTL, with the session, or with the next call of this package on
// that session.
type PostgresLock struct {
	h       *hold
	dropped runtime.Cleanup
}

// A hold is the state of a lock. The ledger and timers refer to it, and not to
// the handle, the PostgresLock: so the garbage collector can find a handle that
// was dropped.
type hold struct {
	request
	led  *ledger
	info swanlock.Info
	id   lockID
	log  *slog.Logger

	// Set by the grant, before the caller gets the handle, and fixed from then
	// on.
	pid       int32  // the backend that granted it
	audit     int64  // the id of the audit's row; 0: none
	schema    string // the schema of the audit's table
	staleRows bool   // the grant found audit rows that dead holders left open
	bare      bool   // the line has granted it, and complete takes it once more

	// Guarded by led.mu.
	done     chan struct{} // nil until Done is called
	after    after.Funcs
	keeper   keeper      // nil, as is a, once the session cannot be reached
	a        *access     // the access that it was taken through
	err      error       // why it is over; nil while it is held
	released bool        // Release was called
	ending   bool        // Done is closed, but the server has not confirmed the unlock
	lease    lease       // its own TTL; the end of the session's lease ends it too
	auto     *time.Timer // the next background refresh; nil: none

	// The session for which the lock is counted in registry.claims, or nil. It is
	// guarded by roster.mu, not by led.mu.
	pool *poolSession
}

// A keeper refreshes and releases the locks of a session.
type keeper interface {
	// renew is called by the holder, or by itself in the background.
	renew(ctx context.Context, h *hold, itself bool) error
	release(ctx context.Context, h *hold) error
}

// newHold returns the hold of a lock that r asks for, and that is not granted
// yet.
func newHold(r request) *hold {
	h := &hold{request: r, id: lockID{key: r.key}}
	h.info = swanlock.Info{Target: r.target, Owner: r.Owner, TTL: r.TTL, Shared: r.Shared}
	h.lease.ttl = r.TTL
	return h
}

// on notes that h, which is not granted yet, is asked for on the session of tn.
func (h *hold) on(tn turn, k keeper) *hold {
	h.a, h.led, h.keeper, h.log = tn.access, tn.led, k, tn.log
	return h
}

// began notes that the lock was granted after the time at, when its statement
// was sent.
func (h *hold) began(at time.Time) { h.info.AcquiredAt, h.lease.start = at, at }

// handle returns what the caller gets.
func (h *hold) handle() *PostgresLock {
	l := &PostgresLock{h: h}
	l.dropped = runtime.AddCleanup(l, drop, h)
	return l
}

// beginAutoRefresh starts the background refresh.
func (h *hold) beginAutoRefresh() {
	h.led.mu.Lock()
	h.auto = time.AfterFunc(h.refreshInLocked(), h.autoRefresh)
	h.led.mu.Unlock()
}

// everyLocked returns the interval of the background refresh: a third of the TTL, or
// of the session's lease if that is shorter. A pool's heartbeat restarts its
// sessions' leases.
func (h *hold) everyLocked() time.Duration {
	every := h.info.TTL
	if led := h.led; led.owner == nil && led.lease.ttl > 0 {
		every = min(every, led.lease.ttl)
	}
	return every / 3
}

// refreshInLocked returns in how much time the next background refresh is due. That
// is the interval after the last proof was asked for: its answer may have taken long.
func (h *hold) refreshInLocked() time.Duration {
	every := h.everyLocked()
	return max(every-time.Since(h.lease.start), every/10)
}

// tooLate returns the error for a lock that was granted too late to be used,
// because ctx or its lease has ended, or nil. over says why the lock is over,
// if it is.
func (h *hold) tooLate(ctx context.Context, over error) error {
	switch {
	case ctx.Err() != nil:
		return notAcquired(ctx)
	case over == nil:
		return nil
	case errors.Is(over, swanlock.ErrExpired):
		return fmt.Errorf("%w: the answer took longer than the TTL (%v)", swanlock.ErrNotAcquired, h.info.TTL)
	default: // To the caller it is no loss, since it never had the lock.
		return fmt.Errorf("%w: %v", swanlock.ErrNotAcquired, over)
	}
}

// Info returns what was locked, and how.
func (l *PostgresLock) Info() swanlock.Info { return l.h.info }

// Key returns the target's advisory key.
func (l *PostgresLock) Key() Key { return l.h.id.key }

// BackendPID returns the process id of the server's end of the session, as in
// pg_locks and pg_stat_activity.
func (l *PostgresLock) BackendPID() int { return int(l.h.pid) }

// Done returns a channel that is closed when the lock is released, when its TTL
// ends, and when a call finds it lost.
func (l *PostgresLock) Done() <-chan struct{} {
	h := l.h
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	if h.done == nil {
		h.done = make(chan struct{})
		if h.err != nil {
			close(h.done)
		}
	}
	return h.done
}

// AfterDone calls f, in a goroutine of its own, when Done is closed, with what
// Err returns then; at once if it is closed already. stop prevents that, and
// reports whether it did. Unlike a goroutine that waits for Done, this costs
// nothing while the lock is held. f must not refer to the lock: otherwise a lock
// that is dropped without Release is not found. swanlock.Observe uses it.
func (l *PostgresLock) AfterDone(f func(err error)) (stop func() bool) {
	h := l.h
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	if h.err != nil {
		go f(h.err)
		return func() bool { return false }
	}
	remove := h.after.Add(f)
	return func() bool {
		h.led.mu.Lock()
		defer h.led.mu.Unlock()
		return remove()
	}
}

// Err returns nil while the lock is held, then swanlock.ErrReleased or an error
// that matches swanlock.ErrLost. It looks at the clocks, and sends nothing.
func (l *PostgresLock) Err() error {
	return l.h.over()
}

// Deadline returns when the lock ends unless it is refreshed: when its own TTL
// ends or, if that is sooner, when the server is free to end its session. So it
// may be sooner than the TTL says, and a lock without a TTL has a deadline too
// if its session has one: by another lock on a Session, or by the role's
// idle_session_timeout in a Pool. Every statement on the session, such as a
// Pool's heartbeat, moves the session's deadline on. Deadline goes by the
// monotonic or the wall clock of this machine, whichever has gone further, and
// sends nothing.
func (l *PostgresLock) Deadline() (deadline time.Time, ok bool) {
	h := l.h
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	return firstEnd(time.Now(), h.lease, h.led.lease)
}

// Refresh asks the server whether this very session still holds the lock and
// restarts the TTL, in one round trip. An error that matches neither
// swanlock.ErrLost nor swanlock.ErrReleased leaves the lock held, with its old
// deadline: ctx had ended, Rows are open on the connection (ErrBusy), or its
// transaction has failed (ErrAbortedTransaction, and ErrAudit if that is because
// of the audit's row). With ErrAudit alone the TTL was restarted, and the row does
// not say so.
func (l *PostgresLock) Refresh(ctx context.Context) error {
	defer runtime.KeepAlive(l)
	return l.h.refresh(ctx, false)
}

// Release frees the lock in one round trip, and also when ctx has ended. It
// returns nil if the server says that the lock was held until now, and at any
// second call. Otherwise the error matches swanlock.ErrLost, and the session
// has been destroyed unless it said itself that it does not hold the lock. With
// ErrBusy nothing was sent: close the connection's Rows and call it again. An
// error that matches ErrAudit says that the lock was released in good order but
// its row was not closed. One that matches sql.ErrConnDone says that the
// connection was closed first: if it went back to the pool, the session keeps
// the lock until it ends or until this package next comes to it.
func (l *PostgresLock) Release(ctx context.Context) error {
	defer runtime.KeepAlive(l)
	ctx.Err() // A nil context panics here, where the lock is as it was.
	err := l.h.release(ctx)
	if !notSent(err) { // Otherwise nobody but the garbage collector may come to it again.
		l.dropped.Stop()
	}
	return err
}

// endLocked marks the lock as over. Since the server may still hold it, it is
// unsettled until it is removed from the ledger.
func (h *hold) endLocked(err error) {
	if h.ending { // its holder was told already
		h.err, h.ending = err, false
	}
	if h.err != nil {
		return
	}
	h.err = err
	if h.done != nil {
		close(h.done)
	}
	h.after.Call(err)
	if h.auto != nil {
		h.auto.Stop()
	}
	h.led.unsettled = append(h.led.unsettled, h)
}

// expireLocked ends the lock if its time is up.
func (h *hold) expireLocked(now time.Time) {
	if h.err == nil && h.leftLocked(now) <= 0 {
		h.endLocked(swanlock.ErrExpired)
	}
}

// lose ends the lock as lost, because of cause, and returns why it is over.
func (h *hold) lose(cause error) error {
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	h.endLocked(lost(cause))
	return h.err
}

// free ends a lock that is to be unlocked on behalf of somebody else than its
// holder, which is to be told before that.
func (h *hold) free() {
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	if h.expireLocked(time.Now()); h.err == nil {
		h.endLocked(swanlock.ErrReleased)
		h.ending = true
	}
}

// abandonLocked ends a lock whose session cannot be reached any more.
func (h *hold) abandonLocked(cause error) {
	h.endLocked(lost(cause))
	h.letGoLocked()
}

// letGoLocked drops the references to the connection, so that it can be
// collected.
func (h *hold) letGoLocked() { h.keeper, h.a = nil, nil }

// state returns the lock's keeper, and why the lock is over, or nil.
func (h *hold) state() (keeper, error) {
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	h.expireLocked(time.Now())
	return h.keeper, h.err
}

// over returns why the lock is over, or nil.
func (h *hold) over() error {
	_, err := h.state()
	return err
}

func (h *hold) refresh(ctx context.Context, itself bool) error {
	k, err := h.state()
	if err != nil {
		return err
	}
	if err = ctx.Err(); err != nil {
		err = context.Cause(ctx)
	} else {
		err = k.renew(ctx, h, itself)
	}
	if err != nil {
		return fmt.Errorf("pglock: refresh %s: %w", quote(h.info.Target), err)
	}
	return nil
}

func (h *hold) release(ctx context.Context) error {
	h.led.mu.Lock()
	h.expireLocked(time.Now())
	k, err, again := h.keeper, h.err, h.released
	h.released = true
	h.led.mu.Unlock()
	if again {
		return nil
	}
	if k != nil {
		err = k.release(ctx, h)
	}
	if notSent(err) { // It may be called again.
		h.led.mu.Lock()
		h.released = false
		h.led.mu.Unlock()
	}
	if err != nil && !errors.Is(err, swanlock.ErrReleased) { // Close may have released it meanwhile.
		return fmt.Errorf("pglock: release %s: %w", quote(h.info.Target), err)
	}
	return nil
}

// autoRefresh refreshes every third of the TTL, so that one may fail. It waits for a
// connection that is in use for as long as the lock lasts.
func (h *hold) autoRefresh() {
	h.led.mu.Lock()
	left := h.leftLocked(time.Now())
	h.led.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	err := h.refresh(ctx, true)
	h.led.mu.Lock()
	switch {
	case h.err != nil:
	case err != nil:
		h.auto.Reset(h.everyLocked())
	default:
		h.auto.Reset(h.refreshInLocked())
	}
	h.led.mu.Unlock()
	if err != nil && !errors.Is(err, swanlock.ErrReleased) {
		h.log.Warn("pglock: background refresh failed", "target", quote(h.info.Target), "err", err)
	}
}

// begin returns the handle of a lock that was granted. It starts the background
// refresh if the caller has asked for that.
func (h *hold) begin() *PostgresLock {
	if h.AutoRefresh {
		h.beginAutoRefresh()
	}
	return h.handle()
}

// beginInPool returns the handle of a lock that was granted. The heartbeat
// refreshes the locks that have no audit row, so only the others need a timer.
func (h *hold) beginInPool() *PostgresLock {
	if h.audit != 0 {
		return h.begin()
	}
	return h.handle()
}
