package locktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenOptions = []brokenLocker{
	// Options.
	{name: "no fence", caughtBy: []string{"FenceRises", "LateHolder"}, backend: sessions(options(func(o *swanlock.Options) { o.Fence = false }))},
	{name: "a fence of the locker's own", caughtBy: []string{"FenceRises"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var fence uint64
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				fence++
				mine := fence
				return brokenLock{DistributedLock: held, info: func() swanlock.Info { i := held.Info(); i.Fence = mine; return i }}, nil
			}
		}))},
	{name: "a fence from before the wait", caughtBy: []string{"FenceRises"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				early, err := space.Acquire(context.WithoutCancel(ctx), "the sequence", swanlock.WithFence())
				if err != nil {
					return nil, err
				}
				fence := early.Info().Fence
				_ = early.Release(ctx)
				if !wait { // a fence of its own, later
					return next(ctx, wait, target, opts)
				}
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				return brokenLock{DistributedLock: held, info: func() swanlock.Info { i := held.Info(); i.Fence = min(i.Fence, fence-1); return i }}, nil
			}
		}))},
	{name: "a shared lock's fence is ignored", caughtBy: []string{"SharedFenceIsRefused"}, backend: sessions(
		options(func(o *swanlock.Options) { o.Fence = o.Fence && !o.Shared }))},
	{name: "readers are writers", caughtBy: []string{"Shared", "WriterGivesUp"}, backend: sessions(
		options(func(o *swanlock.Options) { o.Shared = false }))},
	{name: "writers are readers", caughtBy: []string{"Shared", "SharedWaits"}, backend: sessions(
		options(func(o *swanlock.Options) { o.Shared, o.Fence = true, false }))},
	{name: "no TTL", caughtBy: []string{"Expires", "LateHolder", "TwoTTLs", "DoExpires"}, backend: sessions(
		options(func(o *swanlock.Options) { o.TTL, o.AutoRefresh = 0, false }))},
	{name: "half a TTL", caughtBy: []string{"RefreshKeeps"}, backend: sessions(
		options(func(o *swanlock.Options) { o.TTL /= 5 }))},
	{name: "expires at once", caughtBy: []string{"Expires"}, backend: sessions(
		options(func(o *swanlock.Options) { o.TTL /= 3 }))},
	{name: "no auto-refresh", caughtBy: []string{"AutoRefreshKeeps"}, backend: sessions(
		options(func(o *swanlock.Options) { o.AutoRefresh = false }))},
	{name: "auto-refresh unasked", caughtBy: []string{"Expires", "TwoTTLs", "DoExpires"}, backend: sessions(
		options(func(o *swanlock.Options) { o.AutoRefresh = o.TTL > 0 }))},
	{name: "auto-refresh goes on after release", caughtBy: []string{"AutoRefreshStops"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if o, _ := swanlock.NewOptions(target, opts...); err == nil && o.AutoRefresh {
					time.AfterFunc(o.TTL, func() { _, _ = space.TryAcquire(ctx, target) }) // a heartbeat that locks again
				}
				return held, err
			}
		}))},
	{name: "refresh does not restart the TTL", caughtBy: []string{"RefreshKeeps", "TwoTTLs"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{refresh: func(context.Context) error { return held.Err() }}
		}))},
	{name: "expired is only lost", caughtBy: []string{"Expires", "LateHolder", "TwoTTLs", "DoExpires"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{err: func() error {
				if err := held.Err(); errors.Is(err, swanlock.ErrExpired) {
					return swanlock.ErrLost
				}
				return held.Err()
			}, release: func(ctx context.Context) error {
				if err := held.Release(ctx); err != nil {
					return swanlock.ErrLost
				}
				return nil
			}, refresh: func(ctx context.Context) error {
				if err := held.Refresh(ctx); errors.Is(err, swanlock.ErrExpired) {
					return swanlock.ErrLost
				} else {
					return err
				}
			}}
		}))},
	{name: "release after a loss says nothing", caughtBy: []string{"Expires", "LateHolder", "LossIsSeen", "LossIsSeenAtRelease", "LossStopsDo"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{release: func(ctx context.Context) error { _ = held.Release(ctx); return nil }}
		}))},
	{name: "one refresh refreshes all of the session", caughtBy: []string{"TwoTTLs"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var all []swanlock.DistributedLock
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				all = append(all, held)
				return brokenLock{DistributedLock: held, refresh: func(ctx context.Context) error {
					for _, other := range all {
						_ = other.Refresh(ctx)
					}
					return held.Refresh(ctx)
				}}, nil
			}
		}))},
	{name: "one TTL ends all of the session", caughtBy: []string{"TwoTTLs"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			var all []string
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				all = append(all, target)
				if held.Info().TTL > 0 {
					context.AfterFunc(doneContext{held.Done()}, func() {
						if errors.Is(held.Err(), swanlock.ErrExpired) {
							for _, target := range all {
								space.Lose(target, swanlock.ErrExpired)
							}
						}
					})
				}
				return held, nil
			}
		}))},
	{name: "unsupported options are ignored", caughtBy: []string{"UnsupportedIsRefused"}, backend: sessions(nil, WithoutTTL("it has one"))},
	{name: "unsupported fence is given", caughtBy: []string{"UnsupportedIsRefused"}, backend: sessions(nil, WithoutFence("it has one"))},
	{name: "unsupported readers are let in", caughtBy: []string{"UnsupportedIsRefused"}, backend: sessions(nil, WithoutShared("it has some"))},

	// Info and input.
	{name: "the target is cleaned", caughtBy: []string{"OddTargets"}, backend: sessions(info(func(i *swanlock.Info) { i.Target = strings.TrimRight(i.Target, "/ ") }))},
	{name: "the target is cut", caughtBy: []string{"OddTargets"}, backend: sessions(info(func(i *swanlock.Info) { i.Target = i.Target[:min(len(i.Target), 255)] }))},
	{name: "long targets fail", caughtBy: []string{"OddTargets"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if len(target) > 2700 {
					return nil, errors.New("index row size exceeds btree maximum")
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "the error shows a long target whole", caughtBy: []string{"OddTargets"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					err = fmt.Errorf("%q: %w", target, err)
				}
				return held, err
			}
		}))},
	{name: "no owner", caughtBy: []string{"Info", "NilOptions"}, backend: sessions(info(func(i *swanlock.Info) { i.Owner = "" }))},
	{name: "owner is fixed", caughtBy: []string{"Info", "NilOptions"}, backend: sessions(options(func(o *swanlock.Options) { o.Owner = "me" }))},
	{name: "no TTL in Info", caughtBy: []string{"Info"}, backend: sessions(info(func(i *swanlock.Info) { i.TTL = 0 }))},
	{name: "no Shared in Info", caughtBy: []string{"Info"}, backend: sessions(info(func(i *swanlock.Info) { i.Shared = false }))},
	{name: "no AcquiredAt", caughtBy: []string{"Info"}, backend: sessions(info(func(i *swanlock.Info) { i.AcquiredAt = time.Time{} }))},
	{name: "AcquiredAt is when it ends", caughtBy: []string{"Info"}, backend: sessions(info(func(i *swanlock.Info) { i.AcquiredAt = i.AcquiredAt.Add(time.Minute) }))},
	{name: "Info changes", caughtBy: []string{"AfterRelease", "FailedTryChangesNothing"}, backend: sessions(func() breaker {
		var n uint64
		return locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{info: func() swanlock.Info { i := held.Info(); n++; i.Fence = n; return i }}
		})
	}())},
	{name: "nil options panic", caughtBy: []string{"NilOptions"}, panics: true, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				var o swanlock.Options
				for _, opt := range opts {
					opt(&o)
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "bad targets are mended", caughtBy: []string{"BadInput"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				return next(ctx, wait, strings.ToValidUTF8(strings.Trim(target, "\x00"), ""), opts)
			}
		}))},
	{name: "bad owners and TTLs are mended", caughtBy: []string{"BadInput"}, backend: sessions(options(func(o *swanlock.Options) {
		o.Owner, o.AutoRefresh = strings.ToValidUTF8(strings.Trim(o.Owner, "a\x00b"), ""), o.AutoRefresh && o.TTL > 0
		if o.TTL < time.Millisecond {
			o.TTL = 0
		}
	}))},
	{name: "bad input is held elsewhere", caughtBy: []string{"BadInput"}, backend: sessions(
		errs(func(_ context.Context, err error) error { return errors.Join(swanlock.ErrNotAcquired, err) }))},
	{name: "bad input is held", caughtBy: []string{"BadInput"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil && !errors.Is(err, swanlock.ErrNotAcquired) {
					_, _ = space.TryAcquire(ctx, target)
				}
				return held, err
			}
		}))},
}

// doneContext is a context that ends with a lock.
type doneContext struct{ done <-chan struct{} }

func (d doneContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (d doneContext) Done() <-chan struct{}       { return d.done }
func (d doneContext) Value(any) any               { return nil }
func (d doneContext) Err() error {
	select {
	case <-d.done:
		return context.Canceled
	default:
		return nil
	}
}
