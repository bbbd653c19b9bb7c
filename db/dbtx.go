// Package db is the statements of queries/ as Go functions. Its other files are
// what sqlc makes of them: run make generate, and edit none. It is no API of
// swanlock's: what stands here changes without notice.
//
// This file takes the place of the one that sqlc writes to _sqlc.go, which the go
// command passes over: its DBTX returns a *sql.Row, which nothing but a *sql.DB
// can make. The one here is an interface, so that a statement can be sent to the
// driver itself.
package db

import (
	"context"
	"database/sql"
)

// A DBTX sends statements.
type DBTX interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) Row
}

// A Row is what a *sql.Row is, and Rows what a *sql.Rows is. They are aliases, so
// that a DBTX can be made without this package.
type (
	Row  = interface{ Scan(dest ...any) error }
	Rows = interface {
		Scan(dest ...any) error
		Next() bool
		Err() error
		Close() error
	}
)

// Queries has a method for each statement.
type Queries struct{ db DBTX }

// New returns the statements as sent by tx.
func New(tx DBTX) *Queries { return &Queries{tx} }

// On returns a DBTX that sends statements through database/sql: on a *sql.DB, a
// *sql.Conn or a *sql.Tx.
func On(tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) DBTX {
	return standard{tx.ExecContext, tx.QueryContext, tx.QueryRowContext}
}

type standard struct {
	exec     func(context.Context, string, ...any) (sql.Result, error)
	query    func(context.Context, string, ...any) (*sql.Rows, error)
	queryRow func(context.Context, string, ...any) *sql.Row
}

func (s standard) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return s.exec(ctx, query, args...)
}

func (s standard) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	return s.query(ctx, query, args...)
}

func (s standard) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	return s.queryRow(ctx, query, args...)
}
