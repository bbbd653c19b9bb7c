// Package gooselock has one host migrate a database at a time, by any
// swanlock.Locker.
//
//	p, err := goose.NewProvider(goose.DialectPostgres, db, fsys,
//		goose.WithLocker(gooselock.New(pool, "/app/migrations")))
//
// On PostgreSQL without a pooler in transaction mode, pglock.MigrationLock is
// better: it is on the connection that migrates, so the one cannot be lost
// without the other. This is for the rest, and for a lock that is not on the
// database that is migrated.
package gooselock

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock"
)

var _ lock.Locker = (*Locker)(nil)

// A Locker is a goose lock.Locker. It may be used by several providers at once,
// which then exclude each other too.
type Locker struct {
	locks  swanlock.Locker
	target string
	opts   []swanlock.Option

	mu   sync.Mutex
	held map[*sql.DB][]swanlock.DistributedLock // oldest first
}

// New returns a Locker whose lock is target. A TTL in opts wants
// swanlock.WithAutoRefresh beside it, since nothing else refreshes the lock
// while a migration runs.
func New(locks swanlock.Locker, target string, opts ...swanlock.Option) *Locker {
	// Observe makes of nil a Locker whose acquires say so.
	return &Locker{locks: swanlock.Observe(locks), target: target, opts: opts, held: make(map[*sql.DB][]swanlock.DistributedLock)}
}

// Lock waits for the lock until ctx ends: give Up a deadline. Its errors are
// those of Acquire, and nothing is held after one. goose keeps a connection of
// db meanwhile: if locks is a pglock.Pool on the very same db, db must allow
// two connections or more.
func (l *Locker) Lock(ctx context.Context, db *sql.DB) error {
	held, err := l.locks.Acquire(ctx, l.target, l.opts...)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[db] = append(l.held[db], held)
	return nil
}

// Unlock frees the lock that Lock took for db, also when ctx has ended. An
// error that matches swanlock.ErrLost says that what was migrated last may have
// run beside another host; goose had no way to be told sooner. The lock is free
// even then.
func (l *Locker) Unlock(ctx context.Context, db *sql.DB) error {
	l.mu.Lock()
	all := l.held[db]
	if len(all) == 0 {
		l.mu.Unlock()
		return errors.New("gooselock: Unlock for a database that Lock did not lock")
	}
	// There is more than one only after a loss. The oldest goes first, since it
	// is the lost one: the next holder's is not released under its hands.
	held := all[0]
	if l.held[db] = all[1:]; len(all) == 1 {
		delete(l.held, db)
	}
	l.mu.Unlock()
	return held.Release(ctx)
}
