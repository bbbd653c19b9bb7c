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

// QueryContext sends a statement and reads all its rows, since rows that are
// not read would keep the connection busy. Like the next two methods it must be
// called inside Do.
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

// ExecContext sends a statement that returns no rows.
func (c *Conn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	values, err := convert(args)
	if err != nil {
		return nil, err
	}
	if direct, ok := c.on.(driver.ExecerContext); ok && c.stmts == nil {
		if result, err := direct.ExecContext(ctx, c.text(query), values); err != driver.ErrSkip {
			return result, err
		}
	}
	stmt, done, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	var result driver.Result
	if e, ok := stmt.(driver.StmtExecContext); ok {
		result, err = e.ExecContext(ctx, values)
	} else {
		//lint:ignore SA1019 It is all that an old driver has.
		result, err = stmt.Exec(plain(values))
	}
	return result, errors.Join(err, done())
}

type failed struct{ error }

func (f failed) Scan(...any) error { return f.error }

func (c *Conn) query(ctx context.Context, query string, args []any) (*rows, error) {
	values, err := convert(args)
	if err != nil {
		return nil, err
	}
	if direct, ok := c.on.(driver.QueryerContext); ok && c.stmts == nil {
		if found, err := direct.QueryContext(ctx, c.text(query), values); err != driver.ErrSkip {
			return read(found, err)
		}
	}
	stmt, done, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	var found driver.Rows
	if q, ok := stmt.(driver.StmtQueryContext); ok {
		found, err = q.QueryContext(ctx, values)
	} else {
		//lint:ignore SA1019 It is all that an old driver has.
		found, err = stmt.Query(plain(values))
	}
	r, err := read(found, err)
	return r, errors.Join(err, done())
}

// stmt returns the prepared statement of query. done must be called after its
// use.
func (c *Conn) stmt(ctx context.Context, query string) (stmt driver.Stmt, done func() error, err error) {
	done = func() error { return nil }
	if stmt := c.stmts[query]; stmt != nil {
		return stmt, done, nil
	}
	text := c.text(query)
	if p, ok := c.on.(driver.ConnPrepareContext); ok {
		stmt, err = p.PrepareContext(ctx, text)
	} else {
		stmt, err = c.on.Prepare(text)
	}
	switch {
	case err != nil:
	case c.stmts != nil:
		c.stmts[query] = stmt
	default:
		done = stmt.Close
	}
	return stmt, done, err
}

func convert(args []any) ([]driver.NamedValue, error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, err
		}
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: value}
	}
	return values, nil
}

func plain(values []driver.NamedValue) []driver.Value {
	plain := make([]driver.Value, len(values))
	for i, v := range values {
		plain[i] = v.Value
	}
	return plain
}

// read reads the rows that the driver returned. It copies byte slices, which
// the driver may use again.
func read(from driver.Rows, err error) (*rows, error) {
	if err != nil {
		return nil, err
	}
	r := &rows{width: len(from.Columns())}
	row := make([]driver.Value, r.width)
	for {
		if err := from.Next(row); err != nil {
			if err == io.EOF {
				err = nil
			}
			return r, errors.Join(err, from.Close())
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = string(b)
			}
		}
		r.values = append(r.values, row...)
	}
}
