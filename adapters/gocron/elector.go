package gocronlock

import (
	"context"
	"errors"

	"github.com/swanlake-io/swanlock"
)

// ErrClosed says that the Elector was closed: this process leads no more.
var ErrClosed = errors.New("gocronlock: the Elector is closed")

// An Elector is a gocron.Elector: the process that holds its lock leads, and
// runs all jobs. All its methods may be called by several goroutines at once.
type Elector struct {
	config
	locks  swanlock.Locker
	target string
	turn   chan struct{} // full while one goroutine uses the fields below
	held   swanlock.DistributedLock
	closed bool
}

// NewElector returns an Elector whose lock is target. It sends nothing until a
// job is due. With a TTL, the lock wants swanlock.WithAutoRefresh, so that the
// leader stays the same between two jobs.
func NewElector(locks swanlock.Locker, target string, opts ...Option) *Elector {
	return &Elector{config: newConfig(opts), locks: locks, target: target, turn: make(chan struct{}, 1)}
}

// IsLeader returns nil if this process leads. If nobody does, it begins to
// lead: so a leader that has lost its lock is followed at the next job of any
// host. The error matches swanlock.ErrNotAcquired if another process leads, and
// ErrClosed after Close; any other is logged as well. gocron then skips the
// run. A job that runs while the lock is lost is not told.
func (e *Elector) IsLeader(ctx context.Context) error {
	// One at a time: of two jobs that are due together, the second would find
	// the lock held, by this very process, and be skipped.
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	if e.closed {
		return ErrClosed
	}
	if e.held != nil {
		if e.tell("leads no longer", e.target, e.held.Err()) == nil {
			return nil
		}
		e.held = nil
	}
	held, err := e.locks.TryAcquire(ctx, e.target, e.lock...)
	if err == nil {
		e.held = held
	}
	return e.tell("cannot lead", e.target, err)
}

// Close steps down, so that another process may lead: call it after the
// scheduler's Shutdown. Its error matches swanlock.ErrLost if the lock was lost
// since IsLeader last looked; this process leads no more even then. If ctx ends
// while IsLeader works, the error is context.Cause(ctx), and nothing has
// changed.
func (e *Elector) Close(ctx context.Context) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	e.closed = true
	if e.held == nil {
		return nil
	}
	held := e.held
	e.held = nil
	return held.Release(ctx)
}

func (e *Elector) enter(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
