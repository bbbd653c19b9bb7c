package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Pool takes locks on sessions of its own, made from the caller's *sql.DB, for
// any number of goroutines and targets. It is a swanlock.Locker, and its
// methods may be called by several goroutines at once.
//
// Many locks share one session. What arrives while a statement is under way
// travels together in the next one, so that one round trip serves many callers;
// a lone caller waits for nobody. Each session proves all its locks at every
// heartbeat: when it is gone, the Done of each of its locks is closed, and the
// pool takes another session for new ones. It never takes a lost lock again by
// itself.
//
// A pool wants few connections: one for locks without a TTL, one for each range
// of TTLs (two to a doubling), one more for every 450 locks held, and those that
// it waits on (see WithMaxWaiters); it does with fewer (see WithMaxSessions). It
// keeps them out of the *sql.DB until they have held nothing for a minute, or for
// a moment if all of the *sql.DB's are in use, or until Close.
//
// The server's lease of a session is at most the TTL of its locks, and at least
// two thirds of it: a process that is cut off for that long loses them.
//
// Within one pool a target that somebody holds is held elsewhere for everybody
// else: TryAcquire says swanlock.ErrNotAcquired, and Acquire waits.
type Pool struct {
	db *sql.DB
	*config
	hint lineHint
	life context.Context // ends with Close
	end  context.CancelFunc
	work sync.WaitGroup // what runs on nobody's behalf

	mu              sync.Mutex
	closed          bool          // to new work
	stopped         bool          // nothing is to run any more
	drained         chan struct{} // closed when closed and nothing is claimed
	sessions        []*poolSession
	claims          map[Key]*claim
	queues          map[Key]*queue
	reserved        map[Key]bool // those for which a session is kept: see reserveForWait
	locks           int          // on all sessions
	maxLocks        int          // half of what the server has room for
	waitingSessions int          // how many sessions wait
	lastReader      int          // its number
	poolerChecked   bool         // no pooler is in between
	scarceUntil     time.Time    // connections came late: no more are taken until then
	warnedScarce    bool
	outageAt        time.Time // when an attempt to use the server was last in vain
	outageWarned    time.Time // when that was last logged
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
// shows at the first acquire. db stays the caller's, who closes it after Close.
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
		return nil, fmt.Errorf("pglock: a pool has 0 waiters and sessions or more, and a heartbeat of a millisecond or more (have %d, %d, %v)",
			c.maxWaiters, c.maxSessions, c.heartbeat)
	}
	life, end := context.WithCancel(context.Background())
	return &Pool{db: db, config: c.complete(), life: life, end: end, drained: make(chan struct{}),
		claims: make(map[Key]*claim), queues: make(map[Key]*queue), reserved: make(map[Key]bool), maxLocks: math.MaxInt}, nil
}

// TryAcquire takes the lock if it is free, in one round trip or less. See
// swanlock.Locker. The lock is a *PostgresLock.
func (p *Pool) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return locked(p.acquire(ctx, target, opts, false))
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. Waiters are
// served in the order in which they came, on all hosts; readers who come one
// after the other may have the lock together. Who gives up leaves the line at
// once, and so does a process that dies.
//
// The pool waits in the server on connections of its own, 0.9 s at a time (nine
// tenths of deadlock_timeout, or a third of the lease, if that is less); PostgreSQL
// logs each such wait as a lock timeout, in two lines. One that is not next pauses
// in between, for up to 2 s.
//
// Acquire waits as well while the server cannot be used: it restarts, fails over, or
// has no connection left, for the server or for the *sql.DB. That costs its place in
// line, if it had one. When ctx ends, the error says so, and matches
// swanlock.ErrNotAcquired. It does not wait if the server refuses the user, the
// database or the role, or is a standby.
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

// tryThenWait joins the line at once where there is one.
func (p *Pool) tryThenWait(ctx context.Context, r request, s *spell) (*PostgresLock, error) {
	tryFirst := !p.hasWaiters(r.key) && !p.hint.at(r.key)
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

// try makes one attempt, and another if the session turns out to be dead:
// whatever became of the first, it went with the session. After a restart of the
// server all sessions are dead.
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
	s, err := p.claim(h)
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
		return nil, unanswered(ctx, err) // it is undone, and the claim with it, in the background
	}
	if err != nil {
		p.unclaim(h)
		if ctx.Err() != nil && !errors.Is(err, swanlock.ErrNotAcquired) {
			err = notAcquired(ctx)
		}
		return nil, err
	}
	return h.beginInPool(), nil
}

// beginInPool returns the handle of a lock that was granted. Those without an
// audit row are refreshed by the heartbeat.
func (h *hold) beginInPool() *PostgresLock {
	if h.audit != 0 {
		return h.begin()
	}
	return h.handle()
}

// spawn runs f, and returns false if the pool has stopped.
func (p *Pool) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		p.work.Go(f)
	}
	return !p.stopped
}
