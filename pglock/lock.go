package pglock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A PostgresLock is a lock held by a PostgreSQL session. It is a
// swanlock.DistributedLock; its methods may be called by several goroutines at
// once.
//
// If it is dropped without Release, the garbage collector finds out and a
// warning is logged. With WithAutoRefresh the lock is then released; otherwise
// nothing is sent on the caller's connection, and the lock goes with the TTL,
// with the session, or with the next call of this package on that session.
type PostgresLock struct {
	h       *hold
	dropped runtime.Cleanup
}

// A hold is what there is to know of a lock. It is apart from the handle, the
// PostgresLock, since ledger and timers keep it alive.
type hold struct {
	led   *ledger
	info  swanlock.Info
	id    lockID
	at    *poolSession // that it was taken on; nil on a caller's connection
	pid   int32
	audit int64 // the row's id; 0: none
	dead  bool  // others left open rows
	log   *slog.Logger

	// Guarded by led.mu.
	done     chan struct{} // nil until somebody asks for it
	w        *wire         // nil once the session cannot be reached
	err      error         // nil while held
	released bool          // Release was called
	lease    lease         // its own; the session's ends it too
	auto     *time.Timer
	renewed  bool // by every heartbeat of its pool
	claimed  bool // from its pool; guarded by its mutex
}

// newHold is what r asks for, not granted yet.
func newHold(r request) *hold {
	h := &hold{id: lockID{key: r.key}}
	h.info = swanlock.Info{Target: r.target, Owner: r.Owner, TTL: r.TTL, Shared: r.Shared}
	h.lease.ttl, h.renewed = r.TTL, r.AutoRefresh
	return h
}

// on says what session h is to be on.
func (h *hold) on(w *wire, led *ledger) *hold {
	h.w, h.led, h.log = w, led, w.log
	return h
}

// began notes from when on the lock is held: before it was granted.
func (h *hold) began(at time.Time) { h.info.AcquiredAt, h.lease.start = at, at }

// handle is what the caller gets.
func (h *hold) handle() *PostgresLock {
	l := &PostgresLock{h: h}
	l.dropped = runtime.AddCleanup(l, drop, h)
	return l
}

// late is why a lock that was granted must be given back: the caller has gone,
// or its lease has.
func (h *hold) late(ctx context.Context) error {
	if ctx.Err() != nil {
		return notAcquired(ctx)
	}
	switch err := h.over(); {
	case err == nil:
		return nil
	case errors.Is(err, swanlock.ErrExpired):
		return fmt.Errorf("%w: the answer took longer than the TTL (%v)", swanlock.ErrNotAcquired, h.info.TTL)
	default: // it is no loss to the caller, who never had it
		return fmt.Errorf("%w: %v", swanlock.ErrNotAcquired, err)
	}
}

// Info says what was locked, and how.
func (l *PostgresLock) Info() swanlock.Info { return l.h.info }

// Key is the target's advisory key.
func (l *PostgresLock) Key() Key { return l.h.id.key }

// BackendPID is the process id of the server's end of the session, as in
// pg_locks and pg_stat_activity.
func (l *PostgresLock) BackendPID() int { return int(l.h.pid) }

// Done is closed when the lock is released, when its TTL ends, and when a call
// finds it lost.
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

// Err is nil while the lock is held, then swanlock.ErrReleased or an error that
// matches swanlock.ErrLost. It looks at the clocks, and sends nothing.
func (l *PostgresLock) Err() error {
	return l.h.over()
}

// Deadline is when the lock ends unless it is refreshed: when its own TTL does
// or, if that is sooner, when the server is free to end its session. So it may be
// sooner than the TTL says, and also a lock without a TTL has one if its session
// has: by another lock on a Session, or by the role's idle_session_timeout in a
// Pool. Any statement of the session moves its part of it on, such as a Pool's
// heartbeat. It goes by this machine's two clocks, whichever has gone further,
// and sends nothing.
func (l *PostgresLock) Deadline() (deadline time.Time, ok bool) {
	h := l.h
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	return firstEnd(time.Now(), h.lease, h.led.lease)
}

// Refresh asks the server whether this very session still holds the lock and
// restarts the TTL, in one round trip. An error that matches neither
// swanlock.ErrLost nor swanlock.ErrReleased leaves the lock held, with its old
// deadline: ctx had ended, the transaction has failed (ErrAbortedTransaction),
// or the audit's row could not be written (ErrAudit).
func (l *PostgresLock) Refresh(ctx context.Context) error {
	defer runtime.KeepAlive(l)
	if err := l.Err(); err != nil {
		return err
	}
	return l.h.refresh(ctx)
}

// Release frees the lock in one round trip, and also when ctx has ended. It
// returns nil if the server says that the lock was held until now, and at any
// second call. Otherwise the error matches swanlock.ErrLost, and the session
// has been destroyed unless it said itself that it does not hold the lock. An
// error that matches ErrAudit says that the lock was released in good order but
// its row was not closed. One that matches sql.ErrConnDone says that the
// connection was closed first: if it went back to the pool, the session keeps
// the lock until it ends or until this package next comes to it.
func (l *PostgresLock) Release(ctx context.Context) error {
	l.dropped.Stop()
	return l.h.release(ctx)
}

// end marks the lock as over. What the server may still hold is owed an unlock
// until it is removed from the ledger. led.mu is held.
func (h *hold) end(err error) {
	if h.err != nil {
		return
	}
	h.err = err
	if h.done != nil {
		close(h.done)
	}
	if h.auto != nil {
		h.auto.Stop()
	}
	h.led.owed = append(h.led.owed, h)
}

// expire ends the lock if its time is up. led.mu is held.
func (h *hold) expire(now time.Time) {
	if h.err == nil && (h.lease.left(now) <= 0 || h.led.lease.left(now) <= 0) {
		h.end(swanlock.ErrExpired)
	}
}

// lose ends the lock with the loss that was found, and returns it.
func (h *hold) lose(cause error) error {
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	h.end(fmt.Errorf("%w: %w", swanlock.ErrLost, cause))
	return h.err
}

// abandon ends a lock whose session cannot be reached any more. led.mu is held.
func (h *hold) abandon(cause error) {
	h.end(fmt.Errorf("%w: %w", swanlock.ErrLost, cause))
	h.w = nil
}

func (h *hold) refresh(ctx context.Context) error {
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("pglock: refresh %s: %w", quote(h.info.Target), err)
	}
	if ctx.Err() != nil {
		return wrap(context.Cause(ctx))
	}
	if h.at != nil {
		return wrap(h.at.do(ctx, &op{kind: refreshing, h: h}))
	}
	if err := h.led.take(ctx); err != nil {
		return wrap(err)
	}
	defer h.led.give()
	w, err := h.state()
	if err == nil {
		err = w.renew(ctx, h)
	}
	return wrap(err)
}

// renew proves the lock and restarts its TTL.
func (w *wire) renew(ctx context.Context, h *hold) error {
	sent := time.Now()
	row, err := w.refresh(ctx, h, h.led.timeouts())
	if err != nil {
		return w.examine(ctx, h, err)
	}
	if err := w.proven(ctx, h, row); err != nil {
		return err
	}
	h.led.touch(sent)
	h.led.mu.Lock()
	if h.err == nil { // it may have expired while the statement was under way
		h.lease.start = sent
	}
	h.led.mu.Unlock()
	w.settle(ctx, h.led) // the lease that was set again is also that of a lock that has ended
	return h.over()
}

// state is Err, and the way to the session.
func (h *hold) state() (*wire, error) {
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	h.expire(time.Now())
	return h.w, h.err
}

// over is Err alone.
func (h *hold) over() error {
	_, err := h.state()
	return err
}

func (h *hold) release(ctx context.Context) error {
	h.led.mu.Lock()
	h.expire(time.Now())
	w, err, again := h.w, h.err, h.released
	h.released = true
	h.led.mu.Unlock()
	if again {
		return nil
	}
	if w != nil && h.at != nil {
		err = h.at.do(ctx, &op{kind: releasing, h: h})
	} else if w != nil {
		if err = h.led.takeSoon(); err == nil {
			err = w.unlock(ctx, h)
			w.settle(ctx, h.led)
			h.led.give()
		} else {
			w.destroy(h.led, err)
			_, err = h.state()
		}
	}
	if err != nil && !errors.Is(err, swanlock.ErrReleased) { // its Session's Close may have been first
		return fmt.Errorf("pglock: release %s: %w", quote(h.info.Target), err)
	}
	return nil
}

// autoRefresh refreshes every third of the TTL, so that one may fail.
func (h *hold) autoRefresh() {
	every := h.info.TTL / 3
	ctx, cancel := context.WithTimeout(context.Background(), every)
	defer cancel()
	err := h.refresh(ctx)
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	if err != nil && !errors.Is(err, swanlock.ErrReleased) {
		h.log.Warn("pglock: background refresh failed", "target", quote(h.info.Target), "err", err)
	}
	if h.err == nil {
		h.auto.Reset(every)
	}
}

// drop is what becomes of a lock whose handle nobody has any more.
func drop(h *hold) {
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	if h.err != nil {
		h.w = nil
		return
	}
	h.log.Warn("pglock: a lock was dropped without Release", "target", quote(h.info.Target), "owner", h.info.Owner)
	h.end(fmt.Errorf("%w: %w", swanlock.ErrLost, errDropped))
	if h.auto != nil || h.at != nil {
		go h.release(context.Background())
		return
	}
	h.w = nil
}
