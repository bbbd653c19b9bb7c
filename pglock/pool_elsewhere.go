package pglock

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// errands do what a pool needs done on a connection of the *sql.DB that is none
// of its own sessions: they look for a pooler, cancel a session's statement, or
// end a session.
type errands struct {
	*guest
	*background
	log      *slog.Logger
	noPooler atomic.Bool // it was found that no pooler in transaction mode is in between
}

// direct returns ErrPooler if a pooler in transaction mode is in between. It
// looks once for each pool, before anything is set or prepared: such a pooler
// shows when two connections share one backend, or when one connection has two.
// began is when the first connection was asked for. The second is not waited
// for much longer than that one took, since the *sql.DB may have no other.
func (e *errands) direct(ctx context.Context, tn turn, began time.Time) error {
	if e.noPooler.Load() {
		return nil
	}
	first, err := tn.askBackend(ctx)
	if err != nil {
		return err
	}
	another, unknown := e.anotherBackend(ctx, min(max(100*time.Millisecond, 3*time.Since(began)), time.Second))
	if state := sqlState(unknown); state == duplicatePreparedStatement || state == noPreparedStatement {
		return explain(unknown, false) // The first connection prepared it on the same backend.
	}
	if unknown == nil && another == first {
		return fmt.Errorf("%w (two connections share the backend %d)", ErrPooler, another)
	}
	if again, err := tn.askBackend(ctx); err != nil {
		return err
	} else if again != first {
		return fmt.Errorf("%w (process %d, then %d)", ErrPooler, first, again)
	}
	e.noPooler.Store(unknown == nil)
	return nil
}

// anotherBackend returns the backend of one more connection, or 0 if the
// *sql.DB has none to give. It is an error if there was no answer within d. A
// connection that answers later is closed, since others may be waiting for one.
func (e *errands) anotherBackend(ctx context.Context, d time.Duration) (pid int32, err error) {
	if !e.spare(0) {
		return 0, nil // The *sql.DB has no other connection.
	}
	soon, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	type answer struct {
		pid int32
		err error
	}
	came := make(chan answer, 1)
	if !e.spawn(func() {
		var a answer
		a.pid, a.err = e.askAnother(soon)
		came <- a
	}) {
		return 0, errPoolClosed
	}
	select {
	case a := <-came:
		return a.pid, a.err
	case <-soon.Done():
		return 0, soon.Err()
	}
}

// askAnother returns the backend of a connection of the *sql.DB. The connection
// goes back if it answers before ctx ends, and is closed otherwise.
func (e *errands) askAnother(ctx context.Context) (pid int32, err error) {
	err = e.run(ctx, func(tn turn) (err error) {
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

// endBackend ends, in the background, a session of the pool that has not
// confirmed its end. Its connection may have been cut off without the server's
// knowledge.
func (e *errands) endBackend(session db.EndBackendParams) {
	e.spawn(func() {
		bound := connecting / 2
		if e.life.Err() != nil { // Close waits for this
			bound = 2 * grace
		}
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		err := e.run(ctx, func(tn turn) error {
			_, err := ask(ctx, tn, (*db.Queries).EndBackend, session)
			return err
		})
		if err != nil {
			e.log.Warn("pglock: a session that is lost may still have its locks", "pid", session.Pid, "err", err)
		}
	})
}

// cancelling is how long the cancel of a statement may take.
const cancelling = 2 * time.Second

// cancelBackend cancels, in the background, the statement that a session of the
// pool waits for. That fails one call, and saves the session's locks. cancelled is
// called with whether it hit, and done when it cannot hit a later statement any
// more.
func (e *errands) cancelBackend(session db.CancelBackendParams, cancelled func(bool), done func()) {
	cancel := func() {
		defer done()
		ctx, end := context.WithTimeout(context.Background(), cancelling)
		defer end()
		err := e.run(ctx, func(tn turn) error {
			hit, err := ask(ctx, tn, (*db.Queries).CancelBackend, session)
			cancelled(hit)
			return err
		})
		if err != nil {
			e.log.Warn("pglock: a statement that takes long could not be cancelled", "pid", session.Pid, "err", err)
		}
	}
	if !e.spare(0) || !e.spawn(cancel) {
		done()
	}
}

// run runs f on a connection of the *sql.DB that is no session of the pool, if
// there is one to be had before ctx ends.
func (e *errands) run(ctx context.Context, f func(turn) error) error {
	conn, err := e.conn(ctx)
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
