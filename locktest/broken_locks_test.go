package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenLocks = []brokenLocker{
	// These grant it to the wrong callers.
	{
		name: "grants to everybody",
		caughtBy: []string{"Exclusion", "TargetsAreApart", "FailedTryChangesNothing", "OddTargets", "OneLockerManyGoroutines",
			"Do", "AcquireWaits", "Shared", "SharedWaits", "RefreshKeeps", "AutoRefreshKeeps"},
		backend: sessions(func(*memlock.Locker, *memlock.Locker) swanlock.Locker { return memlock.New() }),
	},
	{
		name:     "grants to everybody, without a race for the detector",
		caughtBy: []string{"Storm"},
		backend: sessions(locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			fence := rand.Uint64() // as if grants were not in order
			return brokenLock{info: func() swanlock.Info { i := held.Info(); i.Fence = fence; return i }}
		})),
	},
	{name: "says held elsewhere of a free target", caughtBy: []string{"TryAcquire"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if !wait {
					return nil, swanlock.ErrNotAcquired
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "returns neither lock nor error", caughtBy: []string{"Exclusion"}, backend: sessions(
		errs(func(context.Context, error) error { return nil }))},
	{name: "returns a nil lock in an interface", caughtBy: []string{"Exclusion"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return (*brokenLock)(nil), err
				}
				return held, nil
			}
		}))},
	{name: "does not say ErrNotAcquired", caughtBy: []string{"Exclusion", "EndedContext", "WaitCutShort"}, backend: sessions(
		errs(func(ctx context.Context, err error) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return errors.New("held by another")
		}))},
	{name: "says ErrAlreadyHeld of what others hold", caughtBy: []string{"Exclusion", "WaitCutShort"}, backend: sessions(
		errs(func(_ context.Context, err error) error { return errors.Join(err, swanlock.ErrAlreadyHeld) }))},
	{name: "a failed try frees the lock", caughtBy: []string{"FailedTryChangesNothing", "SameLocker"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if errors.Is(err, swanlock.ErrNotAcquired) {
					space.Lose(target, nil)
				}
				return held, err
			}
		}))},
	{name: "stacks", caughtBy: []string{"SameLocker", "NoUpgrade"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var mu sync.Mutex
			mine := make(map[string]swanlock.DistributedLock)
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				mu.Lock()
				defer mu.Unlock()
				if held := mine[target]; held != nil && held.Err() == nil {
					return held, nil
				}
				held, err := next(ctx, wait, target, opts)
				if err == nil {
					mine[target] = held
				}
				return held, err
			}
		}))},
	{name: "a pool that says it is one session", caughtBy: []string{"SameLocker", "NoUpgrade"},
		backend: made(func(space *memlock.Locker) *memlock.Locker { return space }, nil)},
	{name: "a session that says it is a pool", caughtBy: []string{"SameLocker", "NoUpgrade"},
		backend: sessions(nil, Pooled("it is not"))},
	{name: "one release frees all of the session", caughtBy: []string{"TargetsAreApart"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			var all []swanlock.DistributedLock
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				all = append(all, held)
				return brokenLock{DistributedLock: held, release: func(ctx context.Context) error {
					err := held.Release(ctx)
					for _, other := range all {
						space.Lose(other.Info().Target, nil)
					}
					return err
				}}, nil
			}
		}))},

	// Release, Refresh, Done, Err.
	{name: "second release fails", caughtBy: []string{"ReleaseTwice", "OneLockManyGoroutines"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			var released atomic.Bool
			return brokenLock{release: func(ctx context.Context) error {
				if released.Swap(true) {
					return swanlock.ErrReleased
				}
				return held.Release(ctx)
			}}
		}))},
	{name: "second release after a loss fails", caughtBy: []string{"LossIsSeenAtRelease", "Expires"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{release: func(ctx context.Context) error {
				if err := held.Err(); errors.Is(err, swanlock.ErrLost) {
					return err
				}
				return held.Release(ctx)
			}}
		}))},
	{name: "release frees the target from any holder", caughtBy: []string{"ReleaseTwice", "LateHolder", "LossIsSeen", "LossIsSeenAtRelease", "NoUpgrade", "Shared"},
		backend: sessions(locks(func(held swanlock.DistributedLock, space *memlock.Locker) brokenLock {
			return brokenLock{release: func(ctx context.Context) error {
				err := held.Release(ctx)
				space.Lose(held.Info().Target, nil)
				return err
			}}
		}))},
	{name: "release with an ended context does nothing", caughtBy: []string{"ReleaseWithEndedContext"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{release: func(ctx context.Context) error {
				if ctx.Err() != nil {
					return nil
				}
				return held.Release(ctx)
			}}
		}))},
	{name: "release with an ended context frees and fails", caughtBy: []string{"ReleaseWithEndedContext"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{release: func(ctx context.Context) error {
				return errors.Join(held.Release(ctx), ctx.Err())
			}}
		}))},
	{name: "release does not free", caughtBy: []string{"TryAcquire", "EveryWaiterIsServed"}, backend: sessions(
		locks(func(swanlock.DistributedLock, *memlock.Locker) brokenLock {
			return brokenLock{release: func(context.Context) error { return nil }}
		}))},
	{name: "refresh with an ended context loses the lock", caughtBy: []string{"RefreshWithEndedContext"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, space *memlock.Locker) brokenLock {
			return brokenLock{refresh: func(ctx context.Context) error {
				if ctx.Err() != nil {
					space.Lose(held.Info().Target, nil)
				}
				return held.Refresh(ctx)
			}}
		}))},
	{name: "refresh with an ended context says lost", caughtBy: []string{"RefreshWithEndedContext"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{refresh: func(ctx context.Context) error {
				if ctx.Err() != nil {
					return swanlock.ErrLost
				}
				return held.Refresh(ctx)
			}}
		}))},
	{name: "refresh after the end says nothing", caughtBy: []string{"AfterRelease", "Expires", "LateHolder", "LossIsSeen"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{refresh: func(ctx context.Context) error { _ = held.Refresh(ctx); return nil }}
		}))},
	{name: "released is lost", caughtBy: []string{"AfterRelease", "ReleaseWithEndedContext", "OneLockManyGoroutines", "AutoRefreshStops"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{err: func() error {
				if held.Err() != nil {
					return swanlock.ErrLost
				}
				return nil
			}}
		}))},
	{name: "takes a context's cause for an answer", caughtBy: []string{"CauseIsNoAnswer"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, space *memlock.Locker) brokenLock {
			return brokenLock{refresh: func(ctx context.Context) error {
				time.Sleep(500 * time.Microsecond)
				if errors.Is(context.Cause(ctx), swanlock.ErrLost) {
					space.Lose(held.Info().Target, context.Cause(ctx))
				}
				return held.Refresh(ctx)
			}}
		}))},
	{name: "Err is always nil", caughtBy: []string{"AfterRelease", "Done", "Expires", "LateHolder", "LossIsSeen", "DoExpires", "TwoTTLs"}, backend: sessions(
		locks(func(swanlock.DistributedLock, *memlock.Locker) brokenLock {
			return brokenLock{err: func() error { return nil }}
		}))},
	{name: "Done is never closed", caughtBy: []string{"AfterRelease", "Expires", "LossIsSeen", "LossStopsDo", "DoExpires"}, backend: sessions(
		locks(func(swanlock.DistributedLock, *memlock.Locker) brokenLock {
			return brokenLock{done: func() <-chan struct{} { return nil }}
		}))},
	{name: "Done is closed late", caughtBy: []string{"Done", "Expires"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			late := make(chan struct{})
			go func() { // in a bubble: it ends with the lock, which the case releases
				<-held.Done()
				time.Sleep(50 * time.Millisecond)
				close(late)
			}()
			return brokenLock{done: func() <-chan struct{} { return late }}
		}))},
	{name: "Done is closed from the start", caughtBy: []string{"Done"}, backend: sessions(
		locks(func(swanlock.DistributedLock, *memlock.Locker) brokenLock {
			closed := make(chan struct{})
			close(closed)
			return brokenLock{done: func() <-chan struct{} { return closed }}
		}))},
	{name: "the lock ends with its context", caughtBy: []string{"LockOutlivesContext", "AutoRefreshKeeps"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err == nil {
					context.AfterFunc(ctx, func() { space.Lose(target, ctx.Err()) })
				}
				return held, err
			}
		}))},
}
