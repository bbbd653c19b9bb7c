package swanlock

import (
	"context"
	"errors"
)

// Do waits for target, runs f while it is held, and releases it.
//
// The context that f gets ends when the lock is lost, and context.Cause then
// tells the loss; f should stop at once. It also ends, with ErrReleased as the
// cause, if f releases the lock itself, and when f is through. Then the lock is
// released, in every case: when f returns, panics, or calls runtime.Goexit. Do returns the errors of f
// and of the release, both if there are two (errors.Is finds either). An error
// that matches ErrLost says that f may have run, for a while, without the lock.
func Do(ctx context.Context, l Locker, target string, f func(ctx context.Context, held DistributedLock) error, opts ...Option) (err error) {
	held, err := l.Acquire(ctx, target, opts...)
	if err != nil {
		return err
	}
	fctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-held.Done():
			cancel(held.Err())
		case <-fctx.Done():
		}
	}()
	defer func() {
		// First the context, then the lock: what f left behind must not go on
		// while the next holder works.
		cancel(nil)
		<-watched
		rerr := held.Release(context.WithoutCancel(ctx))
		if rerr != nil && !errors.Is(err, rerr) {
			err = errors.Join(err, rerr)
		}
	}()
	return f(fctx, held)
}
