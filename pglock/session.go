package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
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
	p := &prepared{Conn: conn, stmts: make(map[string]*sql.Stmt)}
	return &Session{w: &wire{config: newConfig(new(sync.Once), opts), conn: conn, q: db.New(p), forget: p.forget}}
}

// TryAcquire takes the lock if it is free, in one round trip. See
// swanlock.Locker. The lock is a *PostgresLock.
func (s *Session) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(s.acquire(ctx, target, opts, (*wire).tryAcquire))
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. It tries
// again and again, at growing intervals of up to a quarter of a second, so
// others may use the session meanwhile and nothing waits in the server; who
// comes first is not served first.
func (s *Session) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(s.acquire(ctx, target, opts, (*wire).poll))
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
// statements. The connection stays open and as it was before. A second call
// does nothing.
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
	return acquire(ctx, plain(conn), target, opts, (*wire).poll)
}

var leaseless sync.Once // for the package's functions

// plain is the way to conn without anything prepared.
func plain(conn *sql.Conn) *wire {
	return &wire{config: newConfig(&leaseless, nil), conn: conn, q: db.New(conn), forget: func() error { return nil }}
}

// A request is what is asked for, checked.
type request struct {
	swanlock.Options
	target string
	key    Key
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

// poll tries until the lock is free or ctx ends. It waits without the session,
// a random part of an interval that grows, so that waiters do not march in step.
func (w *wire) poll(ctx context.Context, r request) (*PostgresLock, error) {
	const shortest, longest = 2 * time.Millisecond, 250 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for interval := shortest; ; interval = min(interval*3/2, longest) {
		l, err := w.tryAcquire(ctx, r)
		if !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) {
			return l, err
		}
		timer.Reset(interval/2 + rand.N(interval/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, notAcquired(ctx)
		}
	}
}

// tryAcquire makes one attempt. Whatever its error, nothing is held.
func (w *wire) tryAcquire(ctx context.Context, r request) (*PostgresLock, error) {
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
	defer led.give()
	if w.closed.Load() {
		return nil, errors.New("the session is closed")
	}
	if _, w.raw, err = ledgerOf(w.conn); err != nil { // closed meanwhile
		return nil, err
	}
	led.abandon(w.conn, true, errClosed) // since the pool has handed the session out again
	if err := w.settle(ctx, led); err != nil {
		return nil, err
	}
	if err := w.checkFree(ctx, led, r.key); err != nil {
		return nil, err
	}

	h := newHold(w, led, r)
	if err := w.grant(ctx, h, r); err != nil {
		return nil, err
	}
	if late := h.late(ctx); late != nil {
		w.unlock(ctx, h)
		return nil, late
	}
	if r.AutoRefresh {
		led.mu.Lock()
		h.auto = time.AfterFunc(r.TTL/3, h.autoRefresh)
		led.mu.Unlock()
	}
	return h.handle(), nil
}
