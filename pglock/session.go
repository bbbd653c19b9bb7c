package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// A Session takes locks on one connection of the caller's. It is a
// swanlock.Locker, and its methods may be called by several goroutines at
// once: they take turns on the connection. The connection stays the caller's:
// the caller must not use it while a call of the Session is under way.
//
// A Session prepares its statements on the connection, so that each call is one
// round trip when warm. Close it before the connection goes back to the pool.
//
// That the server's session has ended is found out by the next call, or at the
// end of a TTL; WithHeartbeat looks in the background.
type Session struct{ a *access }

// NewSession makes a Session on conn. It sends nothing: what is wrong with the
// connection shows at the first acquire.
func NewSession(conn *sql.Conn, opts ...SessionOption) *Session {
	c := defaults()
	for _, opt := range opts {
		if opt != nil {
			opt.forSession(c)
		}
	}
	return &Session{newAccess(c.complete(), oneconn.New(conn, db.OneLine))}
}

// TryAcquire takes the lock if it is free, in one round trip; the connection's
// first takes one more. See swanlock.Locker. The lock is a *PostgresLock.
func (s *Session) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(s.a.acquire(ctx, target, opts, false))
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. Waiters are
// served in the order in which they came, on all hosts; readers that come one
// after the other may have the lock together. A process that dies leaves the
// line at once; one that is stopped, or cut off, keeps its place as a holder
// keeps its lock.
//
// The session waits in the server for 0.9 s at a time (nine tenths of its
// deadlock_timeout), and other calls on it wait as long; PostgreSQL logs each
// such wait as a lock timeout, in two lines. When ctx ends, Acquire returns
// soon, and the place in line is given up when that wait has ended. A waiter
// that is not next pauses between two waits, for up to a third of its TTL (of a
// second, if the TTL is shorter or there is none), and never for more than 2 s.
// If the session has other locks, is in a transaction, or would wait for less than
// 50 ms at a time, it looks from time to time instead (see WithPolling), and keeps
// its place all the same.
//
// The place in line has a lease too: the TTL, but a second at least, or 10 s
// without a TTL. So a waiter that is cut off does not stop those behind it for
// longer. In a transaction, and on a session with locks that have no TTL, it
// has no lease.
//
// If the connection is closed meanwhile, Acquire fails. The place then stays on
// the session until its lease ends, or until this package next uses that
// session. The same goes for a caller that leaves while Rows are open there.
func (s *Session) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(s.a.acquire(ctx, target, opts, true))
}

// locked keeps a nil *PostgresLock from becoming a lock that is not nil.
func locked(l *PostgresLock, err error) (swanlock.DistributedLock, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Close releases the locks that this Session took and lets go of its prepared
// statements. The connection stays open and as it was before, but for settings
// named swanlock, which nothing else reads, and for what the caller's own
// transaction may still bring back (see the package's documentation). A second
// call does nothing. If ctx ends first, the rest is done in the background, and
// the error names each lock whose unlock the server has not confirmed. With
// ErrBusy the locks have ended and are not unlocked yet: close the connection's
// Rows, and call it again.
func (s *Session) Close(ctx context.Context) error {
	a, long := s.a, cleanupGrace(ctx)
	if a.closed.Swap(true) {
		return nil
	}
	led, err := a.ledger(ctx, long)
	if err != nil {
		return fmt.Errorf("pglock: close: %w", err)
	}
	err = turn{a, led}.soon(ctx, func(tn turn) error {
		if _, gone := ledgerOf(a.sql()); gone != nil {
			led.abandon(a.sql(), gone)
			return fmt.Errorf("pglock: close: %w", gone)
		}
		errs := tn.releaseAll()
		return errors.Join(append(errs, tn.settle(), confirm(tn), tn.unprepare())...)
	})
	if errors.Is(err, ErrBusy) {
		a.closed.Store(false)
	}
	if errors.Is(err, errLeft) {
		errs := []error{fmt.Errorf("pglock: close: %w", err)}
		holds, _ := led.takenThrough(a)
		for _, h := range holds { // They are unlocked when the server answers.
			errs = append(errs, fmt.Errorf("pglock: release %s: %w", quote(h.target), h.lose(err)))
		}
		return errors.Join(errs...)
	}
	return err
}

// TryAcquire takes the lock on conn if it is free now. It leaves nothing on the
// connection but the lock: no statement is prepared, so that lib/pq takes two
// round trips a call; a Session takes one. The errors are those of
// swanlock.Locker.
func TryAcquire(ctx context.Context, conn *sql.Conn, target string, opts ...swanlock.Option) (*PostgresLock, error) {
	return plain(conn).acquire(ctx, target, opts, false)
}

// Acquire waits for the lock on conn until ctx ends, as Session.Acquire does.
func Acquire(ctx context.Context, conn *sql.Conn, target string, opts ...swanlock.Option) (*PostgresLock, error) {
	return plain(conn).acquire(ctx, target, opts, true)
}

var leaseless sync.Once // for the package's functions

// plain returns an access to conn without anything prepared.
func plain(conn *sql.Conn) *access {
	c := defaults()
	c.leaseless = &leaseless
	return newAccess(c, oneconn.Unprepared(conn, db.OneLine))
}

// acquire takes the lock, or waits for it. It checks the request before
// anything is sent.
func (a *access) acquire(ctx context.Context, target string, opts []swanlock.Option, wait bool) (*PostgresLock, error) {
	r, err := check(target, opts)
	if err != nil {
		return nil, err
	}
	if a.heartbeat != 0 && a.heartbeat < time.Millisecond {
		return nil, fmt.Errorf("pglock: acquire %s: WithHeartbeat must be a millisecond or more (have %v)", quote(target), a.heartbeat)
	}
	how := a.tryAcquire
	if wait {
		how = a.queue
	}
	l, err := how(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("pglock: acquire %s: %w", quote(target), err)
	}
	a.startBeating()
	return l, nil
}

// take waits for the turn until ctx ends. It marks the session if that was not
// done yet, so that the turn it returns is that of a session which is known.
func (a *access) take(ctx context.Context) (turn, error) {
	for marks := false; ; {
		tn, err := a.takeOnce(ctx)
		switch {
		case err != nil, tn.closed.Load():
			return tn, err
		case tn.led.who.isKnown():
			if !marks { // What an earlier call has read was perhaps in a transaction that is over.
				tn.led.settings.readIn = 0
			}
			return tn, nil
		case tn.led.current() != tn.led: // found out by another call, while this one waited
			tn.give()
			continue
		}
		marks = true
		err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error { return tn.mark(ctx) }, func(turn, error) {})
		if err != nil {
			return turn{}, unanswered(ctx, err)
		}
	}
}

func (a *access) takeOnce(ctx context.Context) (turn, error) {
	if ctx.Err() != nil {
		return turn{}, notAcquired(ctx)
	}
	led, err := a.ledger(ctx, 0)
	if err != nil {
		return turn{}, unanswered(ctx, err)
	}
	tn, err := a.takeOf(ctx, led)
	return tn, unanswered(ctx, err)
}

// tryAcquire makes one attempt. Whatever its error, nothing is held.
func (a *access) tryAcquire(ctx context.Context, r request) (*PostgresLock, error) {
	tn, err := a.take(ctx)
	if err != nil {
		return nil, err
	}
	h := newHold(r).on(tn, a)
	err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error {
		lease, err := tn.ready(r)
		if err == nil {
			err = makeLasting(tn, r)
		}
		if err != nil {
			return err
		}
		return grant(ctx, tn, h, lease)
	}, func(tn turn, err error) {
		if err == nil {
			release(tn, h)
		}
	})
	if err != nil {
		return nil, unanswered(ctx, err)
	}
	return h.begin(), nil
}

// ready settles what is open on the session, so that r can be sent. It returns
// the lease that the session is to have with r's lock.
func (tn turn) ready(r request) (lease string, err error) {
	if tn.closed.Load() {
		return "", errors.New("the session is closed")
	}
	e, err := tn.led.enter(tn.sql(), r)
	if err == nil && e.unsettled {
		if err = tn.settle(); err == nil {
			e, err = tn.led.enter(tn.sql(), r)
		}
	}
	if err == nil && e.held != nil {
		if err = checkHeld(tn, e.held); err == nil {
			e, err = tn.led.enter(tn.sql(), r)
		}
	}
	return e.lease, err
}

// renew refreshes a lock on a caller's connection.
func (a *access) renew(ctx context.Context, h *hold, itself bool) error {
	tn, err := a.takeOf(ctx, h.led)
	if err != nil {
		switch over := h.over(); {
		case over != nil:
			return over
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return err
	}
	err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error {
		if _, err := h.state(); err != nil {
			return err
		}
		return renew(ctx, tn, h, itself)
	}, func(turn, error) {})
	switch {
	case ctx.Err() != nil && errors.Is(err, oneconn.ErrNotSent):
		return context.Cause(ctx)
	case errors.Is(err, errLeft) && h.over() != nil:
		return h.over()
	}
	return err
}

// release frees a lock on a caller's connection. If the server does not confirm
// in time that the lock was held until then, the lock counts as lost; the
// unlock goes on in the background.
func (a *access) release(ctx context.Context, h *hold) error {
	err := turn{a, h.led}.soon(ctx, func(tn turn) error {
		err := release(tn, h)
		tn.settle()
		return err
	})
	if errors.Is(err, errLeft) {
		return h.lose(err)
	}
	if dead := h.led.alive(); dead != nil && err != nil {
		return h.over()
	}
	return err
}
