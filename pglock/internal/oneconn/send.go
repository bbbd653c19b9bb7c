package oneconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
)

// A Row is what a *sql.Row is, and Rows what a *sql.Rows is.
type (
	Row  = interface{ Scan(dest ...any) error }
	Rows = interface {
		Scan(dest ...any) error
		Next() bool
		Err() error
		Close() error
	}
)

// QueryContext sends a statement for what Do runs, as the next two do. It reads all
// rows at once: the connection may not be left with some unread.
func (c *Conn) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	r, err := c.query(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// QueryRowContext sends query and reads its first row.
func (c *Conn) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	r, err := c.query(ctx, query, args)
	if err == nil && !r.Next() {
		err = sql.ErrNoRows
	}
	if err != nil {
		return failed{err}
	}
	return r
}

// ExecContext sends query, and says nothing of what it has changed.
func (c *Conn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	_, err := c.query(ctx, query, args)
	return driver.ResultNoRows, err
}

type failed struct{ error }

func (f failed) Scan(...any) error { return f.error }

func (c *Conn) query(ctx context.Context, query string, args []any) (*rows, error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, err
		}
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: value}
	}
	found, done, err := c.send(ctx, query, values)
	if err != nil {
		return nil, err
	}
	r, err := readAll(found)
	return r, errors.Join(err, found.Close(), done())
}

// send sends query, by whichever way the driver has. done is to be called when
// its rows were closed.
func (c *Conn) send(ctx context.Context, query string, values []driver.NamedValue) (rows driver.Rows, done func() error, err error) {
	if c.stmts == nil {
		if direct, ok := c.on.(driver.QueryerContext); ok {
			if rows, err = direct.QueryContext(ctx, query, values); err != driver.ErrSkip {
				return rows, nothing, err
			}
		}
	}
	stmt := c.stmts[query]
	if stmt == nil {
		if stmt, err = prepare(ctx, c.on, query); err != nil {
			return nil, nil, err
		}
		if c.stmts != nil {
			c.stmts[query] = stmt
		}
	}
	done = nothing
	if c.stmts == nil {
		done = stmt.Close
	}
	if rows, err = ask(ctx, stmt, values); err != nil {
		done()
	}
	return rows, done, err
}

func nothing() error { return nil }

func prepare(ctx context.Context, on driver.Conn, query string) (driver.Stmt, error) {
	if p, ok := on.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	return on.Prepare(query)
}

func ask(ctx context.Context, stmt driver.Stmt, values []driver.NamedValue) (driver.Rows, error) {
	if q, ok := stmt.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, values)
	}
	plain := make([]driver.Value, len(values))
	for i, v := range values {
		plain[i] = v.Value
	}
	return stmt.Query(plain)
}

// readAll reads what the driver returns, and copies what belongs to it.
func readAll(from driver.Rows) (*rows, error) {
	r := &rows{width: len(from.Columns())}
	row := make([]driver.Value, r.width)
	for {
		switch err := from.Next(row); err {
		case nil:
		case io.EOF:
			return r, nil
		default:
			return nil, err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = string(b)
			}
		}
		r.values = append(r.values, row...)
	}
}
