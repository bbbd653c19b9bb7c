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

// takeOf waits for the turn of the session of led until ctx ends, or the server
// is silent.
func (a *access) takeOf(ctx context.Context, led *ledger) (turn, error) {
	if led.turns.Take(ctx, led.gone, led.silence.quiet()) {
		return turn{a, led}, nil
	}
	if err := led.alive(); err != nil {
		return turn{}, err
	}
	if ctx.Err() != nil {
		return turn{}, notAcquired(ctx)
	}
	return turn{}, oneconn.ErrSilent
}

// takeAlways waits for the turn for as long as the session lives.
func (a *access) takeAlways() (turn, error) {
	led, err := a.ledger(context.Background(), 0)
	if err != nil {
		return turn{}, err
	}
	return turn{a, led}.takeAlways()
}

// warnLeaseless logs, once, that this server keeps no lease.
func (a *access) warnLeaseless(saved timeouts) {
	if saved.idle == "" {
		a.leaseless.Do(func() {
			a.log.Warn("pglock: the server has no idle_session_timeout (PostgreSQL 14+): the TTL is kept by the holder alone")
		})
	}
}

// A turn is the exclusive use of a session. Statements are sent by turns alone, so
// a function that is given one may send, and may use what the ledger has for the
// holder of the turn. It must not be used after give.
type turn struct {
	*access         // of the locker that has the turn
	led     *ledger // what the session holds
}

// takeAlways waits for the turn of tn's session, for as long as the session
// lives, and returns it. tn itself may have been given before.
func (tn turn) takeAlways() (turn, error) {
	for {
		tn.led = tn.led.current()
		if !tn.led.turns.Take(context.Background(), tn.led.gone, nil) {
			return tn, tn.led.alive()
		}
		if tn.led.current() == tn.led {
			return tn, nil
		}
		tn.give()
	}
}

func (tn turn) give() {
	tn.led.midway, tn.led.inVain = false, nil
	tn.led.turns.Give()
}

// do runs f, which sends the statements of package db, on the session. If ctx ends
// before the connection is free, nothing is sent. A statement that was sent is not
// cut short by ctx: a driver that cancels one may end the session with it, and what
// the statement did would not be known.
func (tn turn) do(ctx context.Context, f func(context.Context) error) error {
	tn.led.silence.cancelled.Store(false)
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
		tn.led.silence.spoke.Store(true)
	}
	tn.led.midway = tn.led.midway || !notSent(err)
	tn.counts.sent(err)
	tn.led.silence.answered()
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

// askWhere is ask with parameters that depend on whether it is certain that the
// statement is in no transaction of the caller's.
func askWhere[P, R any](ctx context.Context, tn turn, statement func(*db.Queries, context.Context, P) (R, error), params func(outside bool) P) (row R, err error) {
	err = tn.do(ctx, func(ctx context.Context) (err error) {
		row, err = statement(tn.q, ctx, params(tn.conn.OutsideTransaction()))
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

// sees returns what f, a method of oneconn.Conn, says of the transaction of the
// connection's owner, and false if the connection is not free. It sends nothing.
func (tn turn) sees(f func() bool) (is bool) {
	tn.conn.Do(context.Background(), tn.led, func(context.Context) error {
		is = f()
		return nil
	})
	return is
}

// readOnly reports whether the connection's owner has a transaction open that is
// read-only: a row that cannot be written would make it fail, and with it what
// follows. It reports false for a driver that is not known.
func (tn turn) readOnly() (is bool) {
	if tn.sees(tn.conn.InTransaction) {
		tn.do(context.Background(), func(ctx context.Context) (err error) {
			is, err = tn.q.ReadOnly(ctx)
			return err
		})
	}
	return is
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

// destroy ends the session, which frees its locks for certain. The holders of
// its locks are told before that.
func (tn turn) destroy(cause error) {
	closed := errors.Is(cause, sql.ErrConnDone)
	if notSent(cause) { // It is not that to those who meet the session's end later.
		cause = errors.New(cause.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	me := db.EndBackendParams{Pid: tn.led.who.pid, Started: tn.led.who.started}
	var confirmed atomic.Bool
	// A session that was never marked has no lock of ours.
	confirmed.Store(me.Pid == 0 || sqlState(cause) == adminShutdown)
	err := tn.conn.End(ctx, func() { tn.led.lose(cause) }, func(ctx context.Context, c *oneconn.Conn) {
		if !confirmed.Load() {
			confirmed.Store(endsItself(ctx, c, me))
		}
	})
	_, owned, _ := tn.led.state()
	switch {
	case errors.Is(err, sql.ErrConnDone) && !owned:
		// The session is dead, or its owner has given it back to the *sql.DB.
		if closed {
			cause = errClosed
		} else {
			cause = fmt.Errorf("%w: %w", cause, err)
		}
		tn.led.abandon(tn.sql(), cause)
		return
	case errors.Is(err, ErrBusy):
		tn.log.Error("pglock: the connection is in use and could not be closed: its locks live until it is closed", "cause", cause)
	}
	tn.led.lose(cause)
	if !confirmed.Load() && tn.endElsewhere != nil {
		tn.endElsewhere(me)
	}
}

// endsItself asks a session to end, and reports whether the server has
// confirmed it. A session whose transaction has failed cannot be asked.
func endsItself(ctx context.Context, c *oneconn.Conn, session db.EndBackendParams) bool {
	_, err := db.New(c).EndBackend(ctx, session)
	if state := sqlState(err); state != "" && state != adminShutdown {
		_, err = db.New(c).EndWhenIdle(ctx)
	}
	return err == nil || sqlState(err) == adminShutdown
}

// A call is the wait of one caller for a goroutine that does its work. When the
// caller stops waiting, the goroutine goes on, and undoes what it has done.
type call struct {
	state atomic.Int32  // calling, returned or left
	done  chan struct{} // closed when the goroutine has finished
	err   error
	panic any
}

const (
	calling int32 = iota
	returned
	left
)

// run calls f with the turn, in a goroutine that gives the turn afterwards, and
// returns the error of f. It waits until ctx ends or the server is silent, and
// for grace after that; then it returns errLeft. If f returns later, undo is
// called with its error.
func (tn turn) run(ctx context.Context, grace time.Duration, f func(context.Context, turn) error, undo func(turn, error)) error {
	return tn.wait(ctx, grace, func() error { return f(ctx, tn) }, func(err error) { undo(tn, err) }, tn.give)
}

// soon is run for work that must be done even if the caller leaves. It takes
// the turn itself, in the goroutine.
func (tn turn) soon(ctx context.Context, f func(turn) error) error {
	return tn.wait(ctx, cleanupGrace(ctx), func() error {
		tn, err := tn.takeAlways()
		if err != nil {
			return err
		}
		defer tn.give()
		return f(tn)
	}, func(error) {}, func() {})
}

func (tn turn) wait(ctx context.Context, grace time.Duration, f func() error, undo func(error), end func()) error {
	defer tn.led.silence.awaitFirst(ctx)()
	c := &call{done: make(chan struct{})}
	go c.do(tn.led, f, undo, end)
	quiet := tn.led.silence.quiet()
	select {
	case <-c.done:
		return c.result()
	case <-ctx.Done():
	case <-quiet:
	case <-tn.led.gone:
	}
	if sleepUntil(c.done, grace) {
		return c.result()
	}
	if !c.state.CompareAndSwap(calling, left) {
		<-c.done
		return c.result()
	}
	err := tn.led.alive()
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		err = oneconn.ErrSilent
	}
	return fmt.Errorf("%w: %w", errLeft, err)
}

func (c *call) do(led *ledger, f func() error, undo func(error), end func()) {
	defer func() {
		if c.panic = recover(); c.panic != nil {
			led.lose(fmt.Errorf("the driver panicked: %v", c.panic))
			c.state.CompareAndSwap(calling, returned)
		}
		end()
		close(c.done)
	}()
	c.err = f()
	if !c.state.CompareAndSwap(calling, returned) {
		undo(c.err)
	}
}

func (c *call) result() error {
	if c.panic != nil {
		panic(c.panic)
	}
	return c.err
}
