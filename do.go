package swanlock

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/swanlake-io/swanlock/internal/quoted"
)

// Do waits for target, runs f while it is held, and releases it.
//
// The context that f gets is WithLock's. It ends when the lock is lost, and
// context.Cause then returns the loss; f should stop at once. It also ends,
// with ErrReleased as the cause, if f releases the lock itself, and when f has
// ended. Then the lock is released in every case: when f returns, panics, or
// calls runtime.Goexit, and also when ctx has ended. Do returns the errors of f
// and of the release, joined if there are two (errors.Is finds either). An error
// that matches ErrLost says that f may have run, for a while, without the lock.
//
// The context tells f that the lock has ended. Before a step that must not be
// cut short, f should look at held.Deadline, which says until when the lock is
// held for certain. It is not the deadline of the context, since each refresh
// moves it on.
func Do(ctx context.Context, l Locker, target string, f func(ctx context.Context, held DistributedLock) error, opts ...Option) (err error) {
	if l == nil {
		l = noLocker{}
	}
	held, err := l.Acquire(ctx, target, opts...)
	if err == nil && held == nil {
		err = errNeither
	}
	if err != nil {
		return err
	}
	fctx, cancel := WithLock(ctx, held)
	defer func() {
		// The context ends before the lock, so that goroutines that f has left
		// running do not work beside the next holder.
		cancel()
		rerr := held.Release(ctx)
		if rerr != nil && !errors.Is(err, rerr) {
			err = errors.Join(err, rerr)
		}
	}()
	return f(fctx, held)
}

// errNeither is the error of a locker that has broken its contract.
var errNeither = errors.New("swanlock: the locker returned neither a lock nor an error")

// A noLocker stands for a Locker that is nil: it acquires nothing.
type noLocker struct{}

func (noLocker) TryAcquire(context.Context, string, ...Option) (DistributedLock, error) {
	return nil, errors.New("swanlock: the locker is nil")
}

func (l noLocker) Acquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error) {
	return l.TryAcquire(ctx, target, opts...)
}

// WithLock returns a copy of ctx that ends as soon as held is no longer held.
// Its cause is then what held.Err returns: ErrReleased, or an error that
// matches ErrLost and says how the lock was lost. The copy also ends when ctx
// ends, with the cause of ctx, and at once if held is over already.
//
// WithLock is for work that does not fit into a function for Do, such as a
// server that runs for as long as its process leads. The lock is not released
// when ctx ends: the caller must do that, after what the lock guarded has
// stopped. The cancel function ends the context alone. Call it when the work is
// done, even if the lock is held for longer: until then, or until ctx ends, a
// goroutine waits for held.Done. Once cancel has returned, WithLock does not
// use held any more.
//
// Held(ctx, target) tells code further down, which has the context alone,
// whether the lock is still held.
func WithLock(ctx context.Context, held DistributedLock) (context.Context, context.CancelFunc) {
	outer, _ := ctx.Value(heldKey{}).(*heldIn)
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, heldKey{}, &heldIn{held, outer}))
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

// heldKey is the key of a context's *heldIn.
type heldKey struct{}

// A heldIn is a lock for which WithLock made a context, and those of the
// contexts around it.
type heldIn struct {
	lock  DistributedLock
	outer *heldIn
}

// Held returns nil if target is held by the lock of ctx: that is the lock of the
// Do or WithLock that made ctx, or a context around it. Otherwise it returns what
// the lock's Err does or, if none of these locks is one of target, an error that
// matches ErrNotAcquired. It looks at the clock, and does not ask the server.
//
// A function that must not run without a lock can say so in its first lines, and
// look again before each step:
//
//	if err := swanlock.Held(ctx, "/lake/checkpoint"); err != nil {
//		return err
//	}
//
// Targets are told apart by KeyOf. A lock of several, such as one of multilock,
// says in a method Targets() []string what it locks. The end of ctx itself does not
// matter.
func Held(ctx context.Context, target string) (err error) {
	key := KeyOf(target)
	in, _ := ctx.Value(heldKey{}).(*heldIn)
	for ; in != nil; in = in.outer {
		if !slices.ContainsFunc(targetsOf(in.lock), func(t string) bool { return KeyOf(t) == key }) {
			continue
		}
		over := in.lock.Err()
		if over == nil {
			return nil
		}
		if err == nil {
			err = over
		}
	}
	if err == nil {
		err = fmt.Errorf("swanlock: %s: %w: this context is not one of its lock: use Do or WithLock", quoted.Text(target), ErrNotAcquired)
	}
	return err
}

func targetsOf(held DistributedLock) []string {
	type several interface {
		DistributedLock
		Targets() []string
	}
	if l, ok := As[several](held); ok {
		return l.Targets()
	}
	return []string{held.Info().Target}
}
