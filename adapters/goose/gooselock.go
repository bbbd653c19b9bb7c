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
	"fmt"
	"sync"

	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

var _ lock.Locker = (*Locker)(nil)

// A Locker is a goose lock.Locker. It may be used by several providers at once,
// which then exclude each other too.
type Locker struct {
	locks  swanlock.Locker
	target string
	opts   []swanlock.Option

	// turn has an element from Lock to Unlock, also if the lock is lost meanwhile.
	// Unlock cannot know for which of two providers on one database it is called.
	turn chan struct{}

	mu   sync.Mutex
	held swanlock.DistributedLock // nil: none
	db   *sql.DB                  // for which it is held
}

// New returns a Locker whose lock is target. A TTL in opts wants
// swanlock.WithAutoRefresh beside it, since nothing else refreshes the lock
// while a migration runs.
func New(locks swanlock.Locker, target string, opts ...swanlock.Option) *Locker {
	// Observe makes of nil a Locker whose acquires say so.
	return &Locker{locks: swanlock.Observe(locks), target: target, opts: opts, turn: make(chan struct{}, 1)}
}

// Lock waits for the lock until ctx ends: give Up a deadline. Its errors are
// those of Acquire, and nothing is held after one. goose keeps a connection of
// db meanwhile: if locks is a pglock.Pool on the very same db, db must allow
// two connections or more.
func (l *Locker) Lock(ctx context.Context, db *sql.DB) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("gooselock: lock %s: %w", quoted.Text(l.target), lease.CutShort(ctx, nil))
	}
	held, err := l.locks.Acquire(ctx, l.target, l.opts...)
	if err != nil {
		<-l.turn
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.db = held, db
	return nil
}

// Unlock frees the lock that Lock took for db, also when ctx has ended. An
// error that matches swanlock.ErrLost says that what was migrated last may have
// run beside another host; goose had no way to be told sooner. The lock is free
// even then.
func (l *Locker) Unlock(ctx context.Context, db *sql.DB) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil || l.db != db {
		return errors.New("gooselock: Unlock for a database that Lock did not lock")
	}
	err := l.held.Release(ctx)
	if err == nil || l.held.Err() != nil { // Otherwise nothing was sent, and it may be called again.
		l.held = nil
		<-l.turn
	}
	return err
}
