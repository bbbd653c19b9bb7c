package mocks

import (
	"context"
	"database/sql/driver"

	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// This file is a driver whose connections hand pglock's statements, prepared or
// not, to a session, and everything else to go-sqlmock. go-sqlmock alone would
// have a test script each preparation, and all its connections are one.

type connector struct{ pg *Postgres }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	return &conn{c.pg.newSession()}, nil
}

func (c connector) Driver() driver.Driver { return c }

// Open is never called.
func (c connector) Open(string) (driver.Conn, error) { return c.Connect(context.Background()) }

type conn struct{ s *session }

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if name := nameOf(query); name != "" {
		return c.s.query(ctx, name, query, args)
	}
	defer c.lock()()
	return c.s.pg.inner.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if name := nameOf(query); name != "" {
		return c.s.exec(ctx, name, query, args)
	}
	defer c.lock()()
	return c.s.pg.inner.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if nameOf(query) != "" {
		return &stmt{c: c, query: query}, nil
	}
	defer c.lock()()
	theirs, err := c.s.pg.inner.(driver.ConnPrepareContext).PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{c, query, theirs, false}, nil
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	defer c.lock()()
	theirs, err := c.s.pg.inner.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.s.begin()
	return tx{c, theirs}, nil
}

// Close ends the session.
func (c *conn) Close() error {
	c.s.end()
	return nil
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	return c.s.pg.inner.(driver.NamedValueChecker).CheckNamedValue(v)
}

func (c *conn) lock() (unlock func()) {
	c.s.pg.mu.Lock()
	return c.s.pg.mu.Unlock
}

// A stmt is a prepared statement.
type stmt struct {
	c      *conn
	query  string
	theirs driver.Stmt // go-sqlmock's; nil: it is one of pglock's
	gone   bool        // the server does not know it any more
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if s.theirs != nil {
		defer s.c.lock()()
		return s.theirs.(driver.StmtQueryContext).QueryContext(ctx, args)
	}
	if s.gone {
		return nil, SQLState(noSuchStatement)
	}
	rows, err := s.c.QueryContext(ctx, s.query, args)
	s.gone = sqlstate.Of(err) == noSuchStatement
	return rows, err
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if s.theirs != nil {
		defer s.c.lock()()
		return s.theirs.(driver.StmtExecContext).ExecContext(ctx, args)
	}
	return s.c.ExecContext(ctx, s.query, args)
}

func (s *stmt) Close() error {
	if s.theirs != nil {
		defer s.c.lock()()
		return s.theirs.Close()
	}
	return nil
}

func (s *stmt) NumInput() int { return -1 }

func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }

func (s *stmt) Query([]driver.Value) (driver.Rows, error) { return nil, driver.ErrSkip }

type tx struct {
	c      *conn
	theirs driver.Tx
}

func (t tx) Commit() error {
	defer t.c.lock()()
	err := t.theirs.Commit()
	t.c.s.finish(err == nil)
	return err
}

func (t tx) Rollback() error {
	defer t.c.lock()()
	t.c.s.finish(false)
	return t.theirs.Rollback()
}
