package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// An access is one locker's way to a PostgreSQL session: its options, its
// connection and its statements.
type access struct {
	*config
	conn   *oneconn.Conn
	q      *db.Queries // through conn
	closed atomic.Bool // the Session was closed
	led    atomic.Pointer[ledger]
	hint   lineHint
	beat   beat

	// endElsewhere ends, through another connection and in the background, a session
	// that has not said that it ends. It is nil where there is no other connection.
	endElsewhere func(db.EndBackendParams)
}

func newAccess(c *config, conn *oneconn.Conn) *access {
	return &access{config: c, conn: conn, q: db.New(conn)}
}

// sql returns the connection.
func (a *access) sql() *sql.Conn { return a.conn.SQL() }

// ledger returns the ledger of the session. The first call waits until no
// statement of the connection's owner is under way, as sql.Conn.Raw does, or ctx
// has ended and grace has passed (oneconn.ErrNotSent); later ones do not wait.
func (a *access) ledger(ctx context.Context, grace time.Duration) (*ledger, error) {
	if led := a.led.Load(); led != nil {
		return led.current(), nil
	}
	return within(ctx, grace, func() (*ledger, error) {
		led, err := ledgerOf(a.sql())
		if err == nil {
			a.led.Store(led)
		}
		return led, err
	}, func(*ledger) {}, oneconn.ErrNotSent)
}

// take waits for the turn until ctx ends. It marks the session if that was not
// done yet, so that the turn it returns is that of a session which is known.
func (a *access) take(ctx context.Context) (turn, error) {
	for {
		tn, err := a.takeOnce(ctx)
		switch {
		case err != nil, tn.isKnown(), tn.closed.Load():
			return tn, err
		case tn.led.current() != tn.led: // found out by another call, while this one waited
			tn.give()
			continue
		}
		err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error { return tn.mark(ctx) }, func(turn, error) {})
		if err != nil {
			return turn{}, unanswered(ctx, err)
		}
	}
}

func (a *access) takeOnce(ctx context.Context) (turn, error) {
	if ctx.Err() != nil {
		return turn{}, notAcquired(ctx)
	}
	led, err := a.ledger(ctx, 0)
	if err == nil {
		err = led.take(ctx)
	}
	if err != nil {
		return turn{}, unanswered(ctx, err)
	}
	return turn{access: a, led: led}, nil
}

// takeAlways waits for the turn for as long as the session lives.
func (a *access) takeAlways() (turn, error) {
	led, err := a.ledger(context.Background(), 0)
	if err != nil {
		return turn{}, err
	}
	return turn{a, led}.takeAlways()
}

// takeAlways waits for the turn of tn's session, for as long as the session
// lives, and returns it. tn itself may have been given before.
func (tn turn) takeAlways() (turn, error) {
	for {
		tn.led = tn.led.current()
		if err := tn.led.takeAlways(); err != nil {
			return tn, err
		}
		if tn.led.current() == tn.led {
			return tn, nil
		}
		tn.give()
	}
}

// warnLeaseless logs, once, that this server keeps no lease.
func (a *access) warnLeaseless(saved timeouts) {
	if saved.idle == "" {
		a.leaseless.Do(func() {
			a.log.Warn("pglock: the server has no idle_session_timeout (PostgreSQL 14+): the TTL is kept by the holder alone")
		})
	}
}

// A turn is the exclusive use of a session. Only a turn has the methods that
// send statements, so code that can send has the session. It must not be used
// after give.
type turn struct {
	*access         // of the locker that has the turn
	led     *ledger // what the session holds
}

func (tn turn) give() {
	tn.led.midway = false
	tn.led.turns.Give()
}

// do runs f, which sends the statements of package db, on the session. If ctx ends
// before the connection is free, nothing is sent. A statement that was sent is not
// cut short by ctx: a driver that cancels one may end the session with it, and what
// the statement did would not be known.
func (tn turn) do(ctx context.Context, f func(context.Context) error) error {
	tn.led.cancelled.Store(false)
	err := tn.conn.Do(ctx, tn.led, f)
	if errors.Is(err, ErrBusy) && tn.led.midway {
		err = tn.behindRows(ctx, f)
	}
	if sqlState(err) == noPreparedStatement {
		// DISCARD ALL or DEALLOCATE took the prepared statement, so it did not
		// run.
		if gone := tn.unprepare(); gone != nil {
			return gone
		}
		err = tn.conn.Do(ctx, tn.led, f)
	}
	if err == nil || sqlState(err) != "" {
		tn.led.spoke.Store(true)
	}
	tn.led.midway = tn.led.midway || !notSent(err)
	tn.counts.sent(err)
	tn.led.answered()
	return err
}

// behindRows is do for a statement that follows another of the same turn, while
// the connection's owner has Rows open. What the first statement did may have
// to be undone, so this one waits for the Rows to be closed, for patience.
func (tn turn) behindRows(ctx context.Context, f func(context.Context) error) (err error) {
	err = ErrBusy
	pace := newPause()
	for over := time.Now().Add(patience); errors.Is(err, ErrBusy) && time.Now().Before(over); {
		time.Sleep(pace.next())
		err = tn.conn.Do(ctx, tn.led, f)
	}
	return err
}

// ask sends one of the statements of package db.
func ask[P, R any](ctx context.Context, tn turn, statement func(*db.Queries, context.Context, P) (R, error), params P) (R, error) {
	return askAs(ctx, tn, tn.q, statement, params)
}

// askAs is ask for a statement of q.
func askAs[P, R any](ctx context.Context, tn turn, q *db.Queries, statement func(*db.Queries, context.Context, P) (R, error), params P) (row R, err error) {
	err = tn.do(ctx, func(ctx context.Context) (err error) {
		row, err = statement(q, ctx, params)
		return err
	})
	return row, err
}

// look is ask for a statement whose loss does no harm. If the server has
// refused it, the session lives on; if the server has not answered, the session
// is destroyed.
func look[P, R any](ctx context.Context, tn turn, statement func(*db.Queries, context.Context, P) (R, error), params P) (row R, err error) {
	row, err = ask(ctx, tn, statement, params)
	if err != nil && sqlState(err) == "" && !notSent(err) {
		tn.destroy(err)
	}
	return row, err
}

// errInTransaction says that nothing was sent, since the connection's owner has a
// transaction open.
var errInTransaction = errors.New("the connection's owner has a transaction open")

// outside returns errInTransaction if the connection's owner has a transaction open:
// what nobody asked for at that moment may not take its snapshot, nor make it fail.
func (tn turn) outside(ctx context.Context) error {
	return tn.do(ctx, func(context.Context) error {
		if tn.conn.InTransaction() {
			return errInTransaction
		}
		return nil
	})
}

// notSent reports whether err says that nothing was sent.
func notSent(err error) bool {
	return errors.Is(err, oneconn.ErrNotSent) || errors.Is(err, ErrBusy) || errors.Is(err, errInTransaction)
}

// unprepare forgets the prepared statements.
func (tn turn) unprepare() error {
	err := tn.conn.Do(context.Background(), tn.led, func(context.Context) error {
		err := tn.conn.Forget()
		if sqlState(err) != "" { // The server had forgotten them already.
			err = nil
		}
		return err
	})
	if err != nil && !notSent(err) { // pgx closes a connection that does not answer in time.
		tn.destroy(err)
	}
	return err
}

// mark writes the session's token to its backend, as the setting
// swanlock.session: the statements that take locks work on no other backend.
// Whatever its error, no lock was taken. If the session turns out to be one
// that has a ledger already, this turn is not the turn of that ledger: see
// current.
func (tn turn) mark(ctx context.Context) error { return tn.markInstead(ctx, "") }

// markInstead is mark for a session whose present mark may be replaced if it is
// instead.
func (tn turn) markInstead(ctx context.Context, instead string) error {
	row, err := ask(ctx, tn, (*db.Queries).Mark, db.MarkParams{Session: tn.led.token, Instead: instead})
	switch {
	case err != nil:
		if cutOff(err) && !notSent(err) {
			tn.destroy(err)
		}
		if state := sqlState(err); state == noFunction || state == noObject || state == syntaxError {
			return fmt.Errorf("the server lacks what every PostgreSQL has, so use the package leaselock: %w: %w", errors.ErrUnsupported, err)
		}
		return explain(err, false)
	case row.Answer == pretends:
		return errPretends
	case row.Answer == onStandby:
		return ErrStandby
	}
	switch former, other := formerOf(tn.led, row, instead); {
	case former == abandonedSession:
		return tn.adopt(ctx, other, row)
	case former == endedSession:
		tn.led.marks(row)
		tn.destroy(errEnded)
		return errEnded
	case row.Answer == notOurs && former == emptySession:
		return tn.markInstead(ctx, row.Before)
	case row.Answer == notOurs:
		return fmt.Errorf("%w (process %d has locks for another client)", ErrPooler, row.Pid)
	}
	tn.led.marks(row)
	if !tn.led.marked { // Otherwise mark was called to find the audit's table.
		tn.led.read(row)
	}
	tn.led.marked, tn.led.schema = true, row.Schema
	return nil
}

// destroy ends the session, which frees its locks for certain. The holders of
// its locks are told before that.
func (tn turn) destroy(cause error) {
	if notSent(cause) { // It is not that to those who meet the session's end later.
		cause = errors.New(cause.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	me := db.EndBackendParams{Pid: tn.led.backend, Started: tn.led.started}
	var confirmed atomic.Bool
	// A session that was never marked has no lock of ours.
	confirmed.Store(me.Pid == 0 || sqlState(cause) == adminShutdown)
	err := tn.conn.End(ctx, func() { tn.led.lose(cause) }, func(ctx context.Context, c *oneconn.Conn) {
		if !confirmed.Load() {
			confirmed.Store(endsItself(ctx, c, me))
		}
	})
	switch {
	case errors.Is(err, sql.ErrConnDone) && !tn.led.owned():
		// The session is dead, or its owner has given it back to the *sql.DB.
		tn.led.abandon(tn.sql(), fmt.Errorf("%w: %w", cause, err))
		return
	case errors.Is(err, ErrBusy):
		tn.log.Error("pglock: the connection is in use and could not be closed: its locks live until it is closed", "cause", cause)
	}
	tn.led.lose(cause)
	if !confirmed.Load() && tn.endElsewhere != nil {
		tn.endElsewhere(me)
	}
}
