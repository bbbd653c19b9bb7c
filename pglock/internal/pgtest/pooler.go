package pgtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
)

// A Pooler is a connection that, like PgBouncer in transaction mode, hands each
// statement to another server connection than the one before, and prepares
// statements where they are missing.
type Pooler struct {
	Next      int  // the backend of the next statement, 0 or 1
	Fixed     bool // Next does not change
	Forgetful bool // it does not prepare statements where they are missing

	backends [2]driver.Conn
	inUse    sync.RWMutex // read-locked by each statement, until its rows are closed
	down     bool         // guarded by inUse
}

// A noStatement is what the server says of a prepared statement that it lacks.
type noStatement struct{}

func (noStatement) Error() string    { return "prepared statement does not exist" }
func (noStatement) SQLState() string { return "26000" }

// A PoolerDriver makes poolers of another driver's connections. Each of Modes has
// one: "pooled pgx" and so on.
type PoolerDriver struct{ driver.Driver }

func (d PoolerDriver) Open(url string) (driver.Conn, error) {
	p := &Pooler{}
	for i := range p.backends {
		conn, err := d.Driver.Open(url)
		if err != nil {
			return nil, err
		}
		p.backends[i] = conn
	}
	return p, nil
}

// backend is the server's end of the next statement: one that lives.
func (p *Pooler) backend() driver.Conn {
	conn := p.backends[p.Next]
	if _, err := conn.(driver.ExecerContext).ExecContext(Background, "SELECT 1", nil); err != nil {
		return p.backends[1-p.Next]
	}
	if !p.Fixed {
		p.Next = 1 - p.Next
	}
	return conn
}

// Close is the client's end of the connection. The server's ends are the
// pooler's, which keeps them, with whatever is on them.
func (p *Pooler) Close() error { return nil }

// ShutDown ends the backends, after what is sent on them in the background: the
// drivers' connections are not for two at once.
func (p *Pooler) ShutDown() {
	p.inUse.Lock()
	defer p.inUse.Unlock()
	p.down = true
	for _, conn := range p.backends {
		conn.Close()
	}
}

func (p *Pooler) Begin() (driver.Tx, error) { return nil, errors.New("no transactions here") }

func (p *Pooler) Prepare(query string) (driver.Stmt, error) { return pooledStmt{p, query}, nil }

func (p *Pooler) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	p.inUse.RLock()
	if p.down {
		p.inUse.RUnlock()
		return nil, driver.ErrBadConn
	}
	rows, err := p.backend().(driver.QueryerContext).QueryContext(ctx, query, args)
	if err != nil {
		p.inUse.RUnlock()
		return nil, err
	}
	return &pooledRows{rows, sync.OnceFunc(p.inUse.RUnlock)}, nil
}

type pooledRows struct {
	driver.Rows
	done func()
}

func (r *pooledRows) Close() error {
	defer r.done()
	return r.Rows.Close()
}

func (p *Pooler) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	p.inUse.RLock()
	defer p.inUse.RUnlock()
	if p.down {
		return nil, driver.ErrBadConn
	}
	return p.backend().(driver.ExecerContext).ExecContext(ctx, query, args)
}

type pooledStmt struct {
	p     *Pooler
	query string
}

func (s pooledStmt) Close() error  { return nil }
func (s pooledStmt) NumInput() int { return -1 }

func (s pooledStmt) Exec([]driver.Value) (driver.Result, error) { panic("not called") }
func (s pooledStmt) Query([]driver.Value) (driver.Rows, error)  { panic("not called") }

func (s pooledStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if s.p.Forgetful {
		return nil, noStatement{}
	}
	return s.p.QueryContext(ctx, s.query, args)
}

// NewPooler returns a pooler in front of a server, shut down with the test.
func NewPooler(t testing.TB, driver, url string) *Pooler {
	t.Helper()
	conn, err := PoolerDriver{DriverOf[driver]}.Open(url)
	Must(t, err)
	p := conn.(*Pooler)
	t.Cleanup(p.ShutDown)
	return p
}

// PoolerOf returns the pooler that is conn, shut down with the test.
func PoolerOf(t testing.TB, conn *sql.Conn) (p *Pooler) {
	t.Helper()
	Must(t, conn.Raw(func(c any) error { p = c.(*Pooler); return nil }))
	t.Cleanup(p.ShutDown)
	return p
}

// OpenDB opens a *sql.DB whose connections are all clients of p, and so share
// its backends.
func (p *Pooler) OpenDB(t testing.TB) *sql.DB {
	t.Helper()
	db := sql.OpenDB(sharing{p})
	t.Cleanup(func() { db.Close() })
	return db
}

// sharing gives every connection the same backends.
type sharing struct{ p *Pooler }

func (s sharing) Connect(context.Context) (driver.Conn, error) {
	return &client{s.p}, nil
}
func (s sharing) Driver() driver.Driver { return nil }

// A client is one of several of a pooler.
type client struct{ *Pooler }
