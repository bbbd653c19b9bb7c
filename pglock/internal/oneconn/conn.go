package oneconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/swanlake-io/swanlock/internal/rawconn"
)

// Do returns these errors, beside those of the driver and of the function that
// it runs.
var (
	// ErrNotSent says that the context had ended before the connection was free,
	// so that nothing was sent.
	ErrNotSent = errors.New("the connection was in use until the context ended")

	// ErrBusy says that the connection's owner is reading rows from it. Nothing
	// was sent.
	ErrBusy = errors.New("the connection is busy: close its Rows first")

	// ErrSilent says that the server did not answer in time. What the statement
	// did is not known, and the connection is closed.
	ErrSilent error = silent{}
)

// silent is a net.Error, since a server that does not answer is like a broken
// network.
type silent struct{}

func (silent) Error() string   { return "the server did not answer in time" }
func (silent) Timeout() bool   { return true }
func (silent) Temporary() bool { return true }

// A Conn sends statements on a *sql.Conn, to the driver itself: database/sql
// registers each statement and its rows, which is a quarter of the client's work,
// and closes a connection that was only busy. Its callers take turns.
type Conn struct {
	conn   *sql.Conn
	text   func(query string) string
	stmts  map[string]driver.Stmt // by query; nil: nothing is prepared
	watch  watch
	busy   func() bool // nil until Do has run
	status func() byte // nil: it is not known
	on     driver.Conn // while Do runs
}

// New returns a Conn that prepares each statement once, on its first use, so
// that later calls are one round trip with every driver. The statement that is
// sent for a query is text(query).
func New(conn *sql.Conn, text func(query string) string) *Conn {
	return &Conn{conn: conn, text: text, stmts: make(map[string]driver.Stmt)}
}

// Unprepared returns a Conn that leaves no prepared statement on the
// connection.
func Unprepared(conn *sql.Conn, text func(query string) string) *Conn {
	return &Conn{conn: conn, text: text}
}

// SQL returns the connection that c sends on.
func (c *Conn) SQL() *sql.Conn { return c.conn }

// Patience is how long a server may take to answer before a Waiter is asked.
const Patience = 5 * time.Second

// A Waiter decides how long to wait for a statement that takes long.
type Waiter interface {
	// Silent is called when the server has not answered for the time since. It
	// returns how much longer to wait, or 0 when the session is to be ended.
	Silent(since time.Duration) (more time.Duration)
}

// Do runs f, which sends statements with the methods of c, while nothing else
// can use the connection. It first waits for a statement of the owner's own; if
// ctx ends meanwhile, it does not run f. The context of f has the values of
// ctx, but does not end with it, because a driver that cancels a statement may
// end the session. If f takes longer than w allows, the connection is closed,
// and the error is ErrSilent. Do does not return before f does, and so never if
// the driver does not return.
func (c *Conn) Do(ctx context.Context, w Waiter, f func(ctx context.Context) error) error {
	var err error
	unusable := rawconn.Raw(c.conn, func(driverConn any) error {
		if ctx.Err() != nil {
			err = ErrNotSent
			return nil
		}
		on, ok := driverConn.(driver.Conn)
		if !ok {
			err = errors.ErrUnsupported
			return nil
		}
		if c.busy == nil {
			c.busy, c.status = rowsOpen(on), statusOf(on)
		}
		if c.busy() {
			err = ErrBusy
			return nil
		}
		if err = c.watched(ctx, on, w, f); err != nil && saysBusy(err) {
			err = ErrBusy
		}
		return nil // database/sql would close the connection over ErrBadConn
	})
	if unusable != nil {
		return unusable
	}
	return err
}

// watched runs f, and bounds how long it takes. f may panic, as the driver may.
func (c *Conn) watched(ctx context.Context, on driver.Conn, w Waiter, f func(ctx context.Context) error) (err error) {
	c.on = on
	life := c.watch.start(on, w)
	defer func() {
		if !c.watch.stop(life) {
			err = ErrSilent
		}
		c.on = nil
	}()
	return f(detached{life, ctx})
}

// noTransaction is the status of a session on which no transaction is open.
const noTransaction = 'I'

// KnowsTransactions reports whether the next two methods can tell. It is false until
// Do has run, and for a driver that is not known: then they report false.
func (c *Conn) KnowsTransactions() bool { return c.status != nil }

// InTransaction reports whether the connection's owner has a transaction open. It is
// to be called by what Do runs.
func (c *Conn) InTransaction() bool { return c.status != nil && c.status() != noTransaction }

// OutsideTransaction reports whether no transaction is open, so that the next
// statement is one of its own. It is to be called by what Do runs.
func (c *Conn) OutsideTransaction() bool { return c.status != nil && c.status() == noTransaction }

func fromPq(on driver.Conn) bool { return packageOf(on) == "github.com/lib/pq" }

// Forget closes the prepared statements, for which it asks the server too. The
// next use prepares them again. It must be called inside Do.
func (c *Conn) Forget() error {
	var errs []error
	for query, stmt := range c.stmts {
		errs = append(errs, stmt.Close())
		delete(c.stmts, query)
	}
	return errors.Join(errs...)
}
