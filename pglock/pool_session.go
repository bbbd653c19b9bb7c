package pglock

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// A poolSession is a session of a pool, from its opening to its end.
type poolSession struct {
	p *Pool

	// Guarded by roster.mu.
	lease time.Duration // how long the server is to let it be idle; 0: for ever
	locks int           // locks that are held or asked for, and tickets
	waits bool          // it waits in the server for one waiter, and is not used otherwise
	gone  bool          // it is not in the roster any more

	ready         chan struct{} // closed when the session is open, or could not be opened
	callers       callers       // those that wait for that
	failed        error         // why it could not be opened; set before ready is closed
	a             *access
	led           *ledger
	pid           int32
	savedSettings timeouts     // the lease's settings, as they were before
	isolation     string       // default_transaction_isolation, as it was before
	serverLease   atomic.Int64 // the lease on the server, ours or the role's: a time.Duration

	combiner

	// Used by the combiner's goroutine alone.
	heartbeatTimer *time.Timer
	emptySince     time.Time // zero while it holds something
	closed         bool      // the connection was given back
}

// connecting is how long a new session may take, if no caller has a later deadline.
const connecting = 10 * time.Second

// newSession makes a session, and begins to open it.
func (p *Pool) newSession(lease time.Duration) *poolSession {
	s := &poolSession{p: p, lease: lease, ready: make(chan struct{})}
	p.spawn(s.open)
	return s
}

// leaseOf returns the lease of the sessions for locks with that TTL: its
// milliseconds, rounded down to their two highest bits, so that a few sessions
// do for all TTLs.
func leaseOf(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return 0
	}
	ms := uint64(max(ttl/time.Millisecond, 1))
	low := max(bits.Len64(ms)-2, 0)
	return time.Duration(ms>>low<<low) * time.Millisecond
}

// fitsLocked reports whether s can take one more lock of that lease. The
// session's own may be shorter, which is as safe, but a lock without a lease
// needs a session without one.
func (s *poolSession) fitsLocked(lease time.Duration) bool {
	return !s.gone && !s.waits && s.locks < locksPerSession && s.lease <= lease && (s.lease == 0) == (lease == 0) && !s.silent()
}

// silent reports whether the server leaves a statement of the session
// unanswered.
func (s *poolSession) silent() bool { return s.isOpen() && s.led.stalled.Load() }

// open takes a connection of the *sql.DB and makes it a session of the pool.
// Many callers may wait for that, so it is bound to no caller's context.
func (s *poolSession) open() {
	defer close(s.ready)
	ctx, cancel := s.callers.whileAwaited(s.p.life, connecting)
	defer cancel()
	defer s.p.guest.awaitOpening(ctx)()
	// A server that was restarted leaves dead connections in the *sql.DB, which
	// are tried one after the other. A *sql.DB on a pgxpool does not say how
	// many it has.
	for range s.p.guest.db.Stats().Idle + 4 {
		if s.failed = s.connect(ctx); s.failed == nil || !cutOff(s.failed) || ctx.Err() != nil {
			break
		}
	}
	if s.failed != nil {
		s.p.sessions.forget(s, false)
	}
}

func (s *poolSession) connect(ctx context.Context) (err error) {
	began := time.Now()
	conn, err := s.p.guest.connection(ctx, s.p.sessions.hasOther(s))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return s.p.guest.scarce(fmt.Errorf("no connection: %w", err))
	}
	s.a = newAccess(s.p.config, oneconn.New(conn, db.OneLine))
	s.a.endElsewhere = s.p.errands.endBackend
	tn, err := s.identify(ctx, began)
	if err != nil {
		conn.Close()
		return err
	}
	defer tn.give()
	s.led = tn.led
	tn.led.callers.Store(&s.callers)
	if _, err := tn.led.enter(conn, request{}); err != nil {
		return errors.Join(err, conn.Close())
	}
	if err := tn.settle(); err != nil { // It may have been given back with locks on it,
		return errors.Join(err, conn.Close())
	}
	if err := tn.confirm(); err != nil { // or with a lease that a rollback has brought back.
		return errors.Join(err, conn.Close())
	}
	if err := s.begin(ctx, tn); err != nil {
		tn.destroy(err)
		return err
	}
	return nil
}

// identify finds out which session the connection has, and returns that
// session's turn.
func (s *poolSession) identify(ctx context.Context, began time.Time) (turn, error) {
	tn, err := s.a.takeAlways()
	if err != nil {
		return tn, err
	}
	tn.led.callers.Store(&s.callers)
	if err = s.p.errands.direct(ctx, tn, began); err == nil {
		err = tn.mark(ctx)
	}
	if err != nil {
		tn.destroy(err)
		tn.give()
		return tn, err
	}
	if tn.isKnown() {
		return tn, nil
	}
	tn.give()
	return s.a.takeAlways()
}

// begin sets the session's lease and other settings, and makes s its owner.
func (s *poolSession) begin(ctx context.Context, tn turn) error {
	var params string
	wanted := s.leaseNow()
	if wanted > 0 {
		params = timeouts{}.of(wanted).idleInTransaction
	}
	sent := time.Now()
	row, err := ask(ctx, tn, (*db.Queries).PoolOpen, params)
	if err != nil {
		return explain(err, false)
	}
	s.pid, s.savedSettings = row.Pid, timeouts{row.Idle, row.IdleInTransaction}
	s.isolation = row.Isolation
	s.p.sessions.measured(row.Room)
	tn.led.deadlock = time.Duration(row.DeadlockMs) * time.Millisecond
	kept := wanted
	if wanted > 0 {
		tn.warnLeaseless(s.savedSettings)
	} else {
		kept = time.Duration(row.IdleMs) * time.Millisecond
	}
	s.kept(kept)
	tn.led.own(s, lease{kept, sent})
	s.combiner.mu.Lock()
	s.heartbeatTimer = time.AfterFunc(s.every(), func() { s.p.spawn(s.heartbeat) })
	s.combiner.mu.Unlock()
	return nil
}

// kept notes the session's lease on the server.
func (s *poolSession) kept(lease time.Duration) { s.serverLease.Store(int64(lease)) }

// every returns how often the session proves its locks.
func (s *poolSession) every() time.Duration {
	if kept := time.Duration(s.serverLease.Load()); kept > 0 {
		return min(kept/3, s.p.heartbeat)
	}
	return s.p.heartbeat
}

// opened waits until the session is open, or returns why it could not be
// opened.
func (s *poolSession) opened(ctx context.Context) error {
	defer s.callers.add(ctx)()
	select {
	case <-s.ready:
		return s.failed
	case <-ctx.Done():
		return s.p.guest.scarce(notAcquired(ctx))
	}
}

func (s *poolSession) isOpen() bool {
	select {
	case <-s.ready:
		return s.failed == nil
	default:
		return false
	}
}

// A poolSession is the owner of its ledger: see owner.

func (s *poolSession) freed(h *hold) { s.p.keys.unclaim(h) }

func (s *poolSession) overdue() {
	s.p.spawn(func() {
		s.solo(context.Background(), func(context.Context, turn) error { return nil })
	})
}

func (s *poolSession) slow(session db.CancelBackendParams, done func()) {
	s.p.errands.cancelBackend(session, s.led.cancelled.Store, done)
}

// A poolSession is the keeper of its locks, too: see keeper.

func (s *poolSession) renew(ctx context.Context, h *hold, _ bool) error {
	return s.do(ctx, &op{kind: refreshing, h: h})
}

func (s *poolSession) release(ctx context.Context, h *hold) error {
	err := s.do(ctx, &op{kind: releasing, h: h})
	if errors.Is(err, errLeft) {
		return h.lose(err)
	}
	return err
}

// leaseNow returns the lease that the session is to have.
func (s *poolSession) leaseNow() time.Duration {
	s.p.sessions.mu.Lock()
	defer s.p.sessions.mu.Unlock()
	return s.lease
}

// heartbeat proves the session's locks.
func (s *poolSession) heartbeat() {
	err := s.do(context.Background(), &op{kind: refreshing})
	if errors.Is(err, oneconn.ErrSilent) && !errors.Is(err, errLeft) {
		s.heartbeatTimer.Reset(s.every()) // It was not sent, as a statement before it is not answered.
	}
	if err != nil && !errors.Is(err, errPoolClosed) {
		s.p.log.Warn("pglock: heartbeat failed", "err", err)
	}
}

// stopBeating ends the heartbeat.
func (s *poolSession) stopBeating() {
	if s.heartbeatTimer != nil {
		s.heartbeatTimer.Stop()
	}
}

// rest ends a heartbeat: it sets the timer for the next, or gives the
// connection back if the session has held nothing for long.
func (b batcher) rest() {
	const long = time.Minute
	s := b.s
	if !b.led.empty() {
		s.emptySince = time.Time{}
	} else if s.emptySince.IsZero() {
		s.emptySince = time.Now()
	} else if time.Since(s.emptySince) > long && b.giveBack() {
		return
	}
	if s.p.guest.allInUse() && b.giveBack() {
		return
	}
	s.heartbeatTimer.Reset(s.every())
}

// giveBack gives the connection back if the session is not used, and reports
// whether it did.
func (b batcher) giveBack() bool {
	if !b.led.empty() || !b.s.p.sessions.forget(b.s, true) {
		return false
	}
	if err := b.s.close(b.turn); err != nil {
		b.log.Warn("pglock: an idle session could not be closed in good order", "err", err)
	}
	return true
}

// close releases what the session still has, puts back its settings, and gives
// the connection back.
func (s *poolSession) close(tn turn) error {
	s.stopBeating()
	s.closed = true
	errs := slices.DeleteFunc(tn.releaseAll(), func(err error) bool { return errors.Is(err, swanlock.ErrExpired) })
	tn.settle() // Locks that have expired are unlocked too.
	if tn.led.alive() != nil {
		return errors.Join(errs...)
	}
	was := db.PoolShutParams{Pid: s.pid, Isolation: s.isolation}
	if s.leaseNow() > 0 {
		was.Idle, was.IdleInTransaction = s.savedSettings.idle, s.savedSettings.idleInTransaction
	}
	if _, err := ask(context.Background(), tn, (*db.Queries).PoolShut, was); err != nil {
		tn.destroy(err)
		return errors.Join(errs...)
	}
	tn.led.own(nil, lease{})
	return errors.Join(append(errs, tn.unprepare(), tn.sql().Close())...)
}
