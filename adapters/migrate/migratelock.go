// Package migratelock has one host migrate a database at a time with
// golang-migrate, by any swanlock.Locker.
//
//	driver, err := postgres.WithInstance(db, &postgres.Config{})
//	m, err := migrate.NewWithInstance("iofs", source, "postgres",
//		migratelock.Wrap(driver, pool, "/app/migrations"))
//
// The drivers' own locks know no deadline. When migrate.Migrate gives up after
// its LockTimeout, the call goes on, gets the lock later, and keeps it.
//
// A driver's Close closes its *sql.DB too: give the pool another one.
package migratelock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang-migrate/migrate/v4/database"

	"github.com/swanlake-io/swanlock"
)

// DefaultTimeout is how long Lock waits unless WithTimeout says something else.
// It is below migrate.DefaultLockTimeout, which is 15 s.
const DefaultTimeout = 12 * time.Second

// An Option changes how a Driver works.
type Option func(*Driver)

// WithTimeout sets how long Lock waits for the lock; it is the DefaultTimeout
// if it is not set. It must be some seconds below the LockTimeout of the
// migrate.Migrate, so that Lock has returned by then, also from a slow server.
// To wait for longer, change both.
func WithTimeout(d time.Duration) Option { return func(l *Driver) { l.timeout = d } }

// WithLockOptions sets options of the lock. A TTL wants
// swanlock.WithAutoRefresh beside it, since nothing else refreshes the lock
// while a migration runs.
func WithLockOptions(opts ...swanlock.Option) Option { return func(l *Driver) { l.opts = opts } }

// A Driver is a database.Driver with another lock than its own. All that
// migrate the database must use it: the lock of the driver that it wraps is not
// taken.
type Driver struct {
	database.Driver
	locks   swanlock.Locker
	target  string
	timeout time.Duration
	opts    []swanlock.Option

	mu     sync.Mutex
	held   swanlock.DistributedLock
	closed context.Context
	end    context.CancelFunc
}

// Wrap returns driver with the lock of target.
func Wrap(driver database.Driver, locks swanlock.Locker, target string, opts ...Option) *Driver {
	// Observe makes of nil a Locker whose acquires say so.
	d := &Driver{Driver: driver, locks: swanlock.Observe(locks), target: target, timeout: DefaultTimeout}
	for _, opt := range opts {
		if opt != nil {
			opt(d)
		}
	}
	d.closed, d.end = context.WithCancel(context.Background())
	return d
}

// Open opens what it wraps, with the same lock.
func (d *Driver) Open(url string) (database.Driver, error) {
	opened, err := d.Driver.Open(url)
	if err != nil {
		return nil, err
	}
	return Wrap(opened, d.locks, d.target, WithTimeout(d.timeout), WithLockOptions(d.opts...)), nil
}

// Lock waits for the lock until its timeout, or until Close. If it is held
// elsewhere, or by d itself, the error matches database.ErrLocked. After any
// error this call holds nothing.
func (d *Driver) Lock() error {
	d.mu.Lock()
	already := d.held != nil
	d.mu.Unlock()
	if already {
		return database.ErrLocked
	}
	ctx, cancel := context.WithTimeout(d.closed, d.timeout)
	defer cancel()
	held, err := d.locks.Acquire(ctx, d.target, d.opts...)
	if errors.Is(err, swanlock.ErrNotAcquired) {
		return fmt.Errorf("%w: %w", database.ErrLocked, err)
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Err() != nil || d.held != nil { // d.held is of another call, and lost.
		return errors.Join(database.ErrLocked, held.Release(ctx))
	}
	d.held = held
	return nil
}

// SetVersion notes that a migration begins, if dirty is true, or that it is done. When
// the lock was lost none begins, and the error matches swanlock.ErrLost.
func (d *Driver) SetVersion(version int, dirty bool) error {
	d.mu.Lock()
	held := d.held
	d.mu.Unlock()
	if dirty && held != nil {
		if err := held.Err(); err != nil {
			return err
		}
	}
	return d.Driver.SetVersion(version, dirty)
}

// Unlock frees the lock. An error that matches swanlock.ErrLost says that the
// migration that ran at the loss may have run beside another host; migrate had no
// way to be told sooner. The lock is free even then, but a migrate.Migrate that got
// an error of Unlock takes itself for locked from then on: make a new one. An Unlock
// that left the lock held may be called again, as Close does. Without a lock, the
// error is database.ErrNotLocked.
func (d *Driver) Unlock() error {
	d.mu.Lock()
	held := d.held
	d.held = nil
	d.mu.Unlock()
	if held == nil {
		return database.ErrNotLocked
	}
	err := held.Release(context.Background())
	if err != nil && held.Err() == nil { // Nothing was sent.
		d.mu.Lock()
		d.held = held
		d.mu.Unlock()
	}
	return err
}

// Close closes what it wraps, and ends a Lock that waits. A lock that is still
// held, because migrate gave up on it, is freed.
func (d *Driver) Close() error {
	d.end()
	err := d.Unlock()
	if errors.Is(err, database.ErrNotLocked) {
		err = nil
	}
	return errors.Join(d.Driver.Close(), err)
}
