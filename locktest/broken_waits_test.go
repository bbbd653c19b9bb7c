package locktest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenWaits = []brokenLocker{
	{name: "forgets the TTL while it waits", caughtBy: []string{"ExpiresAfterAWait"}, backend: sessions(
		forgetful(func(o *swanlock.Options) { o.TTL, o.AutoRefresh = 0, false }))},
	{name: "forgets to refresh what it has waited for", caughtBy: []string{"AutoRefreshAfterAWait"}, backend: sessions(
		forgetful(func(o *swanlock.Options) { o.AutoRefresh = false }))},
	{name: "forgets the owner while it waits", caughtBy: []string{"AcquireWaits"}, backend: sessions(
		forgetful(func(o *swanlock.Options) { o.Owner = "forgotten" }))},
	// Waiting.
	{name: "Acquire does not wait", caughtBy: []string{"AcquireWaits", "EveryWaiterIsServed", "LineGoesOn", "SharedWaits"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, _ bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				return next(ctx, false, target, opts)
			}
		}))},
	{name: "the wait's cause is lost", caughtBy: []string{"EndedContext", "WaitCutShort"}, backend: sessions(
		errs(func(ctx context.Context, err error) error {
			if ctx.Err() != nil {
				return errors.Join(swanlock.ErrNotAcquired, ctx.Err())
			}
			return err
		}))},
	{name: "the wait's error is lost", caughtBy: []string{"EndedContext", "WaitCutShort", "Do"}, backend: sessions(
		errs(func(ctx context.Context, err error) error {
			if ctx.Err() != nil {
				return swanlock.ErrNotAcquired
			}
			return err
		}))},
	{name: "an ended context acquires", caughtBy: []string{"EndedContext"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if !wait {
					ctx = context.WithoutCancel(ctx)
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "an ended context acquires and says it did not", caughtBy: []string{"EndedContext"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(context.WithoutCancel(ctx), false, target, opts)
				if ctx.Err() != nil {
					return nil, errors.Join(swanlock.ErrNotAcquired, context.Cause(ctx))
				}
				if err != nil && wait {
					return next(ctx, wait, target, opts)
				}
				return held, err
			}
		}))},
	{name: "the wait goes on behind the caller's back", caughtBy: []string{"WaitCutShort"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if !wait {
					return next(ctx, wait, target, opts)
				}
				type result struct {
					held swanlock.DistributedLock
					err  error
				}
				got := make(chan result, 1)
				go func() {
					held, err := next(context.WithoutCancel(ctx), wait, target, opts)
					got <- result{held, err}
				}()
				select {
				case r := <-got:
					return r.held, r.err
				case <-ctx.Done():
					return nil, errors.Join(swanlock.ErrNotAcquired, context.Cause(ctx))
				}
			}
		}))},
	{name: "a wait cut short ends the session", caughtBy: []string{"WaitCutShort"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			var all []string
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err == nil {
					all = append(all, target)
				} else if ctx.Err() != nil {
					for _, target := range all {
						space.Lose(target, nil)
					}
				}
				return held, err
			}
		}))},
	{name: "a waiter that leaves ends the line", caughtBy: []string{"LineGoesOn"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if !wait {
					return next(ctx, wait, target, opts)
				}
				shared := lineOf(target)
				all, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(shared.ctx, cancel)()
				held, err := next(all, wait, target, opts)
				if err != nil {
					shared.cancel()
				}
				return held, err
			}
		}))},
	{name: "a wait blocks the locker", caughtBy: []string{"WaitBlocksNothing"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			turn := make(chan struct{}, 1)
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				select {
				case turn <- struct{}{}:
					defer func() { <-turn }()
				case <-ctx.Done():
					return nil, errors.Join(swanlock.ErrNotAcquired, context.Cause(ctx))
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "the fastest poller gets it", caughtBy: []string{"Fair"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				interval := 64 * time.Millisecond >> (arrivals.Add(1) % 7) // the last to come, nearly
				for {
					held, err := next(ctx, false, target, opts)
					if !wait || err == nil || errors.Is(err, swanlock.ErrAlreadyHeld) {
						return held, err
					}
					select {
					case <-ctx.Done():
						return nil, err
					case <-time.After(interval):
					}
				}
			}
		}))},
}

// A brokenLine is one that a waiter ends for all when it leaves.
type brokenLine struct {
	ctx    context.Context
	cancel context.CancelFunc
}

var brokenLines sync.Map

func lineOf(target string) brokenLine {
	ctx, cancel := context.WithCancel(context.Background())
	line, _ := brokenLines.LoadOrStore(target, brokenLine{ctx, cancel})
	return line.(brokenLine)
}

// arrivals counts acquires.
var arrivals atomic.Int64

// forgetful has another way to take a lock that must be waited for, which forgets some
// of its options.
func forgetful(forget func(*swanlock.Options)) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			held, err := next(ctx, false, target, opts)
			if !wait || !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) {
				return held, err
			}
			o, _ := swanlock.NewOptions(target, opts...)
			held, err = next(ctx, true, target, append(opts[:len(opts):len(opts)], forget))
			if err != nil {
				return nil, err
			}
			return brokenLock{
				DistributedLock: held,
				info:            func() swanlock.Info { i := held.Info(); i.TTL = o.TTL; return i },
				deadline: func() (time.Time, bool) {
					if d, ok := held.Deadline(); ok {
						return d, ok
					}
					return held.Info().AcquiredAt.Add(o.TTL), o.TTL > 0
				},
			}, nil
		}
	})
}
