package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// wrappers of each driver, such as are written for tracing, with no more methods
// than database/sql can do without, or that change what is read.
var wrappers = map[string]func(driver.Conn) driver.Conn{
	"no PrepareContext": func(c driver.Conn) driver.Conn { return &old{c} },
	"no QueryContext": func(c driver.Conn) driver.Conn {
		return &preparing{old{c}, func(s driver.Stmt) driver.Stmt { return oldStmt{s} }}
	},
	"numbers as booleans": func(c driver.Conn) driver.Conn {
		return &preparing{old{c}, func(s driver.Stmt) driver.Stmt { return boolStmt{s} }}
	},
}

func init() {
	for name, d := range pgtest.DriverOf {
		for what, wrap := range wrappers {
			sql.Register(what+" "+name, wrapped{d, wrap})
		}
	}
}

type wrapped struct {
	driver.Driver
	wrap func(driver.Conn) driver.Conn
}

func (w wrapped) Open(url string) (driver.Conn, error) {
	conn, err := w.Driver.Open(url)
	if err != nil {
		return nil, err
	}
	return w.wrap(conn), nil
}

// An old is a connection that prepares without a context.
type old struct{ driver.Conn }

func (o old) Prepare(query string) (driver.Stmt, error) { return o.Conn.Prepare(query) }

func (o old) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return o.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (o old) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return o.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

// A preparing is one that has statements of its own.
type preparing struct {
	old
	wrap func(driver.Stmt) driver.Stmt
}

func (p preparing) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := p.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return p.wrap(stmt), nil
}

// An oldStmt is a statement that takes no context.
type oldStmt struct{ driver.Stmt }

func (s oldStmt) Query(args []driver.Value) (driver.Rows, error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return s.Stmt.(driver.StmtQueryContext).QueryContext(bg, values)
}

// A boolStmt makes a boolean of every number.
type boolStmt struct{ driver.Stmt }

func (s boolStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	return boolRows{rows}, err
}

type boolRows struct{ driver.Rows }

func (r boolRows) Next(row []driver.Value) error {
	err := r.Rows.Next(row)
	for i, v := range row {
		if n, ok := v.(int64); ok {
			row[i] = n > 0
		}
	}
	return err
}

// TestDriverWrapped: with a wrapper that has not all that its driver has, locks
// are taken and released as with the driver itself: each in one round trip, after
// DISCARD ALL too, and no statement is left.
func TestDriverWrapped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, what := range []string{"", "no PrepareContext ", "no QueryContext "} {
			t.Run(what, func(t *testing.T) {
				o, p, target := observe(t), newProxy(t), newTarget(t)
				conn := connOf(t, openURL(t, what+driver, p.url))
				pid := pidOf(t, conn)
				s, other := pglock.NewSession(conn), dial(t, driver)
				var held swanlock.DistributedLock
				for round := range 3 {
					take := func() { held = acquired(t, s, target) }
					drop := func() { must(t, held.Release(bg)) }
					if acquire := p.trips(t, take); round > 0 && acquire != 1 {
						t.Errorf("a warm acquire took %d round trips", acquire)
					}
					o.wantHeld(target, pid)
					if release := p.trips(t, drop); round > 0 && release != 1 {
						t.Errorf("a warm release took %d round trips", release)
					}
					o.wantHeld(target)
				}
				run(t, other, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
				_, err := s.TryAcquire(bg, target)
				wantIs(t, err, swanlock.ErrNotAcquired)
				run(t, conn, "DISCARD ALL")
				run(t, other, "SELECT pg_advisory_unlock_all()")
				held = acquired(t, s, target)
				o.wantHeld(target, pid)
				must(t, held.Release(bg))
				must(t, s.Close(bg))
				if state := stateOf(t, conn); state.prepared > 0 || state.pid != pid {
					t.Errorf("%d statements are left on backend %d, which was %d", state.prepared, state.pid, pid)
				}
			})
		}
	})
}

// TestDriverAnswersAnotherType: an answer that cannot be read is not taken for a yes or
// a no: the session is over.
func TestDriverAnswersAnotherType(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		conn := connOf(t, openURL(t, "numbers as booleans "+driver, server(t).URL()))
		_, err := pglock.NewSession(conn).TryAcquire(bg, target)
		if err == nil || !strings.Contains(err.Error(), "a bool is no integer") {
			t.Errorf("got %v", err)
		}
		wantIs(t, conn.PingContext(bg), sql.ErrConnDone)
		o.wantSoonFree(target)
	})
}
