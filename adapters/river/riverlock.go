// Package riverlock has river work one job of a key at a time, on all hosts, by
// any swanlock.Locker.
//
//	client, err := river.NewClient(driver, &river.Config{
//		Middleware: []rivertype.Middleware{riverlock.OneAtATime(pool, func(job *rivertype.JobRow) string {
//			return "/jobs/" + job.Kind // one job of each kind at a time
//		})},
//		// and the queues and workers
//	})
//
// A job whose key is taken is snoozed, so it takes no worker while it waits,
// and loses none of its attempts. Jobs of a key are not worked in the order in
// which they came.
package riverlock

import (
	"context"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/swanlake-io/swanlock"
)

// An Option changes how a Middleware works.
type Option func(*Middleware)

// WithSnooze sets how long a job whose key is taken is snoozed; the default is
// a second. Each time costs an update of its row, so with many jobs of one key,
// or long ones, it is better longer.
// Less than 0 is 0.
func WithSnooze(d time.Duration) Option { return func(m *Middleware) { m.snooze = max(0, d) } }

// WithLockOptions sets options of the locks, such as a TTL, which wants
// swanlock.WithAutoRefresh beside it.
func WithLockOptions(opts ...swanlock.Option) Option { return func(m *Middleware) { m.opts = opts } }

// A Middleware is a rivertype.WorkerMiddleware, for a river.Config or for one
// worker.
type Middleware struct {
	river.MiddlewareDefaults
	locks  swanlock.Locker
	key    func(*rivertype.JobRow) string
	snooze time.Duration
	opts   []swanlock.Option
}

// OneAtATime returns a Middleware by which one job of a key is worked at a
// time. The key is the target of the lock; a job whose key is empty is worked
// without one. key may look at job.EncodedArgs, such as for the customer that
// the job is for.
func OneAtATime(locks swanlock.Locker, key func(job *rivertype.JobRow) string, opts ...Option) *Middleware {
	// Observe makes of nil a Locker whose acquires say so.
	m := &Middleware{locks: swanlock.Observe(locks), key: key, snooze: time.Second}
	for _, opt := range opts {
		if opt != nil {
			opt(m)
		}
	}
	return m
}

type heldKey struct{}

// Lock returns the lock that the job of ctx holds, such as for its fence; ok is
// false if it has none.
func Lock(ctx context.Context) (held swanlock.DistributedLock, ok bool) {
	held, ok = ctx.Value(heldKey{}).(swanlock.DistributedLock)
	return held, ok
}

// Work works the job while its lock is held. The context of the job ends when
// the lock is lost; the error then matches swanlock.ErrLost, and the job is
// tried again, even if it succeeded, unless it asked for a snooze or a
// cancellation. An error of the locker counts as a failure of the job. In every
// case the lock is free when Work has returned, also after a panic; on a
// pglock.Session that of a job which leaves Rows open on the connection is held on.
func (m *Middleware) Work(ctx context.Context, job *rivertype.JobRow, doInner func(context.Context) error) (err error) {
	target := m.key(job)
	if target == "" {
		return doInner(ctx)
	}
	held, err := m.locks.TryAcquire(ctx, target, m.opts...)
	switch {
	case err == nil:
	case ctx.Err() != nil: // the client stops, which is no reason to snooze
		return context.Cause(ctx)
	case errors.Is(err, swanlock.ErrNotAcquired):
		return river.JobSnooze(m.snooze)
	default:
		return err
	}
	lctx, cancel := swanlock.WithLock(context.WithValue(ctx, heldKey{}, held), held)
	defer func() {
		cancel()
		// A release that failed for another reason, such as an audit that could
		// not be written, does not undo a job that was done under its lock.
		if rerr := held.Release(ctx); errors.Is(rerr, swanlock.ErrLost) && !errors.Is(err, rerr) {
			err = errors.Join(err, rerr)
		}
	}()
	return doInner(lctx)
}
