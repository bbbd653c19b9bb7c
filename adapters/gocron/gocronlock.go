// Package gocronlock has gocron run each job on one host at a time, by a
// Locker, or all jobs on one host, by an Elector, on any swanlock.Locker.
//
//	s, err := gocron.NewScheduler(gocron.WithDistributedLocker(
//		gocronlock.NewLocker(swanlock.WithMinHold(pool, 30*time.Second))))
//
// A job that takes less time than the clocks of two hosts differ would run on
// both, one after the other: swanlock.WithMinHold prevents that. To gocron such a
// run lasts as long as its lock is kept, or until the scheduler shuts down.
//
// The target of a job's lock is the job's name. Give each job one
// (gocron.WithName): without it, it has that of its function, and closures in
// one function may change theirs with each build.
package gocronlock

import (
	"context"
	"errors"
	"log/slog"

	"github.com/go-co-op/gocron/v2"

	"github.com/swanlake-io/swanlock"
)

// An Option changes how a Locker works.
type Option func(*Locker)

// WithLockOptions sets options of the locks. A TTL wants
// swanlock.WithAutoRefresh beside it, or it must be longer than a job runs.
func WithLockOptions(opts ...swanlock.Option) Option { return func(l *Locker) { l.opts = opts } }

// WithLogger sets where failures are logged; the default is slog.Default, and a nil
// one discards all. gocron takes each error of a Locker for "skip this run", and
// tells nobody.
func WithLogger(log *slog.Logger) Option {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(l *Locker) { l.log = log }
}

// A Locker is a gocron.Locker. All its methods may be called by several
// goroutines at once.
type Locker struct {
	locks swanlock.Locker
	opts  []swanlock.Option
	log   *slog.Logger
}

// NewLocker returns a Locker on locks.
func NewLocker(locks swanlock.Locker, opts ...Option) *Locker {
	// Observe makes of nil a Locker whose acquires say so.
	l := &Locker{locks: swanlock.Observe(locks), log: slog.Default()}
	for _, opt := range opts {
		if opt != nil {
			opt(l)
		}
	}
	return l
}

// tell logs err unless it says that the lock is held elsewhere, and returns it.
func (l *Locker) tell(what, target string, err error) error {
	if err != nil && !errors.Is(err, swanlock.ErrNotAcquired) {
		l.log.Error("gocronlock: "+what, "target", target, "error", err)
	}
	return err
}

// Lock takes the lock of a job if it is free. If it is not, the error matches
// swanlock.ErrNotAcquired; another error is logged as well. After any error
// nothing is held, and gocron skips the run.
func (l *Locker) Lock(ctx context.Context, job string) (gocron.Lock, error) {
	held, err := l.locks.TryAcquire(ctx, job, l.opts...)
	if err != nil {
		return nil, l.tell("the run is skipped", job, err)
	}
	return &lock{l, held}, nil
}

type lock struct {
	l    *Locker
	held swanlock.DistributedLock
}

// Unlock frees the lock. Its error is logged; one that matches swanlock.ErrLost
// says that the job may have run beside another for a while.
func (k *lock) Unlock(ctx context.Context) error {
	return k.l.tell("release", k.held.Info().Target, k.held.Release(ctx))
}
