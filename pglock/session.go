// Package pglock locks with PostgreSQL's session advisory locks.
package pglock

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"

	"github.com/swanlake-io/swanlock"
)

type PostgresLock struct{ swanlock.DistributedLock }

func (l *PostgresLock) Key() Key        { return 0 }
func (l *PostgresLock) BackendPID() int { return 0 }

type Session struct{}
type SessionOption func()

func WithAudit() SessionOption               { return nil }
func WithLogger(*slog.Logger) SessionOption  { return nil }
func NewSession(conn *sql.Conn, opts ...SessionOption) *Session { return &Session{} }

func (s *Session) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return nil, errors.New("stub")
}
func (s *Session) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return nil, errors.New("stub")
}
func (s *Session) Close(ctx context.Context) error { return nil }

func TryAcquire(ctx context.Context, conn *sql.Conn, target string, opts ...swanlock.Option) (*PostgresLock, error) {
	return nil, errors.New("stub")
}
func Acquire(ctx context.Context, conn *sql.Conn, target string, opts ...swanlock.Option) (*PostgresLock, error) {
	return nil, errors.New("stub")
}
