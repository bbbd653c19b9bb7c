package pglock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// A prepared is a db.DBTX that prepares each statement once, on first use, so
// that a warm call is one round trip with either driver: lib/pq would take two
// for a query with arguments. Its callers take turns.
type prepared struct {
	*sql.Conn
	stmts map[string]*sql.Stmt
}

func (p *prepared) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	stmt := p.stmts[query]
	if stmt == nil {
		var err error
		if stmt, err = p.PrepareContext(ctx, query); err != nil {
			return rowOf(err)
		}
		p.stmts[query] = stmt
	}
	return stmt.QueryRowContext(ctx, args...)
}

// forget closes the statements; the next use prepares them again.
func (p *prepared) forget() error {
	var errs []error
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
