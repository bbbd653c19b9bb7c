// Package gocronlock has gocron run each job on one host at a time, by a
// Locker, or all jobs on one host, by an Elector, on any swanlock.Locker.
//
//	s, err := gocron.NewScheduler(gocron.WithDistributedLocker(
//		gocronlock.NewLocker(pool, gocronlock.WithHoldAtLeast(30*time.Second))))
//
// The target of a job's lock is the job's name. Give each job one
// (gocron.WithName): without it, it has that of its function, and closures in
// one function may change theirs with each build.
package gocronlock

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/swanlake-io/swanlock"
)

// An Option changes how a Locker or an Elector works.
type Option func(*config)

type config struct {
	atLeast time.Duration
	lock    []swanlock.Option
	log     *slog.Logger
}

// WithHoldAtLeast keeps the lock of a job until d has passed since it was
// granted, in the background, also when the job has ended. Without it, the lock
// covers the run alone: a job that takes less time than the clocks of two hosts
// differ runs on both, one after the other. d is more than that difference, and
// less than the interval of the job, whose next run would be skipped otherwise.
// What holds the lock is this process: if it ends, the lock is free. An Elector
// ignores it.
func WithHoldAtLeast(d time.Duration) Option { return func(c *config) { c.atLeast = d } }

// WithLockOptions sets options of the locks. A TTL wants
// swanlock.WithAutoRefresh beside it, or it must be longer than a job runs and
// than WithHoldAtLeast.
func WithLockOptions(opts ...swanlock.Option) Option { return func(c *config) { c.lock = opts } }

// WithLogger sets where failures are logged; the default is slog.Default.
// gocron takes each error of a Locker or an Elector for "skip this run", and
// tells nobody.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

func newConfig(opts []Option) config {
	c := config{log: slog.Default()}
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// tell logs err unless it says that the lock is held elsewhere, and returns it.
func (c *config) tell(what, target string, err error) error {
	if err != nil && !errors.Is(err, swanlock.ErrNotAcquired) {
		c.log.Error("gocronlock: "+what, "target", target, "error", err)
	}
	return err
}

// A Locker is a gocron.Locker. All its methods may be called by several
// goroutines at once.
type Locker struct {
	config
	locks   swanlock.Locker
	hurry   context.Context // ends when nothing is to be kept any more
	end     context.CancelFunc
	keeping sync.WaitGroup // the locks that WithHoldAtLeast keeps

	mu     sync.Mutex
	closed bool
}

// NewLocker returns a Locker on locks.
func NewLocker(locks swanlock.Locker, opts ...Option) *Locker {
	l := &Locker{config: newConfig(opts), locks: locks}
	l.hurry, l.end = context.WithCancel(context.Background())
	return l
}

// Lock takes the lock of a job if it is free. If it is not, the error matches
// swanlock.ErrNotAcquired; another error is logged as well. After any error
// nothing is held, and gocron skips the run.
func (l *Locker) Lock(ctx context.Context, job string) (gocron.Lock, error) {
	held, err := l.locks.TryAcquire(ctx, job, l.lock...)
	if err != nil {
		return nil, l.tell("the run is skipped", job, err)
	}
	return &lock{l, held, time.Now().Add(l.atLeast)}, nil
}

// Close returns when the locks that WithHoldAtLeast keeps are free; when ctx
// ends, it releases them. Call it after the scheduler's Shutdown: from then on,
// each lock is released as soon as its job has ended.
func (l *Locker) Close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	defer context.AfterFunc(ctx, l.end)()
	l.keeping.Wait()
}

type lock struct {
	l     *Locker
	held  swanlock.DistributedLock
	until time.Time
}

// Unlock frees the lock, at once or in the background when its time has come.
// Its error is logged; one that matches swanlock.ErrLost says that the job may
// have run beside another for a while.
func (k *lock) Unlock(ctx context.Context) error {
	l, wait := k.l, time.Until(k.until)
	l.mu.Lock()
	if wait <= 0 || l.closed {
		l.mu.Unlock()
		return l.tell("release", k.held.Info().Target, k.held.Release(ctx))
	}
	defer l.mu.Unlock()
	l.keeping.Go(func() {
		kept, cancel := context.WithTimeout(l.hurry, wait)
		defer cancel()
		select {
		case <-kept.Done():
		case <-k.held.Done():
		}
		l.tell("release", k.held.Info().Target, k.held.Release(context.WithoutCancel(ctx)))
	})
	return nil
}
