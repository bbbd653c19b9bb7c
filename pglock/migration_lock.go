package pglock

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// A MigrationLocker is what MigrationLock returns.
type MigrationLocker struct {
	target string
	mu     sync.Mutex
	held   map[*sql.Conn]*PostgresLock
}

// MigrationLock returns a lock for a tool that migrates a database, so that of all
// hosts that start at once one does, and the others find nothing left to do. It has
// the two methods of goose's SessionLocker, without importing goose:
//
//	p, err := goose.NewProvider(goose.DialectPostgres, db, fsys,
//		goose.WithSessionLocker(pglock.MigrationLock("/app/migrations")))
//
// The lock is on the connection that migrates: it is freed with that session, and
// has no TTL, since nothing could refresh it while a migration runs. SessionLock
// stands in line, as Acquire does, until its context ends.
func MigrationLock(target string) *MigrationLocker {
	return &MigrationLocker{target: target, held: make(map[*sql.Conn]*PostgresLock)}
}

// SessionLock waits for the lock on conn until ctx ends. Its errors are those of
// Acquire.
func (m *MigrationLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	l, err := Acquire(ctx, conn, m.target)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[conn] = l
	return nil
}

// SessionUnlock frees the lock that SessionLock took on conn, also when ctx has
// ended. If the lock was lost, so was the session, and the error matches
// swanlock.ErrLost: what was migrated last may not be done.
func (m *MigrationLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	m.mu.Lock()
	l := m.held[conn]
	m.mu.Unlock()
	if l == nil {
		return errors.New("pglock: SessionUnlock on a connection that SessionLock did not lock")
	}
	err := l.Release(ctx)
	if err == nil || l.Err() != nil { // Otherwise nothing was sent, and it may be called again.
		m.mu.Lock()
		delete(m.held, conn)
		m.mu.Unlock()
	}
	return err
}
