package pglock

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file is for what a pool does on a connection of the *sql.DB that is none
// of its own sessions: it looks for a pooler, cancels a session's statement, or
// ends a session.

// anotherBackend returns the backend of one more connection, or 0 if the
// *sql.DB has none to give. ok is false if there was no answer within d. A
// connection that answers later is closed, since others may be waiting for one.
func (p *Pool) anotherBackend(ctx context.Context, d time.Duration) (pid int32, ok bool) {
	if !p.spare(0) {
		return 0, true // The *sql.DB has no other connection.
	}
	soon, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	type answer struct {
		pid int32
		err error
	}
	came := make(chan answer, 1)
	if !p.spawn(func() {
		var a answer
		a.pid, a.err = p.askAnother(soon)
		came <- a
	}) {
		return 0, false
	}
	select {
	case a := <-came:
		return a.pid, a.err == nil
	case <-soon.Done():
		return 0, false
	}
}

// askAnother returns the backend of a connection of the *sql.DB. The connection
// goes back if it answers before ctx ends, and is closed otherwise.
func (p *Pool) askAnother(ctx context.Context) (pid int32, err error) {
	err = p.elsewhere(ctx, func(tn turn) (err error) {
		if pid, err = tn.askBackend(ctx); ctx.Err() != nil {
			tn.destroy(context.Cause(ctx))
		}
		return err
	})
	return pid, err
}

// askBackend returns the backend of the connection, and leaves no prepared
// statement.
func (tn turn) askBackend(ctx context.Context) (pid int32, err error) {
	other := tn
	other.access = plain(tn.sql())
	err = other.do(ctx, func(ctx context.Context) (err error) {
		pid, err = other.q.Backend(ctx)
		return err
	})
	return pid, err
}

// conn takes a connection of the *sql.DB. lib/pq does not look at ctx while it
// connects, so conn may return before it; a connection that comes later goes
// back.
func (p *Pool) conn(ctx context.Context) (*sql.Conn, error) {
	return within(ctx, grace, func() (*sql.Conn, error) { return p.db.Conn(ctx) },
		func(conn *sql.Conn) { conn.Close() }, errNotAccepted)
}

var errNotAccepted = errors.New("the server did not accept it in time")

// endBackend ends, in the background, a session of the pool that has not
// confirmed its end. Its connection may have been cut off without the server's
// knowledge.
func (p *Pool) endBackend(session db.EndBackendParams) {
	p.spawn(func() {
		bound := connecting / 2
		if p.life.Err() != nil { // Close waits for this
			bound = 2 * grace
		}
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		err := p.elsewhere(ctx, func(tn turn) error {
			_, err := ask(ctx, tn, (*db.Queries).EndBackend, session)
			return err
		})
		if err != nil {
			p.log.Warn("pglock: a session that is lost may still have its locks", "pid", session.Pid, "err", err)
		}
	})
}

// slow has the statement cancelled that the session waits for. That fails one
// call, and saves the session's locks. done is called when the cancel cannot
// hit a later statement any more.
func (s *poolSession) slow(session db.CancelBackendParams, done func()) {
	cancel := func() {
		defer done()
		ctx, end := context.WithTimeout(context.Background(), cancelling)
		defer end()
		err := s.p.elsewhere(ctx, func(tn turn) error {
			cancelled, err := ask(ctx, tn, (*db.Queries).CancelBackend, session)
			s.led.silence.cancelled.Store(cancelled)
			return err
		})
		if err != nil {
			s.p.log.Warn("pglock: a statement that takes long could not be cancelled", "pid", session.Pid, "err", err)
		}
	}
	if !s.p.spare(0) || !s.p.spawn(cancel) {
		done()
	}
}

// cancelling is how long the cancel of a statement may take.
const cancelling = 2 * time.Second

// elsewhere runs f on a connection of the *sql.DB that is no session of the
// pool, if there is one to be had before ctx ends.
func (p *Pool) elsewhere(ctx context.Context, f func(turn) error) error {
	conn, err := p.conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	tn, err := plain(conn).takeAlways()
	if err != nil {
		return err
	}
	defer tn.give()
	return f(tn)
}
