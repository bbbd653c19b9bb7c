package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
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
// A pool needs few connections: one for locks without a TTL, one for each range
// of TTLs (two to a doubling), one more for every 450 locks held, and those that
// it waits on (see WithMaxWaiters). It keeps them out of the *sql.DB until they have
// held nothing for a minute, or until Close.
//
// The server's lease of a session is at most the TTL of its locks, and at least
// two thirds of it: a process that is cut off for that long loses them.
//
// Within one pool a target that somebody holds is held elsewhere for everybody
// else: TryAcquire says swanlock.ErrNotAcquired, and Acquire waits.
type Pool struct {
	db *sql.DB
	*config
	crowd crowd
	life  context.Context // ends with Close
	end   context.CancelFunc
	work  sync.WaitGroup // what runs on nobody's behalf

	mu       sync.Mutex
	closed   bool          // to new work
	over     bool          // nothing is to run any more
	idle     chan struct{} // closed when closed and nothing is claimed
	sessions []*poolSession
	claims   map[Key]*claim
	queues   map[Key]*queue
	seated   map[Key]bool // those for which a session is kept: see seat
	locks    int          // on all sessions
	room     int          // for how many
	waiting  int          // how many sessions wait
	readers  int          // that there ever were
	checked  bool         // that no pooler is in between
}

// A claim is what a pool's callers hold of a key, or ask for just now. It only
// spares the server questions, and keeps two callers of one session apart, who
// are one to the server.
type claim struct {
	shared bool
	n      int
	at     *poolSession // where the last one is
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
	for _, opt := range opts {
		if opt != nil {
			opt.forPool(c)
		}
	}
	if c.maxWaiters < 0 || c.heartbeat < time.Millisecond {
		return nil, fmt.Errorf("pglock: a pool has 0 waiters or more, and a heartbeat of a millisecond or more (have %d, %v)", c.maxWaiters, c.heartbeat)
	}
	life, end := context.WithCancel(context.Background())
	return &Pool{db: db, config: c.complete(), life: life, end: end, idle: make(chan struct{}),
		claims: make(map[Key]*claim), queues: make(map[Key]*queue), seated: make(map[Key]bool), room: math.MaxInt}, nil
}

// TryAcquire takes the lock if it is free, in one round trip or less. See
// swanlock.Locker. The lock is a *PostgresLock.
func (p *Pool) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return p.acquire(ctx, target, opts, p.try)
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. Waiters are
// served in the order in which they came, on all hosts; readers who come one
// after the other may have the lock together. Who gives up leaves the line at
// once, and so does a process that dies.
//
// The pool waits in the server on connections of its own, half a second at a
// time; PostgreSQL logs each such wait as a lock timeout.
func (p *Pool) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return p.acquire(ctx, target, opts, func(ctx context.Context, r request) (*PostgresLock, error) {
		newcomes := !p.awaited(r.key) && !p.crowd.at(r.key)
		if newcomes {
			newcomer := r
			newcomer.gate = lineHash(r.key)
			switch l, err := p.try(ctx, newcomer); {
			case !elsewhere(err):
				return l, err
			case ctx.Err() != nil:
				return nil, notAcquired(ctx)
			}
		}
		return p.wait(ctx, r, newcomes)
	})
}

func (p *Pool) acquire(ctx context.Context, target string, opts []swanlock.Option, how func(context.Context, request) (*PostgresLock, error)) (swanlock.DistributedLock, error) {
	r, err := check(target, opts)
	if err != nil {
		return nil, err
	}
	l, err := how(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("pglock: acquire %s: %w", quote(target), err)
	}
	return l, nil
}

// try makes one attempt, and another if the session turns out to be dead:
// whatever became of the first, it went with the session.
func (p *Pool) try(ctx context.Context, r request) (*PostgresLock, error) {
	return again(func() (*PostgresLock, error) { return p.tryOnce(ctx, r) })
}

// again does f on another session if one is dead; after a restart of the server
// all of them are.
func again[T any](f func() (T, error)) (v T, err error) {
	for range maxSessions {
		if v, err = f(); !errors.Is(err, errSessionGone) {
			break
		}
	}
	return v, err
}

func (p *Pool) tryOnce(ctx context.Context, r request) (*PostgresLock, error) {
	if ctx.Err() != nil {
		return nil, notAcquired(ctx)
	}
	h := newHold(r)
	s, err := p.claim(h, r)
	if err != nil {
		return nil, err
	}
	if err = s.opened(ctx); err == nil {
		h.on(s.w, s.led)
		err = s.do(ctx, &op{kind: acquiring, ctx: ctx, h: h, r: r})
	}
	if err != nil {
		p.unclaim(h)
		return nil, err
	}
	return h.given(ctx, r)
}

// given gives a lock that was granted to its caller, if that is not too late.
func (h *hold) given(ctx context.Context, r request) (*PostgresLock, error) {
	if late := h.late(ctx); late != nil {
		h.release(ctx)
		return nil, late
	}
	if r.AutoRefresh && h.audit != 0 { // the others are renewed by the heartbeat
		h.led.mu.Lock()
		h.auto = time.AfterFunc(r.TTL/3, h.autoRefresh)
		h.led.mu.Unlock()
	}
	return h.handle(), nil
}

// claim reserves h's key for one caller, or for one reader more, and says on
// which session to ask for it.
func (p *Pool) claim(h *hold, r request) (*poolSession, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	if p.queues[r.key] != nil { // a try does not overtake those who wait
		return nil, swanlock.ErrNotAcquired
	}
	c := p.claims[r.key]
	if c != nil && !(c.shared && r.Shared) {
		return nil, swanlock.ErrNotAcquired
	}
	if c != nil && c.at.has(leaseOf(r.TTL)) {
		p.reserve(c.at)
		p.claimed(h, c.at)
		return c.at, nil
	}
	s, err := p.choose(leaseOf(r.TTL))
	if err == nil {
		p.claimed(h, s)
	}
	return s, err
}

// claimed notes that h is, or is to be, held on s, where there is room reserved.
// p.mu is held.
func (p *Pool) claimed(h *hold, s *poolSession) {
	c := p.claims[h.id.key]
	if c == nil {
		c = &claim{}
		p.claims[h.id.key] = c
	}
	c.n++
	c.shared, c.at = h.info.Shared, s
	h.at, h.claimed = s, true
	if h.info.Shared {
		p.readers++
		h.id.reader = p.readers
	}
}

// unclaim gives back what claimed has noted, once.
func (p *Pool) unclaim(h *hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !h.claimed {
		return
	}
	h.claimed = false
	p.unreserve(h.at)
	c := p.claims[h.id.key]
	if c.n--; c.n > 0 {
		return
	}
	delete(p.claims, h.id.key)
	if q := p.queues[h.id.key]; q != nil {
		q.wake()
	}
	if p.closed && len(p.claims) == 0 {
		p.nothingHeld()
	}
}

// choose picks a session with room for a lock of that lease, or makes one, and
// reserves the room. p.mu is held.
func (p *Pool) choose(lease time.Duration) (*poolSession, error) {
	if p.locks >= p.room {
		return nil, fmt.Errorf("%w (%d, half of the server's lock table)", ErrPoolFull, p.locks)
	}
	var best *poolSession
	for _, s := range p.sessions {
		if s.has(lease) && (best == nil || s.lease > best.lease) {
			best = s
		}
	}
	if best == nil || best.lease < lease && len(p.sessions) < maxSessions && p.spare(0) {
		if len(p.sessions) >= maxSessions {
			return nil, fmt.Errorf("%w (%d, on %d sessions)", ErrPoolFull, p.locks, len(p.sessions))
		}
		best = p.newSession(lease)
	}
	p.reserve(best)
	return best, nil
}

// newSession makes one and opens it. p.mu is held.
func (p *Pool) newSession(lease time.Duration) *poolSession {
	s := &poolSession{p: p, lease: lease, ready: make(chan struct{})}
	p.sessions = append(p.sessions, s)
	p.work.Go(s.open)
	return s
}

// reserve keeps room for a lock, or a ticket. p.mu is held.
func (p *Pool) reserve(s *poolSession) {
	s.locks++
	p.locks++
}

func (p *Pool) unreserve(s *poolSession) {
	s.locks--
	p.locks--
}

// nothingHeld tells Close. p.mu is held.
func (p *Pool) nothingHeld() {
	select {
	case <-p.idle:
	default:
		close(p.idle)
	}
}

// measured notes that the server has room for so many locks in all, of which
// the pool takes half at most: when the table is full, nobody can connect.
func (p *Pool) measured(room int64) {
	p.mu.Lock()
	p.room = int(room / 2)
	p.mu.Unlock()
}

// spawn runs f, and returns false if the pool is over.
func (p *Pool) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.work.Go(f)
	}
	return !p.over
}

// forget takes a session that is dead, closed, or was not opened, off the list;
// if it must be unused, only then.
func (p *Pool) forget(s *poolSession, unused bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if unused && (s.locks > 0 || s.waits || p.waiting > 0 && p.beside(s) == nil) { // see cancel
		return false
	}
	s.gone = true
	p.sessions = slices.DeleteFunc(p.sessions, func(other *poolSession) bool { return other == s })
	return true
}

// Close refuses new work at once, waits until every lock is released or ctx
// ends, and releases what is still held. It gives the connections back to the
// *sql.DB, which stays open. The error is that of a context that ended first,
// joined with those of the releases. A second call does the same.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	if len(p.claims) == 0 {
		p.nothingHeld()
	}
	p.mu.Unlock()
	p.end()
	var errs []error
	select {
	case <-p.idle:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("pglock: close: locks were still held: %w", context.Cause(ctx)))
	}
	for {
		p.mu.Lock()
		if len(p.sessions) == 0 {
			p.over = true
			p.mu.Unlock()
			p.work.Wait()
			return errors.Join(errs...)
		}
		s := p.sessions[0]
		p.mu.Unlock()
		if s.opened(context.Background()) == nil {
			if err := s.solo(s.shut); !errors.Is(err, errSessionGone) && !errors.Is(err, errPoolClosed) { // its holders were told
				errs = append(errs, err)
			}
		}
		p.forget(s, false)
	}
}
