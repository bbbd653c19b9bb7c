package swanlock

import (
	"context"
	"time"
)

// WithMinHold returns a Locker that does what l does, but keeps each lock for d
// at least, counted from its grant. It is for a short job that a clock starts on
// several hosts: without it, a job that takes less time than the clocks of two
// hosts differ runs on both, one after the other.
//
//	nightly := swanlock.WithMinHold(pool, 30*time.Second)
//	held, err := nightly.TryAcquire(ctx, "/jobs/report")
//
// d is more than the clocks differ, and less than the interval of the job, whose
// next run would be skipped otherwise. If d is not above 0, WithMinHold returns l
// itself. If l is nil, that is an error of each acquire.
//
// Release, and so Do, waits until d has passed. Meanwhile the lock is held, and
// is refreshed. The wait ends sooner when the context of Release ends (that of Do,
// for Do), or when the lock is lost; then the lock is released at once, and the
// error is what it would be without WithMinHold. So give Release a context that
// ends when the process is to stop, and call it in a goroutine of its own if
// nothing else may wait.
//
// This process keeps the lock, and nothing else does: if it crashes, the lock is
// free as soon as it would be without WithMinHold.
//
// What is made of several locks gives some of them back in vain. Wrap the whole,
// as in WithMinHold(semaphore.New(l, 2), d), and not l.
func WithMinHold(l Locker, d time.Duration) Locker {
	switch {
	case l == nil:
		return noLocker{}
	case d <= 0:
		return l
	}
	return &minHold{l, d}
}

type minHold struct {
	Locker
	d time.Duration
}

func (m *minHold) TryAcquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error) {
	return m.keep(m.Locker.TryAcquire(ctx, target, opts...))
}

func (m *minHold) Acquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error) {
	return m.keep(m.Locker.Acquire(ctx, target, opts...))
}

func (m *minHold) keep(held DistributedLock, err error) (DistributedLock, error) {
	if err != nil || held == nil {
		return nil, err
	}
	return &keptLock{held, time.Now().Add(m.d)}, nil
}

// A keptLock is a lock of a minHold.
type keptLock struct {
	DistributedLock
	until time.Time
}

// Unwrap returns the lock that is kept: see As.
func (l *keptLock) Unwrap() DistributedLock { return l.DistributedLock }

// AfterDone calls f, in a goroutine of its own, when the lock is over: see
// Observe.
func (l *keptLock) AfterDone(f func(err error)) (stop func() bool) {
	return afterDone(l.DistributedLock, f)
}

// keepAlive is the longest time between two refreshes of a lock whose release
// waits. Each also keeps the lock's session from being ended as idle.
const keepAlive = time.Second

func (l *keptLock) Release(ctx context.Context) error {
	for ctx.Err() == nil && l.Err() == nil {
		left := time.Until(l.until)
		if left <= 0 {
			break
		}
		if ttl := l.Info().TTL; ttl > 0 {
			left = min(left, ttl/3)
		}
		timer := time.NewTimer(min(left, keepAlive))
		// A refresh without an answer is left in time for another.
		call, cancel := context.WithTimeout(ctx, left)
		_ = l.Refresh(call) // If the lock is lost, Err says so.
		cancel()
		select {
		case <-timer.C:
		case <-l.Done():
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return l.DistributedLock.Release(ctx)
}
