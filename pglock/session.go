package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Session takes locks on one connection of the caller's. It is a
// swanlock.Locker, and its methods may be called by several goroutines at
// once: they take turns on the connection. The connection stays the caller's,
// who must not use it at the very same time.
//
// A Session prepares its statements on the connection, so that each call is one
// round trip when warm. Close it before the connection goes back to the pool.
type Session struct{ w *wire }

// NewSession makes a Session on conn. It sends nothing: what is wrong with the
// connection shows at the first acquire.
func NewSession(conn *sql.Conn, opts ...SessionOption) *Session {
	c := defaults()
	for _, opt := range opts {
		if opt != nil {
			opt.forSession(c)
		}
	}
	return &Session{w: newWire(c.complete(), conn, newPrepared(conn))}
}

// TryAcquire takes the lock if it is free, in one round trip; the connection's
// first takes one more. See swanlock.Locker. The lock is a *PostgresLock.
func (s *Session) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(s.acquire(ctx, target, opts, (*wire).tryAcquire))
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. Waiters are
// served in the order in which they came, on all hosts; readers who come one
// after the other may have the lock together. A process that dies leaves the
// line at once; one that is stopped, or cut off, keeps its place as a holder
// keeps its lock.
//
// The session waits in the server for a quarter of a second at a time, and
// other calls, and the end of ctx, wait with it; PostgreSQL logs each such wait
// as a lock timeout. If the session has other locks, or is in a transaction, it
// looks from time to time instead (see WithPolling), and keeps its place all
// the same.
func (s *Session) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(s.acquire(ctx, target, opts, (*wire).queue))
}

func (s *Session) acquire(ctx context.Context, target string, opts []swanlock.Option, how acquirer) (*PostgresLock, error) {
	return acquire(ctx, s.w, target, opts, how)
}

// locked keeps a nil *PostgresLock from becoming a lock that is not nil.
func locked(l *PostgresLock, err error) (swanlock.DistributedLock, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Close releases the locks that this Session took and lets go of its prepared
// statements. The connection stays open and as it was before, but for the setting
// swanlock.session, which nothing else reads. A second call does nothing.
func (s *Session) Close(ctx context.Context) error {
	w := s.w
	if w.closed.Swap(true) {
		return nil
	}
	led, _, err := ledgerOf(w.conn)
	if err != nil {
		if led := w.led.Load(); led != nil {
			led.abandon(w.conn, false, err)
		}
		return fmt.Errorf("pglock: close: %w", err)
	}
	if err := led.takeSoon(); err != nil {
		w.destroy(led, err)
		return fmt.Errorf("pglock: close: %w", err)
	}
	defer led.give()
	if _, w.raw, err = ledgerOf(w.conn); err != nil { // closed meanwhile
		return fmt.Errorf("pglock: close: %w", err)
	}
	var errs []error
	for _, t := range led.ticketsOf(w) { // somebody waits: he will find the session closed
		errs = append(errs, w.drop(ctx, t))
	}
	for _, h := range led.takenBy(w) {
		if err := w.unlock(ctx, h); err != nil && !errors.Is(err, errDropped) { // which was logged
			errs = append(errs, fmt.Errorf("pglock: release %s: %w", quote(h.info.Target), err))
		}
	}
	return errors.Join(append(errs, w.settle(ctx, led), w.unprepare(ctx, led))...)
}

// TryAcquire takes the lock on conn if it is free now. It leaves nothing on the
// connection but the lock: no statement is prepared, so that lib/pq takes two
// round trips a call; a Session takes one. The errors are those of
// swanlock.Locker.
func TryAcquire(ctx context.Context, conn *sql.Conn, target string, opts ...swanlock.Option) (*PostgresLock, error) {
	return acquire(ctx, plain(conn), target, opts, (*wire).tryAcquire)
}

// Acquire waits for the lock on conn until ctx ends, as Session.Acquire does.
func Acquire(ctx context.Context, conn *sql.Conn, target string, opts ...swanlock.Option) (*PostgresLock, error) {
	return acquire(ctx, plain(conn), target, opts, (*wire).queue)
}

var leaseless sync.Once // for the package's functions

// plain is the way to conn without anything prepared.
func plain(conn *sql.Conn) *wire {
	c := defaults()
	c.leaseless = &leaseless
	return newWire(c, conn, unprepared{conn})
}

// A request is what is asked for, checked.
type request struct {
	swanlock.Options
	target string
	key    Key
	gate   int64 // the hash of the line that a try does not overtake; 0: it does
}

type acquirer func(w *wire, ctx context.Context, r request) (*PostgresLock, error)

// check is the request for target, if there is nothing wrong with it.
func check(target string, opts []swanlock.Option) (request, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err == nil && o.TTL > maxTTL {
		err = fmt.Errorf("pglock: acquire %s: the TTL %v is more than PostgreSQL keeps (%v)", quote(target), o.TTL, maxTTL)
	}
	return request{Options: o, target: target, key: KeyOf(target)}, err
}

// acquire checks what was asked for before anything is sent.
func acquire(ctx context.Context, w *wire, target string, opts []swanlock.Option, how acquirer) (*PostgresLock, error) {
	r, err := check(target, opts)
	if err != nil {
		return nil, err
	}
	l, err := how(w, ctx, r)
	if err != nil {
		return nil, fmt.Errorf("pglock: acquire %s: %w", quote(target), err)
	}
	return l, nil
}

// tryAcquire makes one attempt. Whatever its error, nothing is held.
func (w *wire) tryAcquire(ctx context.Context, r request) (*PostgresLock, error) {
	led, err := w.enter(ctx, r)
	if err != nil {
		return nil, err
	}
	defer led.give()
	h := newHold(r).on(w, led)
	if err := w.grant(ctx, h, r); err != nil {
		return nil, err
	}
	return w.finish(ctx, h, r)
}

// enter takes the turn, and sees to it that the session is fit for r.
func (w *wire) enter(ctx context.Context, r request) (*ledger, error) {
	if ctx.Err() != nil {
		return nil, notAcquired(ctx)
	}
	led, err := w.ledger()
	if err != nil {
		return nil, err
	}
	if led.take(ctx) != nil {
		return nil, notAcquired(ctx)
	}
	if err := w.fit(ctx, led, r); err != nil {
		led.give()
		return nil, err
	}
	return led, nil
}

func (w *wire) fit(ctx context.Context, led *ledger, r request) (err error) {
	if w.closed.Load() {
		return errors.New("the session is closed")
	}
	if _, w.raw, err = ledgerOf(w.conn); err != nil { // closed meanwhile
		return err
	}
	led.abandon(w.conn, true, errClosed) // since the pool has handed the session out again
	if err := w.settle(ctx, led); err != nil {
		return err
	}
	return w.checkFree(ctx, led, r.key)
}

// finish gives a lock that was granted to its caller, if that is not too late.
func (w *wire) finish(ctx context.Context, h *hold, r request) (*PostgresLock, error) {
	if late := h.late(ctx); late != nil {
		w.unlock(ctx, h)
		return nil, late
	}
	if r.AutoRefresh {
		h.led.mu.Lock()
		h.auto = time.AfterFunc(r.TTL/3, h.autoRefresh)
		h.led.mu.Unlock()
	}
	return h.handle(), nil
}
