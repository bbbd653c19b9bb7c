package swanlock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The errors that every locker returns. Look for them with errors.Is: a
// locker's own errors wrap them, name the package, and say more.
var (
	// ErrNotAcquired says that the lock is held elsewhere, or that the wait
	// for it was cut short; then the error matches context.Cause(ctx) too.
	// The caller holds nothing.
	//
	// So a caller looks at its own context first. Otherwise a job that is
	// skipped when another host does it would be skipped at a shutdown too, as
	// if it were done:
	//
	//	held, err := locker.TryAcquire(ctx, target)
	//	switch {
	//	case err == nil:
	//		defer held.Release(ctx)
	//	case ctx.Err() != nil:
	//		return context.Cause(ctx) // the caller is to stop
	//	case errors.Is(err, swanlock.ErrNotAcquired):
	//		return nil // another host does it
	//	default:
	//		return err // the locker failed
	//	}
	ErrNotAcquired = errors.New("not acquired")

	// ErrAlreadyHeld says that the session itself holds the target already: a
	// lock cannot be taken twice. It matches ErrNotAcquired as well, and the
	// lock that is held is left as it is.
	ErrAlreadyHeld = fmt.Errorf("%w: this session holds it already", ErrNotAcquired)

	// ErrLost says that the lock ended without Release: its session died, or
	// the lock was taken away. The caller must stop what the lock guarded.
	ErrLost = errors.New("lock lost")

	// ErrExpired says that the lock was lost because its TTL ran out. It
	// matches ErrLost as well.
	ErrExpired = fmt.Errorf("%w: its TTL ran out", ErrLost)

	// ErrReleased says that the lock was used after Release.
	ErrReleased = errors.New("lock released")
)

// Info says what a lock is. It does not change while the lock lives.
type Info struct {
	Target     string        // what is locked, as the caller named it
	Owner      string        // the holder's name: WithOwner, or host/pid
	TTL        time.Duration // how long it lives without a refresh; 0: as long as its session
	AcquiredAt time.Time     // by the holder's clock, no later than the grant
	Fence      uint64        // rises with every exclusive grant that has one; 0: it has none
	Shared     bool          // held together with other readers
}

// A DistributedLock is a lock that is held, or was. All its methods may be
// called by several goroutines at once.
type DistributedLock interface {
	// Info returns what was locked, and how.
	Info() Info

	// Refresh proves that the lock is still held and restarts its TTL. It
	// returns nil only if it has done both. After a loss it returns an error
	// that matches ErrLost, after Release one that matches ErrReleased. Any
	// other error leaves the lock as it was: held, with its old deadline; if
	// ctx has ended, it matches context.Cause(ctx).
	Refresh(ctx context.Context) error

	// Release frees the lock, also when ctx has ended. If the lock was lost
	// before, or if it is not certain that it was held until now, the first
	// call's error matches ErrLost, as does that of Err from then on; the lock
	// is free even then. Any later call returns nil. After an error with which
	// Err is nil the lock is still held, since nothing could be sent, as with
	// pglock.ErrBusy: then Release may be called again.
	Release(ctx context.Context) error

	// Done returns a channel that is closed once the lock is no longer held: by
	// release, by loss, or by the end of its TTL.
	Done() <-chan struct{}

	// Err returns nil while the lock is held, then ErrReleased or an error that
	// matches ErrLost and says why. It looks at the clock, and does not ask the
	// server.
	Err() error

	// Deadline returns when the holder must have stopped what the lock guards,
	// unless the lock is refreshed before. ok is false if there is no such
	// time, as without a TTL. The deadline is by this machine's clock, and
	// never later than the time at which the lock is free for others, since it
	// counts from before the last refresh was sent. Each refresh moves it on,
	// also one in the background. The lock may be lost sooner, for another
	// reason than its TTL; once it is no longer held, its deadline means
	// nothing.
	Deadline() (deadline time.Time, ok bool)
}

// A Locker takes locks. All its methods may be called by several goroutines
// at once. Two targets are one if KeyOf says so, however they are spelled; only
// redislock tells apart different paths that have one key. Each lock's Info has
// the spelling that its own caller used.
//
// Both methods refuse bad input (an empty target, a NUL byte, a negative TTL)
// before anything is sent, and an option that they cannot honour with an error
// that matches errors.ErrUnsupported; neither matches ErrNotAcquired. After any
// error nothing is held. A ctx that has ended acquires nothing, and the error
// matches context.Cause(ctx).
type Locker interface {
	// TryAcquire takes the lock if it is free now. If it is not, the error
	// matches ErrNotAcquired.
	TryAcquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error)

	// Acquire waits for the lock until ctx ends. The error then matches both
	// ErrNotAcquired and context.Cause(ctx). A target that this very session
	// holds is refused at once with ErrAlreadyHeld, since the wait would never
	// end.
	Acquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error)
}
