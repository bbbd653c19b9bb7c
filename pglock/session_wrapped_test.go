package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// anyDriver are the drivers, those that wrap one, and those that hide all of it.
var anyDriver = append([]string{"postgres", "pgx", "pgxpool", "opaque postgres", "opaque pgx"}, pgtest.Wrapped...)

// TestWrappedWithRowsOpen: while the caller reads rows from the connection, a
// call says so, and neither the rows nor a lock are lost, with every wrapper of
// the driver.
func TestWrappedWithRowsOpen(t *testing.T) {
	t.Parallel()
	for _, driver := range anyDriver {
		if strings.HasPrefix(driver, "opaque ") { // see the package's documentation
			continue
		}
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			for _, by := range acquirers {
				t.Run(by.name, func(t *testing.T) {
					o := observe(t)
					conn := connOf(t, openAny(t, driver, server(t).URL()))
					l, target := by.with(conn), newTarget(t)
					held := acquired(t, l, target)
					rows, err := conn.QueryContext(bg, "SELECT generate_series(1, 100000)")
					must(t, err)
					rows.Next()
					if err := held.Refresh(bg); err == nil || !strings.Contains(err.Error(), "close its Rows first") {
						t.Errorf("Refresh: %v", err)
					}
					if _, err := l.TryAcquire(bg, newTarget(t)); err == nil || !strings.Contains(err.Error(), "close its Rows first") {
						t.Errorf("TryAcquire: %v", err)
					}
					must(t, held.Err())
					must(t, rows.Close())
					must(t, held.Refresh(bg))
					o.wantHeld(target, held.BackendPID())
					must(t, held.Release(bg))
					o.wantHeld(target)
				})
			}
		})
	}
}

// TestWrappedOnASilentNetwork: no call waits for ever, with every wrapper of
// the driver, and the holder of a lock learns that it is lost.
func TestWrappedOnASilentNetwork(t *testing.T) {
	t.Parallel()
	for _, driver := range anyDriver {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t)
			defer p.CloseAll()
			s := pglock.NewSession(connOf(t, openAny(t, driver, p.url)))
			held := acquired(t, s, newTarget(t), swanlock.WithTTL(3*time.Second))
			p.Silence()
			defer p.Resume()
			for name, call := range map[string]func() error{
				"Refresh":    func() error { return held.Refresh(bg) },
				"TryAcquire": func() error { _, err := s.TryAcquire(bg, newTarget(t)); return err },
			} {
				returned := make(chan error, 1)
				go func() { returned <- call() }()
				select {
				case err := <-returned:
					if err == nil {
						t.Errorf("%s: no error", name)
					}
				case <-time.After(2 * soon):
					t.Fatalf("%s does not return", name)
				}
			}
			wantIs(t, ended(t, held), swanlock.ErrLost)
		})
	}
}

// hangUp ends the client's end of a driver's connection, on a pgxpool as well, to
// which its Close would only give it back.
func hangUp(driverConn any) {
	if c, ok := driverConn.(*stdlib.Conn); ok {
		c.Conn().Close(bg)
	}
	driverConn.(driver.Conn).Close()
}

// openAny opens a *sql.DB with a driver of pgtest's, or one that is opaque.
func openAny(t *testing.T, driver, url string) *sql.DB {
	t.Helper()
	name, isOpaque := strings.CutPrefix(driver, "opaque ")
	if !isOpaque {
		return openURL(t, driver, url)
	}
	db := sql.OpenDB(opaqueConnector{pgtest.DriverOf[name], url})
	t.Cleanup(func() { db.Close() })
	return db
}

// An opaque connection is a value in which nothing can be seen.
type opaque struct {
	prepare func(context.Context, string) (driver.Stmt, error)
	query   func(context.Context, string, []driver.NamedValue) (driver.Rows, error)
	exec    func(context.Context, string, []driver.NamedValue) (driver.Result, error)
	close   func() error
}

type opaqueConnector struct {
	driver driver.Driver
	url    string
}

func (c opaqueConnector) Driver() driver.Driver { return c.driver }

func (c opaqueConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.url)
	if err != nil {
		return nil, err
	}
	return opaque{conn.(driver.ConnPrepareContext).PrepareContext, conn.(driver.QueryerContext).QueryContext,
		conn.(driver.ExecerContext).ExecContext, conn.Close}, nil
}

func (c opaque) Prepare(query string) (driver.Stmt, error) { return c.prepare(bg, query) }
func (c opaque) Close() error                              { return c.close() }
func (c opaque) Begin() (driver.Tx, error)                 { return nil, errors.New("no transactions here") }

func (c opaque) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return c.prepare(ctx, query)
}

func (c opaque) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.query(ctx, query, args)
}

func (c opaque) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.exec(ctx, query, args)
}
