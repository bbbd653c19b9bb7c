package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
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
type Session struct {
	w *wire

	mu     sync.Mutex
	closed bool
}

// A SessionOption sets how a Session works. A nil one does nothing.
type SessionOption func(*config)

// config is what the options set.
type config struct {
	audit     bool
	log       *slog.Logger
	leaseless *sync.Once // says once that the server keeps no lease
}

// WithAudit writes a row of lock_audit (see the package migrations) for each
// lock, in the statement that takes it, and closes the row in the one that
// frees it. If the row cannot be written, the lock is not taken (ErrAudit).
// Inside a transaction of the caller's the rows share its fate. Exclusive locks
// outside one have a fence then, asked for or not.
func WithAudit() SessionOption { return func(c *config) { c.audit = true } }

// WithLogger sets where warnings go; the default is slog.Default().
func WithLogger(l *slog.Logger) SessionOption { return func(c *config) { c.log = l } }

var leaseless sync.Once

func newConfig(opts []SessionOption) *config {
	c := &config{log: slog.Default(), leaseless: &leaseless}
	for _, opt := range opts {
		if opt != nil {
			opt(c)
		}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// NewSession makes a Session on conn. It sends nothing: what is wrong with the
// connection shows at the first acquire.
func NewSession(conn *sql.Conn, opts ...SessionOption) *Session {
	p := &prepared{Conn: conn, stmts: make(map[string]*sql.Stmt)}
	return &Session{w: &wire{config: newConfig(opts), conn: conn, q: db.New(p), forget: p.forget}}
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
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("pglock: acquire %s: the session is closed", quote(target))
	}
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
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	led, err := ledgerOf(s.w.conn)
	if err != nil {
		return fmt.Errorf("pglock: close: %w", err)
	}
	var errs []error
	led.mu.Lock()
	var mine []*hold
	for _, h := range led.locks {
		if h.w == s.w {
			mine = append(mine, h)
		}
	}
	led.mu.Unlock()
	for _, h := range mine {
		errs = append(errs, h.release(ctx))
	}
	if err := led.takeSoon(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer led.give()
	return errors.Join(append(errs, s.w.forget())...)
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

// plain is the way to conn without anything prepared.
func plain(conn *sql.Conn) *wire {
	return &wire{config: newConfig(nil), conn: conn, q: db.New(conn), forget: func() error { return nil }}
}

// A request is what is asked for, checked.
type request struct {
	swanlock.Options
	target string
	key    Key
}

type acquirer func(w *wire, ctx context.Context, r request) (*PostgresLock, error)

// acquire checks what was asked for before anything is sent.
func acquire(ctx context.Context, w *wire, target string, opts []swanlock.Option, how acquirer) (*PostgresLock, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return nil, err
	}
	if o.TTL > maxTTL {
		return nil, fmt.Errorf("pglock: acquire %s: the TTL %v is more than PostgreSQL keeps (%v)", quote(target), o.TTL, maxTTL)
	}
	l, err := how(w, ctx, request{o, target, KeyOf(target)})
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
		if !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) || ctx.Err() != nil {
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
	led, err := ledgerOf(w.conn)
	if err != nil {
		return nil, err
	}
	if led.take(ctx) != nil {
		return nil, notAcquired(ctx)
	}
	defer led.give()
	if err := w.settle(ctx, led); err != nil {
		return nil, err
	}
	if err := w.checkFree(ctx, led, r.key); err != nil {
		return nil, err
	}

	h := &hold{w: w, led: led, log: w.log, key: r.key, done: make(chan struct{})}
	h.info = swanlock.Info{Target: r.target, Owner: r.Owner, TTL: r.TTL, Shared: r.Shared, AcquiredAt: time.Now()}
	h.lease = lease{r.TTL, h.info.AcquiredAt}
	answer, saved, err := w.try(ctx, h, r)
	if err != nil {
		w.undo(ctx, h, err)
		return nil, explain(err, w.audit)
	}
	switch answer {
	case heldElsewhere:
		led.touch(h.info.AcquiredAt)
		return nil, swanlock.ErrNotAcquired
	case onStandby:
		return nil, ErrStandby
	case fenceTooOld:
		return nil, ErrFenceInTransaction
	}
	h.info.Fence = uint64(answer)
	led.add(h, saved)
	// What came too late is given back: the caller has gone, or its lease has.
	if _, late := h.state(); ctx.Err() != nil || late != nil {
		w.unlock(ctx, h)
		if ctx.Err() != nil {
			return nil, notAcquired(ctx)
		}
		return nil, fmt.Errorf("%w: the answer took longer than the TTL (%v)", swanlock.ErrNotAcquired, r.TTL)
	}
	if r.TTL > 0 && saved.idle == "" {
		w.leaseless.Do(func() {
			w.log.Warn("pglock: the server has no idle_session_timeout (PostgreSQL 14+): the TTL is kept by the holder alone")
		})
	}
	if r.AutoRefresh {
		led.mu.Lock()
		h.auto = time.AfterFunc(r.TTL/3, h.autoRefresh)
		led.mu.Unlock()
	}
	l := &PostgresLock{h: h}
	l.dropped = runtime.AddCleanup(l, drop, h)
	return l, nil
}
