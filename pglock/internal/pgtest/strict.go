package pgtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"
)

// A Strict is a connection that counts statements that are sent while another,
// or the rows of another, are open: with real drivers they cost the session.
type Strict struct {
	driver.Conn
	open     atomic.Int64
	Overlaps atomic.Int64
}

// A StrictDriver makes strict connections of another driver's. Each of Modes has
// one: "strict pgx" and so on.
type StrictDriver struct{ driver.Driver }

func (d StrictDriver) Open(url string) (driver.Conn, error) {
	conn, err := d.Driver.Open(url)
	return &Strict{Conn: conn}, err
}

func (c *Strict) begin() {
	if c.open.Add(1) > 1 {
		c.Overlaps.Add(1)
	}
}

func (c *Strict) rows(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		c.open.Add(-1)
		return nil, err
	}
	return strictRows{rows, c}, nil
}

func (c *Strict) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not called") }

func (c *Strict) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.begin()
	defer c.open.Add(-1)
	stmt, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	return strictStmt{stmt, c}, err
}

func (c *Strict) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.begin()
	return c.rows(c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args))
}

func (c *Strict) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.begin()
	defer c.open.Add(-1)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

type strictStmt struct {
	driver.Stmt
	c *Strict
}

func (s strictStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.c.begin()
	return s.c.rows(s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args))
}

type strictRows struct {
	driver.Rows
	c *Strict
}

func (r strictRows) Close() error {
	defer r.c.open.Add(-1)
	return r.Rows.Close()
}
