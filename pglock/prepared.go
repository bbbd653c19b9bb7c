package pglock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/swanlake-io/swanlock/db"
)

// A sender sends the statements of a wire. Its callers take turns.
type sender interface {
	db.DBTX
	// number asks for the one number that query answers with.
	number(ctx context.Context, query string, args ...any) (int64, error)
	// forget drops what was prepared.
	forget() error
}

// An unprepared sends statements as they are, but on one line.
type unprepared struct{ *sql.Conn }

func (u unprepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return u.Conn.QueryRowContext(ctx, db.OneLine(query), args...)
}

func (u unprepared) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return u.Conn.QueryContext(ctx, db.OneLine(query), args...)
}

func (u unprepared) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return u.Conn.ExecContext(ctx, db.OneLine(query), args...)
}

func (u unprepared) number(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = u.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

func (unprepared) forget() error { return nil }

// A prepared prepares each statement once, on first use, so that a warm call is
// one round trip with either driver: lib/pq would take two for a query with
// arguments.
type prepared struct {
	unprepared
	stmts   map[string]*sql.Stmt
	numbers map[string]driver.Stmt
}

func newPrepared(conn *sql.Conn) *prepared {
	return &prepared{unprepared{conn}, make(map[string]*sql.Stmt), make(map[string]driver.Stmt)}
}

func (p *prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	stmt := p.stmts[query]
	if stmt == nil {
		var err error
		if stmt, err = p.PrepareContext(ctx, db.OneLine(query)); err != nil {
			return rowOf(err)
		}
		p.stmts[query] = stmt
	}
	return stmt.QueryRowContext(ctx, args...)
}

// number goes to the driver's statement past database/sql's, which for each one
// keeps books of it and its rows, and starts a goroutine: a quarter of all that
// the client does.
func (p *prepared) number(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = p.Raw(func(driverConn any) error {
		stmt := p.numbers[query]
		if stmt == nil {
			conn, ok := driverConn.(driver.ConnPrepareContext)
			if !ok {
				return driver.ErrSkip
			}
			if stmt, err = conn.PrepareContext(ctx, db.OneLine(query)); err != nil {
				return err
			}
			p.numbers[query] = stmt
		}
		n, err = numberOf(ctx, stmt, args)
		return err
	})
	if err == driver.ErrSkip { // a wrapper of the driver's has not all that the driver has
		err = p.QueryRowContext(ctx, query, args...).Scan(&n)
	}
	return n, err
}

func numberOf(ctx context.Context, stmt driver.Stmt, args []any) (n int64, err error) {
	asker, ok := stmt.(driver.StmtQueryContext)
	if !ok {
		return 0, driver.ErrSkip
	}
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	rows, err := asker.QueryContext(ctx, values)
	if err != nil {
		return 0, err
	}
	row := make([]driver.Value, 1)
	if err = rows.Next(row); err == nil {
		if n, ok = row[0].(int64); !ok {
			err = fmt.Errorf("pglock: the driver made a %T of a bigint", row[0])
		}
	}
	return n, errors.Join(err, rows.Close())
}

// forget closes the statements; the next use prepares them again.
func (p *prepared) forget() error {
	var errs []error
	if len(p.numbers) > 0 {
		errs = append(errs, p.Raw(func(any) (err error) {
			for query, stmt := range p.numbers {
				err = errors.Join(err, stmt.Close())
				delete(p.numbers, query)
			}
			return err
		}))
	}
	for query, stmt := range p.stmts {
		errs = append(errs, stmt.Close())
		delete(p.stmts, query)
	}
	return errors.Join(errs...)
}

// rowOf is a *sql.Row of an error, which only a *sql.DB can make.
func rowOf(err error) *sql.Row {
	db := sql.OpenDB(failing{err})
	defer db.Close()
	return db.QueryRowContext(context.Background(), "")
}

// failing is a driver.Connector that never connects.
type failing struct{ error }

func (f failing) Connect(context.Context) (driver.Conn, error) { return nil, f.error }
func (f failing) Driver() driver.Driver                        { return nil }
