package swanlock

import (
	"context"
	"errors"
)

// Do waits for target, runs f while it is held, and releases it.
//
// The context that f gets is WithLock's. It ends when the lock is lost, and
// context.Cause then tells the loss; f should stop at once. It also ends, with
// ErrReleased as the cause, if f releases the lock itself, and when f is through.
// Then the lock is released, in every case: when f returns, panics, or calls
// runtime.Goexit. Do returns the errors of f and of the release, both if there
// are two (errors.Is finds either). An error that matches ErrLost says that f may
// have run, for a while, without the lock.
//
// The context tells f that the lock has ended. A step that must not be cut short
// looks before it begins: held.Deadline says until when the lock is held for
// certain. It is no deadline of the context, since each refresh moves it on.
func Do(ctx context.Context, l Locker, target string, f func(ctx context.Context, held DistributedLock) error, opts ...Option) (err error) {
	held, err := l.Acquire(ctx, target, opts...)
	if err != nil {
		return err
	}
	fctx, cancel := WithLock(ctx, held)
	defer func() {
		// First the context, then the lock: what f left behind must not go on
		// while the next holder works.
		cancel()
		rerr := held.Release(context.WithoutCancel(ctx))
		if rerr != nil && !errors.Is(err, rerr) {
			err = errors.Join(err, rerr)
		}
	}()
	return f(fctx, held)
}

// WithLock returns a copy of ctx that ends as soon as held is no longer held.
// context.Cause of it is then what held.Err returns: ErrReleased, or an error
// that matches ErrLost and tells the loss. It ends when ctx does as well, with
// the cause of ctx, and if held was no longer held before, at once.
//
// It is for work that does not fit into a function for Do, such as a server that
// runs for as long as its process leads. The lock is not released when ctx ends:
// that is the caller's to do, after what it guarded has stopped. The cancel
// function ends the context alone. Call it when the work is done, also if the
// lock is held for longer: until then, or until ctx ends, a goroutine waits for
// held.Done. Once cancel has returned, nothing of it looks at held any more.
func WithLock(ctx context.Context, held DistributedLock) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	select {
	case <-held.Done():
		cancel(held.Err())
	default:
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-held.Done():
			cancel(held.Err())
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
	}
}
