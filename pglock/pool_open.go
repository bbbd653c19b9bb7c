package pglock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// connecting is how long a new session may take, if no caller has a later deadline.
const connecting = 10 * time.Second

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
		s.failed = (&opening{s, ctx, time.Now()}).run()
		if s.failed == nil || !cutOff(s.failed) || ctx.Err() != nil || errors.Is(s.failed, errSessionGone) { // errSessionGone: see guest.connection
			break
		}
	}
	if s.failed != nil {
		if s.p.life.Err() != nil { // Close has cut the attempt short.
			s.failed = errPoolClosed
		}
		s.p.sessions.forget(s, false)
	}
}

// An opening takes one connection, and makes its session one of the pool.
type opening struct {
	s     *poolSession
	ctx   context.Context
	began time.Time
}

func (o *opening) run() error {
	s := o.s
	conn, err := s.p.guest.connection(o.ctx, s.p.sessions.hasOther(s))
	if err != nil {
		if o.ctx.Err() != nil {
			err = context.Cause(o.ctx)
		}
		return s.p.guest.scarce(fmt.Errorf("no connection: %w", err))
	}
	s.a = newAccess(s.p.config, oneconn.New(conn, db.OneLine))
	s.a.endElsewhere = s.p.errands.endBackend
	tn, err := o.identify()
	if err != nil {
		conn.Close()
		return err
	}
	defer tn.give()
	s.led = tn.led
	tn.led.silence.callers.Store(&s.callers)
	if _, err := tn.led.enter(conn, request{}); err != nil {
		return errors.Join(err, conn.Close())
	}
	if err := tn.settle(); err != nil { // It may have been given back with locks on it,
		return errors.Join(err, conn.Close())
	}
	if err := confirm(tn); err != nil { // or with a lease that a rollback has brought back.
		return errors.Join(err, conn.Close())
	}
	if err := o.begin(tn); err != nil {
		tn.destroy(err)
		return err
	}
	return nil
}

// identify finds out which session the connection has, and returns that
// session's turn.
func (o *opening) identify() (turn, error) {
	s := o.s
	tn, err := s.a.takeAlways()
	if err != nil {
		return tn, err
	}
	tn.led.silence.callers.Store(&s.callers)
	if err = s.p.errands.direct(o.ctx, tn, o.began); err == nil {
		err = tn.mark(o.ctx)
	}
	if err != nil {
		tn.destroy(err)
		tn.give()
		return tn, err
	}
	if tn.led.who.isKnown() {
		return tn, nil
	}
	tn.give()
	return s.a.takeAlways()
}

// begin sets the session's lease and other settings, and makes s its owner.
func (o *opening) begin(tn turn) error {
	s := o.s
	var params string
	wanted := s.leaseNow()
	if wanted > 0 {
		params = timeouts{}.of(wanted).idleInTransaction
	}
	sent := time.Now()
	row, err := ask(o.ctx, tn, (*db.Queries).PoolOpen, params)
	if err != nil {
		return explain(err, false)
	}
	s.pid, s.savedSettings, s.before = row.Pid, timeouts{row.Idle, row.IdleInTransaction}, row.Before
	s.p.sessions.measured(row.Room)
	tn.led.deadlock = time.Duration(row.DeadlockMs) * time.Millisecond
	kept := wanted
	if wanted > 0 {
		tn.warnLeaseless(s.savedSettings)
	} else {
		kept = time.Duration(row.IdleMs) * time.Millisecond
	}
	s.pulse.keep(kept)
	tn.led.own(s, kept, sent)
	s.pulse.next()
	return nil
}
