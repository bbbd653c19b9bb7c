package pglock

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
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
	savedSettings timeouts // the lease's settings, as they were before
	before        string   // the other settings

	pulse *pulse
	ops   combiner

	// Used by the combiner's goroutine alone.
	emptySince         time.Time // zero while it holds something
	closed             bool      // the connection was given back
	releases, acquires []*op     // of the batch
}

// newSession makes a session, and begins to open it.
func (p *Pool) newSession(lease time.Duration) *poolSession {
	s := &poolSession{p: p, lease: lease, ready: make(chan struct{})}
	s.ops.send = s.send
	s.pulse = newPulse(p.heartbeat, func() { p.spawn(s.heartbeat) })
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
func (s *poolSession) silent() bool { return s.isOpen() && s.led.silence.stalled.Load() }

// isLost reports whether the session is gone, though it may still be in the roster.
func (s *poolSession) isLost() bool {
	if !s.isOpen() {
		return false
	}
	select {
	case <-s.led.gone:
		return true
	default:
		return false
	}
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

// do queues o and waits until it is done. An acquire or refresh that was not
// sent when its context ends, or when the server is silent, is taken back. A
// caller whose op was sent waits for grace longer, and then leaves: the error
// is errLeft, o is finished in the background, and an acquire is undone.
func (s *poolSession) do(ctx context.Context, o *op) error {
	s.ops.add(o)
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
	case <-s.led.silence.quiet():
	}
	if s.ops.withdraw(o) {
		return s.leaving(ctx, o)
	}
	long := grace
	if o.kind == releasing {
		long = cleanupGrace(ctx)
	}
	if !sleepUntil(o.done, long) && o.state.CompareAndSwap(calling, left) {
		return fmt.Errorf("%w: %w", errLeft, s.leaving(ctx, o))
	}
	<-o.done
	return o.err
}

// leaving returns why the caller of o stops waiting for it.
func (s *poolSession) leaving(ctx context.Context, o *op) error {
	dead := s.led.alive()
	switch {
	case dead != nil && o.kind == refreshing && o.h != nil:
		return o.h.over()
	case dead != nil:
		return fmt.Errorf("%w: %w", errSessionGone, dead)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return oneconn.ErrSilent
}

// solo calls f with the session's turn, for statements that are not shared.
func (s *poolSession) solo(ctx context.Context, f func(context.Context, turn) error) error {
	return s.do(ctx, &op{kind: running, f: f})
}

// send sends the ops, and those of the waiters that are given what they
// release (see successors), which it returns.
func (s *poolSession) send(proofs, batch []*op) (given []*op) {
	defer func() {
		if p := recover(); p != nil { // The driver panicked, and left the ops in an unknown state.
			err := fmt.Errorf("%w: the driver panicked: %v", errSessionGone, p)
			s.led.lose(err)
			s.pulse.stop()
			s.p.sessions.forget(s, false)
			all := append(batch, given...)
			for _, o := range slices.Concat(proofs, all) {
				o.err = err
			}
			batcher{turn: turn{s.a, s.led}, s: s}.undoLeft(proofs, all)
		}
	}()
	tn, err := s.a.takeAlways()
	if err == nil {
		defer tn.give()
	} else {
		tn = turn{s.a, s.led} // The session is over, so nothing is sent.
	}
	b := batcher{turn: tn, s: s}
	given = b.successors(batch)
	all := append(batch, given...) // The batch has no room behind it, so this is a copy if there is anything to add.
	b.run(proofs, all)
	b.undoLeft(proofs, all)
	return given
}

// over returns why nothing can be sent on the session any more, or nil.
func (s *poolSession) over() error {
	if s.closed {
		return errPoolClosed
	}
	if dead := s.led.alive(); dead != nil {
		return fmt.Errorf("%w: %w", errSessionGone, dead)
	}
	return nil
}

// A poolSession is the owner of its ledger: see owner.

func (s *poolSession) freed(h *hold) { s.p.keys.unclaim(h) }

func (s *poolSession) overdue() {
	s.p.spawn(func() {
		s.solo(context.Background(), func(context.Context, turn) error { return nil })
	})
}

func (s *poolSession) slow(session db.CancelBackendParams, done func()) {
	s.p.errands.cancelBackend(session, s.led.silence.cancelled.Store, done)
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
		s.pulse.next() // It was not sent, as a statement before it is not answered.
	}
	if err != nil && !errors.Is(err, errPoolClosed) {
		s.p.log.Warn("pglock: heartbeat failed", "err", err)
	}
	s.p.sessions.warnStarved()
}

// close releases what the session still has, puts back its settings, and gives
// the connection back.
func (s *poolSession) close(tn turn) error {
	s.pulse.stop()
	s.closed = true
	errs := slices.DeleteFunc(tn.releaseAll(), func(err error) bool { return errors.Is(err, swanlock.ErrExpired) })
	tn.settle() // Locks that have expired are unlocked too.
	if tn.led.alive() != nil {
		return errors.Join(errs...)
	}
	was := db.PoolShutParams{Pid: s.pid, Before: s.before}
	if s.leaseNow() > 0 {
		was.Idle, was.IdleInTransaction = s.savedSettings.idle, s.savedSettings.idleInTransaction
	}
	if _, err := ask(context.Background(), tn, (*db.Queries).PoolShut, was); err != nil {
		tn.destroy(err)
		return errors.Join(errs...)
	}
	tn.led.own(nil, 0, time.Time{})
	return errors.Join(append(errs, tn.unprepare(), tn.sql().Close())...)
}
