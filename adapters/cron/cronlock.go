// Package cronlock has a job of robfig/cron run on one host at a time, by any
// swanlock.Locker.
//
//	once := cronlock.OneHost(swanlock.WithMinHold(pool, 30*time.Second), "/jobs/report")
//	c.AddJob("0 3 * * *", cron.NewChain(cron.Recover(logger), once).Then(cronlock.Job(report)))
package cronlock

import (
	"context"
	"errors"

	"github.com/robfig/cron/v3"

	"github.com/swanlake-io/swanlock"
)

// A Job is a cron.Job with a context, which ends when the lock is lost, or as
// WithContext says. For that, OneHost must be the last wrapper of its chain:
// the others hide what they wrap.
type Job func(ctx context.Context)

// Run runs the job without a lock.
func (j Job) Run() { j(context.Background()) }

// An Option changes how OneHost works.
type Option func(*once)

// WithContext sets the context of the calls to the locker, and of each Job.
// When it has ended, no job is run, and the locks that swanlock.WithMinHold keeps
// are released: the context that cron.Stop returns waits for them.
func WithContext(ctx context.Context) Option { return func(o *once) { o.ctx = ctx } }

// WithLockOptions sets options of the lock. A TTL wants
// swanlock.WithAutoRefresh beside it, or it must be longer than a job runs.
func WithLockOptions(opts ...swanlock.Option) Option { return func(o *once) { o.opts = opts } }

// WithLogger sets where it is told that a run is skipped, since another host
// has the lock (Info) or the locker failed (Error), and that a lock was lost or
// could not be released (Error). The default is cron.DefaultLogger, which
// prints errors alone; a nil one discards all.
func WithLogger(l cron.Logger) Option {
	if l == nil {
		l = cron.DiscardLogger
	}
	return func(o *once) { o.log = l }
}

type once struct {
	locks  swanlock.Locker
	target string
	ctx    context.Context
	opts   []swanlock.Option
	log    cron.Logger
}

// OneHost returns a wrapper by which a job is run while the lock of target is
// held. A run is skipped if the lock is not free, or cannot be had. The lock is
// released when the job returns or panics; the panic goes on, to cron.Recover
// if that is earlier in the chain. All jobs of one target exclude each other.
//
// A job that takes less time than the clocks of two hosts differ would run on
// both, one after the other: swanlock.WithMinHold prevents that. To cron such a
// run lasts as long as its lock is kept.
func OneHost(locks swanlock.Locker, target string, opts ...Option) cron.JobWrapper {
	// Observe makes of nil a Locker whose acquires say so.
	o := &once{locks: swanlock.Observe(locks), target: target, ctx: context.Background(), log: cron.DefaultLogger}
	for _, opt := range opts {
		if opt != nil {
			opt(o)
		}
	}
	return func(j cron.Job) cron.Job { return cron.FuncJob(func() { o.run(j) }) }
}

func (o *once) run(j cron.Job) {
	held, err := o.locks.TryAcquire(o.ctx, o.target, o.opts...)
	switch {
	case errors.Is(err, swanlock.ErrNotAcquired):
		o.log.Info("skip", "target", o.target, "reason", err)
		return
	case err != nil:
		o.log.Error(err, "skip", "target", o.target)
		return
	}
	ctx, cancel := swanlock.WithLock(o.ctx, held)
	defer func() {
		cancel()
		if err := held.Release(o.ctx); err != nil {
			o.log.Error(err, "release", "target", o.target)
		}
	}()
	if job, ok := j.(Job); ok {
		job(ctx)
	} else {
		j.Run()
	}
}
