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
// A pool needs few connections: one for locks with a TTL, one for those
// without, and one more for every 400 locks held. It keeps them out of the
// *sql.DB until they have held nothing for a minute, or until Close.
//
// Within one pool a target that somebody holds is held elsewhere for everybody
// else: TryAcquire says swanlock.ErrNotAcquired, and Acquire waits.
type Pool struct {
	db *sql.DB
	*config
	life context.Context // ends with Close
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	idle    chan struct{} // closed when closed and nothing is claimed
	lines   []*line
	claims  map[Key]*claim
	queues  map[Key]*queue
	readers int // that there ever were
	room    int // for how many locks
}

var errPoolClosed = errors.New("the pool is closed")

// A claim is what a pool's callers hold of a key, or ask for just now.
type claim struct {
	shared bool
	n      int
	line   *line // where
}

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
	c.complete()
	if c.maxSessions < 1 || c.heartbeat < time.Millisecond {
		return nil, fmt.Errorf("pglock: a pool needs a session at least, and a heartbeat of a millisecond (have %d, %v)", c.maxSessions, c.heartbeat)
	}
	life, end := context.WithCancel(context.Background())
	return &Pool{db: db, config: c, life: life, end: end, idle: make(chan struct{}), claims: make(map[Key]*claim), queues: make(map[Key]*queue), room: math.MaxInt}, nil
}

// TryAcquire takes the lock if it is free, in one round trip or less. See
// swanlock.Locker. The lock is a *PostgresLock.
func (p *Pool) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return p.acquire(ctx, target, opts, p.try)
}

// Acquire waits for the lock until ctx ends. See swanlock.Locker. Callers of
// one pool who wait for the same target get it in the order in which they came,
// and one of them at a time asks the server.
func (p *Pool) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return p.acquire(ctx, target, opts, p.wait)
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

// try makes one attempt, and a second if the session turns out to be dead:
// whatever became of the first, it went with the session.
func (p *Pool) try(ctx context.Context, r request) (*PostgresLock, error) {
	l, err := p.tryOnce(ctx, r)
	if errors.Is(err, errSessionGone) && ctx.Err() == nil {
		l, err = p.tryOnce(ctx, r)
	}
	return l, err
}

func (p *Pool) tryOnce(ctx context.Context, r request) (*PostgresLock, error) {
	if ctx.Err() != nil {
		return nil, notAcquired(ctx)
	}
	ln, reader, err := p.claim(ctx, r)
	if err != nil {
		return nil, err
	}
	h := newHold(ln.w, ln.led, r)
	h.line, h.renew, h.id.reader = ln, r.AutoRefresh, reader
	if err := ln.do(ctx, &op{h: h, kind: acquiring, r: r}); err != nil {
		p.unclaim(r.key, ln)
		return nil, err
	}
	if late := h.late(ctx); late != nil {
		h.release(ctx)
		return nil, late
	}
	return h.handle(), nil
}

// claim reserves the key for one caller, or for one reader more, and says on
// which session to ask for it. Readers are numbered.
func (p *Pool) claim(ctx context.Context, r request) (ln *line, reader int, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, 0, errPoolClosed
	}
	if !r.waiting && p.queues[r.key] != nil { // a try does not overtake those who wait
		p.mu.Unlock()
		return nil, 0, swanlock.ErrNotAcquired
	}
	if r.Shared {
		p.readers++
		reader = p.readers
	}
	fresh := false
	if c := p.claims[r.key]; c == nil {
		c = &claim{shared: r.Shared, n: 1}
		p.claims[r.key] = c
		c.line, fresh, err = p.choose(r.TTL > 0)
		ln = c.line
	} else if ln = c.line; c.shared && r.Shared && ln != nil && !ln.gone {
		c.n++
	} else {
		p.mu.Unlock()
		return nil, 0, swanlock.ErrNotAcquired
	}
	if ln != nil {
		ln.locks++
	}
	p.mu.Unlock()
	if fresh {
		go ln.open()
	}
	if err == nil {
		err = ln.opened(ctx)
	}
	if err != nil {
		p.unclaim(r.key, ln)
		return nil, 0, err
	}
	return ln, reader, nil
}

// choose picks a session with room for a lock, or makes one that the caller is
// to open. p.mu is held.
func (p *Pool) choose(leased bool) (ln *line, opening bool, err error) {
	locks := 0
	for _, ln := range p.lines {
		locks += ln.locks
	}
	if locks >= p.room {
		return nil, false, fmt.Errorf("%w: %d, half of the server's lock table", ErrPoolFull, locks)
	}
	for _, ln := range p.lines {
		if ln.leased == leased && ln.locks < locksPerSession {
			return ln, false, nil
		}
	}
	if len(p.lines) >= p.maxSessions {
		return nil, false, fmt.Errorf("%w: %d, on %d sessions", ErrPoolFull, locks, len(p.lines))
	}
	ln = newLine(p, leased)
	p.lines = append(p.lines, ln)
	return ln, true, nil
}

// unclaim gives back what claim reserved. ln is nil if there was no session.
func (p *Pool) unclaim(key Key, ln *line) {
	p.mu.Lock()
	if ln != nil {
		ln.locks--
	}
	c := p.claims[key]
	if c.n--; c.n == 0 {
		delete(p.claims, key)
	}
	if q := p.queues[key]; q != nil {
		q.wake()
	}
	if p.closed && len(p.claims) == 0 {
		p.nothingHeld()
	}
	p.mu.Unlock()
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

// drop forgets a session that is dead, closed, or was not opened. If it must be
// unused it is dropped only then.
func (p *Pool) drop(ln *line, unused bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if unused && ln.locks > 0 {
		return false
	}
	ln.gone = true
	p.lines = slices.DeleteFunc(p.lines, func(other *line) bool { return other == ln })
	return true
}

// Close refuses new work at once, waits until every lock is released or ctx
// ends, and releases what is still held. It gives the connections back to the
// *sql.DB, which stays open. The error is that of a context that ended first,
// joined with those of the releases. A second call does the same.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.end()
	for _, q := range p.queues {
		q.wakeAll()
	}
	if len(p.claims) == 0 {
		p.nothingHeld()
	}
	p.mu.Unlock()
	var errs []error
	select {
	case <-p.idle:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("pglock: close: locks were still held: %w", context.Cause(ctx)))
	}
	for {
		p.mu.Lock()
		if len(p.lines) == 0 {
			p.mu.Unlock()
			return errors.Join(errs...)
		}
		ln := p.lines[0]
		p.mu.Unlock()
		if ln.opened(context.Background()) == nil {
			errs = append(errs, ln.do(ctx, &op{kind: closing}))
		}
		p.drop(ln, false)
	}
}
