package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A pooler is a connection that, like PgBouncer in transaction mode, hands each
// statement to another server connection than the one before, and prepares
// statements where they are missing.
type pooler struct {
	backends [2]driver.Conn
	next     int
	fixed    bool // next does not change

	forgetful bool // does not prepare statements where they are missing
}

// A noStatement is what the server says of a prepared statement that it lacks.
type noStatement struct{}

func (noStatement) Error() string    { return "prepared statement does not exist" }
func (noStatement) SQLState() string { return "26000" }

// poolerDriver makes poolers of another driver's connections.
type poolerDriver struct{ driver.Driver }

func init() {
	for name, d := range driverOf {
		sql.Register("pooled "+name, poolerDriver{d})
	}
}

func (d poolerDriver) Open(url string) (driver.Conn, error) {
	p := &pooler{}
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
func (p *pooler) backend() driver.Conn {
	conn := p.backends[p.next]
	if _, err := conn.(driver.ExecerContext).ExecContext(bg, "SELECT 1", nil); err != nil {
		return p.backends[1-p.next]
	}
	if !p.fixed {
		p.next = 1 - p.next
	}
	return conn
}

// Close is the client's end of the connection. The server's ends are the
// pooler's, who keeps them, with whatever is on them.
func (p *pooler) Close() error { return nil }

func (p *pooler) shutDown() {
	for _, conn := range p.backends {
		conn.Close()
	}
}

func (p *pooler) Begin() (driver.Tx, error) { return nil, errors.New("no transactions here") }

func (p *pooler) Prepare(query string) (driver.Stmt, error) { return pooledStmt{p, query}, nil }

func (p *pooler) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return p.backend().(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (p *pooler) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return p.backend().(driver.ExecerContext).ExecContext(ctx, query, args)
}

type pooledStmt struct {
	p     *pooler
	query string
}

func (s pooledStmt) Close() error  { return nil }
func (s pooledStmt) NumInput() int { return -1 }

func (s pooledStmt) Exec([]driver.Value) (driver.Result, error) { panic("not called") }
func (s pooledStmt) Query([]driver.Value) (driver.Rows, error)  { panic("not called") }

func (s pooledStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if s.p.forgetful {
		return nil, noStatement{}
	}
	return s.p.QueryContext(ctx, s.query, args)
}

// TestPoolerLosesStatements: a pooler that knows nothing of prepared statements
// sends them where they are missing. That is found at the first acquire.
func TestPoolerLosesStatements(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		conn := connOf(t, openURL(t, "pooled "+driver, server(t).URL()))
		must(t, conn.Raw(func(c any) error {
			p := c.(*pooler)
			t.Cleanup(p.shutDown)
			p.forgetful = true
			return nil
		}))
		target := newTarget(t)
		_, err := pglock.NewSession(conn).TryAcquire(bg, target)
		wantIs(t, err, pglock.ErrPooler)
		o.wantHeld(target)
	})
}

// TestPooler: behind a pooler in transaction mode a lock is held by a session
// that the next statement may not reach. The first refresh or release that
// meets another backend finds it out, and frees what was held on either.
func TestPooler(t *testing.T) {
	finders := map[string]func(l swanlock.Locker, target string, held *pglock.PostgresLock) error{
		"Refresh": func(_ swanlock.Locker, _ string, held *pglock.PostgresLock) error { return held.Refresh(bg) },
		"Release": func(_ swanlock.Locker, _ string, held *pglock.PostgresLock) error { return held.Release(bg) },
		"a second acquire": func(l swanlock.Locker, target string, _ *pglock.PostgresLock) error {
			_, err := l.TryAcquire(bg, target)
			return err
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for _, by := range acquirers {
			for finder, find := range finders {
				for _, ttl := range []time.Duration{0, time.Minute} {
					for first := range 2 {
						t.Run(fmt.Sprintf("%s %s with TTL %v on backend %d", by.name, finder, ttl, first), func(t *testing.T) {
							o := o.in(t)
							conn := connOf(t, openURL(t, "pooled "+driver, server(t).URL()))
							var p *pooler
							must(t, conn.Raw(func(c any) error { p = c.(*pooler); return nil }))
							t.Cleanup(p.shutDown)
							p.next, p.fixed = 0, true
							pids := []int{pidOf(t, conn), 0}
							p.next = 1
							pids[1] = pidOf(t, conn)
							p.next = first

							// One lock on each backend, then the first meets the other.
							l, target, other := by.with(conn), newTarget(t), newTarget(t)
							held := acquired(t, l, target, swanlock.WithTTL(ttl))
							p.next = 1 - first
							elsewhere := acquired(t, l, other)
							o.wantHeld(target, pids[first])
							o.wantHeld(other, pids[1-first])
							p.fixed = false
							wantIs(t, find(l, target, held), pglock.ErrPooler)
							o.wantSoonFree(target)
							o.wantSoonFree(other)
							wantIs(t, held.Err(), pglock.ErrPooler, swanlock.ErrLost)
							wantIs(t, elsewhere.Err(), swanlock.ErrLost)
							if finder != "Release" {
								wantIs(t, held.Release(bg), pglock.ErrPooler)
							}
							_, err := l.TryAcquire(bg, target)
							if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
								t.Errorf("got %v from a connection that was given up", err)
							}
						})
					}
				}
			}
		}
	})
}

// TestPoolBehindAPooler: a Pool refuses a pooler in transaction mode when it
// opens, before anything is set on the pooler's connections: two of its own that
// share a backend give it away, and one that is on two.
func TestPoolBehindAPooler(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, alternates := range []bool{true, false} {
			backends, err := poolerDriver{poolerOf(driver)}.Open(server(t).URL())
			must(t, err)
			shared := backends.(*pooler)
			shared.fixed = !alternates
			t.Cleanup(shared.shutDown)
			db := sql.OpenDB(sharing{shared})
			t.Cleanup(func() { db.Close() })
			if alternates {
				db.SetMaxOpenConns(1) // so that nothing else can tell
			}
			p := newPool(t, db)
			_, err = p.TryAcquire(bg, newTarget(t), swanlock.WithTTL(time.Minute))
			wantIs(t, err, pglock.ErrPooler)
			for range 2 {
				if got := one[string](t, db, "SHOW idle_session_timeout"); got != "0" {
					t.Errorf("idle_session_timeout is left at %s", got)
				}
				// But for what pgx prepares by itself.
				if n := one[int](t, db, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%pg_cata' || 'log.%' AND statement <> 'SELECT pg_cata' || 'log.pg_backend_pid()::integer AS pid'"); n > 0 {
					t.Errorf("%d statements are left prepared", n)
				}
			}
		}
	})
}

// poolerOf is the driver of that name.
func poolerOf(name string) driver.Driver {
	db, err := sql.Open(name, "")
	if err != nil {
		panic(err)
	}
	defer db.Close()
	return db.Driver()
}

// sharing gives every connection the same backends.
type sharing struct{ p *pooler }

func (s sharing) Connect(context.Context) (driver.Conn, error) {
	return &client{s.p}, nil
}
func (s sharing) Driver() driver.Driver { return nil }

// A client is one of several of a pooler.
type client struct{ *pooler }
