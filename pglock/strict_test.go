package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
)

// A strict is a connection that counts statements that are sent while another,
// or the rows of another, are open: with real drivers they cost the session.
type strict struct {
	driver.Conn
	open     atomic.Int64
	overlaps atomic.Int64
}

type strictDriver struct{ driver.Driver }

func init() {
	for name, d := range driverOf {
		sql.Register("strict "+name, strictDriver{d})
	}
}

func (d strictDriver) Open(url string) (driver.Conn, error) {
	conn, err := d.Driver.Open(url)
	return &strict{Conn: conn}, err
}

func (c *strict) begin() {
	if c.open.Add(1) > 1 {
		c.overlaps.Add(1)
	}
}

func (c *strict) rows(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		c.open.Add(-1)
		return nil, err
	}
	return strictRows{rows, c}, nil
}

func (c *strict) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not called") }

func (c *strict) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.begin()
	defer c.open.Add(-1)
	stmt, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	return strictStmt{stmt, c}, err
}

func (c *strict) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.begin()
	return c.rows(c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args))
}

func (c *strict) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.begin()
	defer c.open.Add(-1)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

type strictStmt struct {
	driver.Stmt
	c *strict
}

func (s strictStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.c.begin()
	return s.c.rows(s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args))
}

type strictRows struct {
	driver.Rows
	c *strict
}

func (r strictRows) Close() error {
	defer r.c.open.Add(-1)
	return r.Rows.Close()
}
