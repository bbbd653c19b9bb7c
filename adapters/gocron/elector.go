package gocronlock

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
)

// An Elector is a gocron.Elector: of several processes, the one that leads an
// election runs all jobs. Its zero value is ready to use, and leads nothing
// until election.Run calls Lead:
//
//	var elector gocronlock.Elector
//	go election.Run(ctx, pool, "/scheduler", elector.Lead)
//	s, err := gocron.NewScheduler(gocron.WithDistributedElector(&elector))
//
// End ctx after the scheduler's Shutdown, so that another process may lead.
type Elector struct {
	lock atomic.Pointer[swanlock.DistributedLock] // of the last term
}

// Lead leads until ctx ends. It is what election.Run calls.
func (e *Elector) Lead(ctx context.Context) error {
	held, ok := election.Lock(ctx)
	if !ok {
		return fmt.Errorf("gocronlock: Lead is for election.Run to call: %w", election.ErrResign)
	}
	e.lock.Store(&held)
	<-ctx.Done()
	e.lock.Store(nil)
	return nil
}

// IsLeader returns nil if this process leads, by its clock. Otherwise gocron
// skips the run, and the error matches swanlock.ErrNotAcquired, or
// swanlock.ErrLost if the lock was lost just now. A job that runs at the loss is
// not told.
func (e *Elector) IsLeader(context.Context) error {
	held := e.lock.Load()
	if held == nil {
		return fmt.Errorf("gocronlock: this process does not lead: %w", swanlock.ErrNotAcquired)
	}
	return (*held).Err()
}
