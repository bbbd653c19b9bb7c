package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Pool takes locks on sessions of its own, made from the caller's *sql.DB, for
// any number of goroutines and targets. It is a swanlock.Locker, and its
// methods may be called by several goroutines at once.
//
// Many locks share one session. Calls that come while a statement is under way
// are sent together in the next one, so that one round trip serves many
// callers; a call that comes alone is sent at once. Each session proves all its
// locks at every heartbeat. When a session is gone, the Done of each of its
// locks is closed, and the pool takes another session for new locks. It never
// takes a lost lock again by itself.
//
// A pool wants few connections: one for locks without a TTL, one for each range
// of TTLs (there are two ranges from a TTL to its double), one more for every
// 450 locks held, and those that it waits on (see WithMaxWaiters). It does with
// fewer (see WithMaxSessions). It gives a connection back to the *sql.DB when
// it has held nothing for a minute, at once if all connections of the *sql.DB
// are in use, and at Close.
//
// The server's lease of a session is at most the TTL of its locks, and at least
// two thirds of it: a process that is cut off for that long loses them.
//
// Two callers of one pool exclude each other as two processes do: while one
// holds a target, TryAcquire of the other returns swanlock.ErrNotAcquired, and
// Acquire waits.
type Pool struct {
	*config
	*background
	guest    *guest
	errands  *errands
	sessions *roster
	keys     *registry
	hint     lineHint
	outages  outages
}

const (
	// locksPerSession is how many locks are put on a session before the next is
	// taken: every statement of a session walks the locks that it holds
	// (measured: 92 µs for an acquire and a release with none held, 102 with
	// 100, 176 with 1,000).
	locksPerSession = 450
	maxSessions     = 32
)

// NewPool makes a Pool on db. It sends nothing: what is wrong with the server
// shows at the first acquire. db stays the caller's, to be closed after Close.
func NewPool(db *sql.DB, opts ...PoolOption) (*Pool, error) {
	if db == nil {
		return nil, errors.New("pglock: the *sql.DB is nil")
	}
	c := defaults()
	c.heartbeat = time.Second
	for _, opt := range opts {
		if opt != nil {
			opt.forPool(c)
		}
	}
	if c.maxWaiters < 0 || c.maxSessions < 0 || c.heartbeat < time.Millisecond {
		return nil, fmt.Errorf("pglock: WithMaxWaiters and WithMaxSessions must be 0 or more, and WithHeartbeat a millisecond or more (have %d, %d, %v)",
			c.maxWaiters, c.maxSessions, c.heartbeat)
	}
	p := &Pool{config: c.complete(), background: newBackground(), guest: newGuest(db, c.maxSessions), outages: outages{log: c.log}}
	p.errands = &errands{guest: p.guest, background: p.background, log: c.log}
	p.sessions = newRoster(c, p.guest, p.newSession)
	p.keys = newRegistry(p.sessions)
	return p, nil
}

// TryAcquire takes the lock if it is free, in one round trip or less. See
// swanlock.Locker. The lock is a *PostgresLock.
func (p *Pool) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(p.acquire(ctx, target, opts, false))
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. Waiters are
// served in the order in which they came, on all hosts; readers that come one
// after the other may have the lock together. A caller that gives up leaves the
// line at once, and so does a process that dies.
//
// The pool waits in the server on connections of its own, 0.9 s at a time (nine
// tenths of deadlock_timeout, or a third of the lease, if that is less);
// PostgreSQL logs each such wait as a lock timeout, in two lines. A waiter that
// is not next pauses between two waits, for up to 2 s.
//
// Acquire also waits while the server cannot be used: it restarts, fails over,
// or has no connection left, or all connections of the *sql.DB are in use. A
// waiter may lose its place in line by that, and then takes a new one at the
// end. When ctx ends, the error says what was wrong with the server, and
// matches swanlock.ErrNotAcquired. Acquire does not wait if the server refuses
// the user, the database or the role, or is a standby.
func (p *Pool) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(p.acquire(ctx, target, opts, true))
}

func (p *Pool) acquire(ctx context.Context, target string, opts []swanlock.Option, wait bool) (*PostgresLock, error) {
	r, err := check(target, opts)
	if err != nil {
		return nil, err
	}
	how := p.try
	if wait {
		how = p.waitThrough
	}
	l, err := how(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("pglock: acquire %s: %w", quote(target), err)
	}
	return l, nil
}

// waitThrough waits for the lock through the outages of the server.
func (p *Pool) waitThrough(ctx context.Context, r request) (*PostgresLock, error) {
	for s := (&spell{p: p}); ; {
		l, err := p.tryThenWait(ctx, r, s)
		if !s.goesOn(ctx, err) {
			return l, s.explain(ctx, err)
		}
	}
}

// tryThenWait tries to take the lock and, where that fails, waits in line. It
// joins the line at once, without a try, if this pool knows that there is a
// line.
func (p *Pool) tryThenWait(ctx context.Context, r request, s *spell) (*PostgresLock, error) {
	if ctx.Err() != nil {
		return nil, notAcquired(ctx)
	}
	tryFirst := !p.keys.hasWaiters(r.key) && !p.hint.at(r.key)
	if tryFirst {
		newcomer := r
		newcomer.line = lineHash(r.key)
		switch l, err := p.try(ctx, newcomer); {
		case !elsewhere(err):
			return l, err
		case ctx.Err() != nil:
			return nil, notAcquired(ctx)
		}
	}
	return p.wait(ctx, r, tryFirst, s)
}

// try makes one attempt, and another if the session turns out to be dead: what
// the first attempt may have taken has ended with the session. After a restart
// of the server all sessions are dead.
func (p *Pool) try(ctx context.Context, r request) (l *PostgresLock, err error) {
	for range maxSessions {
		if l, err = p.tryOnce(ctx, r); !errors.Is(err, errSessionGone) {
			break
		}
	}
	return l, err
}

func (p *Pool) tryOnce(ctx context.Context, r request) (*PostgresLock, error) {
	if ctx.Err() != nil {
		return nil, notAcquired(ctx)
	}
	h := newHold(r)
	s, err := p.keys.claim(h)
	if err != nil {
		return nil, err
	}
	return p.acquireOn(ctx, s, h)
}

// acquireOn asks for a lock that was claimed for s.
func (p *Pool) acquireOn(ctx context.Context, s *poolSession, h *hold) (*PostgresLock, error) {
	err := s.opened(ctx)
	if err == nil {
		h.on(turn{s.a, s.led}, s)
		err = s.do(ctx, &op{kind: acquiring, ctx: ctx, h: h})
	}
	if errors.Is(err, errLeft) {
		return nil, unanswered(ctx, err) // The acquire and its claim are undone in the background.
	}
	if err != nil {
		p.keys.unclaim(h)
		if ctx.Err() != nil && !errors.Is(err, swanlock.ErrNotAcquired) {
			err = notAcquired(ctx)
		}
		return nil, err
	}
	return h.beginInPool(), nil
}
