package pglock

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// A poolSession is a session of a pool, from its opening to its end.
type poolSession struct {
	p     *Pool
	lease time.Duration // how long the server lets it be idle; 0: for ever

	// Guarded by p.mu.
	locks int  // held or asked for, and tickets
	waits bool // in the server, on behalf of one waiter: nobody else is to use it
	gone  bool // not in p.sessions any more

	ready  chan struct{} // closed when opened, or failed
	failed error         // why it could not be opened
	w      *wire
	led    *ledger
	pid    int32
	before timeouts      // what the settings were
	kept   time.Duration // the server's lease: ours, or that of the role

	combiner

	// For the leader alone.
	beat  *time.Timer
	empty time.Time // since when it has held nothing
	shutd bool
}

// connecting is how long a new session may take.
const connecting = 10 * time.Second

// leaseOf is the lease of the sessions for locks with that TTL: the two highest
// bits of its milliseconds, so that a few sessions do for all of them.
func leaseOf(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return 0
	}
	ms := uint64(max(ttl/time.Millisecond, 1))
	low := max(bits.Len64(ms)-2, 0)
	return time.Duration(ms>>low<<low) * time.Millisecond
}

// has says whether s can take one more lock of that lease: a shorter one is as
// safe, but for none. p.mu is held.
func (s *poolSession) has(lease time.Duration) bool {
	return !s.gone && !s.waits && s.locks < locksPerSession && s.lease <= lease && (s.lease == 0) == (lease == 0)
}

// open takes a connection of the caller's pool and looks at what is behind it.
// Many may be waiting for it, so it depends on nobody's context.
func (s *poolSession) open() {
	defer close(s.ready)
	ctx, cancel := context.WithTimeout(s.p.life, connecting)
	defer cancel()
	// A server that was restarted leaves dead connections in the *sql.DB.
	for range s.p.db.Stats().Idle + 1 {
		if s.failed = s.connect(ctx); s.failed == nil || sqlState(s.failed) != "" || ctx.Err() != nil {
			break
		}
	}
	if s.failed != nil {
		s.p.forget(s, false)
	}
}

func (s *poolSession) connect(ctx context.Context) (err error) {
	conn, err := s.p.db.Conn(ctx)
	if err != nil {
		return s.p.scarce(fmt.Errorf("no connection: %w", err))
	}
	s.w = newWire(s.p.config, conn, newPrepared(conn))
	if s.led, s.w.raw, err = ledgerOf(conn); err != nil {
		return errors.Join(err, conn.Close())
	}
	if err := s.led.takeSoon(); err != nil {
		return errors.Join(err, conn.Close())
	}
	defer s.led.give()
	s.led.abandon(conn, true, errClosed)
	if err := s.w.settle(ctx, s.led); err != nil { // somebody may have given it back with locks on it
		return errors.Join(err, conn.Close())
	}
	if err := s.direct(ctx); err != nil {
		s.w.destroy(s.led, err)
		return err
	}
	if err := s.w.mark(ctx, s.led); err != nil {
		s.w.destroy(s.led, err)
		return err
	}
	var params string
	if s.lease > 0 {
		params = timeouts{}.of(s.lease).idleInTransaction
	}
	sent := time.Now()
	var row db.PoolOpenRow
	err = s.w.ask(ctx, s.led, func(ctx context.Context) (err error) {
		row, err = s.w.q.PoolOpen(ctx, params)
		return err
	})
	if err != nil {
		s.w.destroy(s.led, err)
		return explain(err, false)
	}
	s.pid, s.before = row.Pid, timeouts{row.Idle, row.IdleInTransaction}
	s.p.measured(row.Room)
	if s.kept = s.lease; s.lease > 0 {
		s.w.warnLeaseless(s.before)
	} else {
		s.kept = time.Duration(row.IdleMs) * time.Millisecond
	}
	s.led.mu.Lock()
	s.led.pool, s.led.lease = s, lease{s.kept, sent}
	s.led.mu.Unlock()
	s.combiner.mu.Lock()
	s.beat = time.AfterFunc(s.every(), func() { s.p.spawn(s.heartbeat) })
	s.combiner.mu.Unlock()
	return nil
}

// direct refuses a pooler in transaction mode, once for each pool, before
// anything is set or prepared: two connections that share one backend give it
// away, and one that has two.
func (s *poolSession) direct(ctx context.Context) error {
	p := s.p
	p.mu.Lock()
	checked := p.checked
	p.mu.Unlock()
	if checked {
		return nil
	}
	first, err := s.w.backend(ctx, s.led)
	if err != nil {
		return err
	}
	if pid, err := p.another(ctx); err == nil && pid == first {
		return fmt.Errorf("%w (two connections share the backend %d)", ErrPooler, pid)
	}
	if again, err := s.w.backend(ctx, s.led); err != nil {
		return err
	} else if again != first {
		return fmt.Errorf("%w (process %d, then %d)", ErrPooler, first, again)
	}
	p.mu.Lock()
	p.checked = true
	p.mu.Unlock()
	return nil
}

// another asks one more connection, if there is one to be had, for its backend.
func (p *Pool) another(ctx context.Context) (pid int32, err error) {
	if !p.spare(0) {
		return 0, nil
	}
	soon, cancel := context.WithTimeout(ctx, connecting/10) // somebody may be quicker
	defer cancel()
	conn, err := p.db.Conn(soon)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	w := plain(conn)
	led, raw, err := ledgerOf(conn)
	if err != nil {
		return 0, err
	}
	if err := led.takeSoon(); err != nil {
		return 0, err
	}
	defer led.give()
	w.raw = raw
	return w.backend(ctx, led)
}

// backend asks who is there, and prepares nothing.
func (w *wire) backend(ctx context.Context, led *ledger) (pid int32, err error) {
	err = w.ask(ctx, led, func(ctx context.Context) error {
		pid, err = db.New(unprepared{w.conn}).Backend(ctx)
		return err
	})
	return pid, err
}

// every is how often the session proves its locks.
func (s *poolSession) every() time.Duration {
	if s.kept > 0 {
		return min(s.kept/3, s.p.heartbeat)
	}
	return s.p.heartbeat
}

// opened waits until the session is open, or has failed to.
func (s *poolSession) opened(ctx context.Context) error {
	select {
	case <-s.ready:
		return s.failed
	case <-ctx.Done():
		return s.p.scarce(notAcquired(ctx))
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

// spare says whether the *sql.DB has a connection to give, and keep more besides.
func (p *Pool) spare(keep int) bool {
	st := p.db.Stats()
	return st.MaxOpenConnections == 0 || st.InUse+keep < st.MaxOpenConnections
}

// scarce adds to err that the *sql.DB has no connection to give.
func (p *Pool) scarce(err error) error {
	if p.spare(0) {
		return err
	}
	return fmt.Errorf("all %d connections of the *sql.DB are in use: raise SetMaxOpenConns: %w", p.db.Stats().MaxOpenConnections, err)
}

// freed tells the pool that h is not on the session any more.
func (s *poolSession) freed(h *hold) { s.p.unclaim(h) }

// flush unlocks, soon, what has ended by itself. led.mu is held.
func (s *poolSession) flush() {
	if len(s.led.owed) > 0 {
		s.p.spawn(func() { s.solo(func(context.Context) error { return nil }) })
	}
}

// heartbeat proves the session's locks.
func (s *poolSession) heartbeat() {
	if err := s.do(context.Background(), &op{kind: refreshing}); err != nil && !errors.Is(err, errPoolClosed) {
		s.p.log.Warn("pglock: heartbeat failed", "err", err)
	}
}

// rest gives the connection back when the session has held nothing for long.
func (s *poolSession) rest(ctx context.Context) {
	const long = time.Minute
	s.led.mu.Lock()
	empty := len(s.led.locks) == 0
	s.led.mu.Unlock()
	if !empty {
		s.empty = time.Time{}
	} else if s.empty.IsZero() {
		s.empty = time.Now()
	} else if time.Since(s.empty) > long && s.p.forget(s, true) {
		if err := s.shut(ctx); err != nil {
			s.p.log.Warn("pglock: closing an idle session", "err", err)
		}
		return
	}
	s.beat.Reset(s.every())
}

// shut releases what the session still has and gives the connection back as it
// was.
func (s *poolSession) shut(ctx context.Context) error {
	s.beat.Stop()
	s.shutd = true
	var errs []error
	for _, t := range s.led.ticketsOf(s.w) {
		errs = append(errs, s.w.drop(ctx, t))
	}
	for _, h := range s.led.takenBy(s.w) {
		if err := s.w.unlock(ctx, h); err != nil && !errors.Is(err, errDropped) && !errors.Is(err, swanlock.ErrExpired) {
			errs = append(errs, fmt.Errorf("pglock: release %s: %w", quote(h.info.Target), err))
		}
	}
	s.w.settle(ctx, s.led) // what has ended by itself
	if s.led.alive() != nil {
		return errors.Join(errs...)
	}
	if s.lease > 0 {
		if err := s.w.ask(ctx, s.led, func(ctx context.Context) error {
			_, err := s.w.q.PoolShut(ctx, db.PoolShutParams{Pid: s.pid, Idle: s.before.idle, IdleInTransaction: s.before.idleInTransaction})
			return err
		}); err != nil {
			s.w.destroy(s.led, err)
			return errors.Join(errs...)
		}
	}
	s.led.mu.Lock()
	s.led.pool, s.led.lease = nil, lease{}
	s.led.mu.Unlock()
	return errors.Join(append(errs, s.w.unprepare(ctx, s.led), s.w.conn.Close())...)
}
