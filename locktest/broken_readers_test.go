package locktest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenReaders = []brokenLocker{
	{name: "readers have no deadline", caughtBy: []string{"ReadersExpire"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) {
			d, ok := held.Deadline()
			return d, ok && !held.Info().Shared
		}))},
	{name: "a reader's deadline is later than its end", caughtBy: []string{"ReadersExpire"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) {
			d, ok := held.Deadline()
			if held.Info().Shared {
				d = d.Add(held.Info().TTL)
			}
			return d, ok
		}))},
	{name: "readers are not refreshed in the background", caughtBy: []string{"AutoRefreshKeeps"}, backend: sessions(
		options(func(o *swanlock.Options) { o.AutoRefresh = o.AutoRefresh && !o.Shared }))},
	{name: "readers have no TTL", caughtBy: []string{"ReadersExpire"}, backend: sessions(
		asks(func(o *swanlock.Options) {
			if o.Shared {
				o.TTL, o.AutoRefresh = 0, false
			}
		}))},
	{name: "one reader's refresh refreshes all readers", caughtBy: []string{"ReadersExpire"}, backend: func() backend {
		var mu sync.Mutex
		readers := map[swanlock.Key][]swanlock.DistributedLock{}
		return sessions(locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			if !held.Info().Shared {
				return brokenLock{}
			}
			mu.Lock()
			defer mu.Unlock()
			key := swanlock.KeyOf(held.Info().Target)
			readers[key] = append(readers[key], held)
			return brokenLock{refresh: func(ctx context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				for _, other := range readers[key] {
					_ = other.Refresh(ctx)
				}
				return held.Refresh(ctx)
			}}
		}))
	}()},
	{name: "a reader that expires ends all readers", caughtBy: []string{"ReadersExpire"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, space *memlock.Locker) brokenLock {
			if held.Info().Shared {
				context.AfterFunc(doneContext{held.Done()}, func() {
					if errors.Is(held.Err(), swanlock.ErrExpired) {
						space.Lose(held.Info().Target, nil)
					}
				})
			}
			return brokenLock{}
		}))},
	{name: "a reader has its writer's fence", caughtBy: []string{"Info"}, backend: sessions(
		info(func(i *swanlock.Info) {
			if i.Shared {
				i.Fence = 7
			}
		}))},
	{name: "a fence that nobody asked for does not rise", caughtBy: []string{"FenceRises"}, backend: sessions(
		info(func(i *swanlock.Info) {
			if i.Fence == 0 && !i.Shared {
				i.Fence = 1
			}
		}))},
	{name: "the TTL begins with the wait", caughtBy: []string{"WaitsLongerThanItsTTL"}, backend: sessions(
		acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				start := time.Now()
				held, err := next(ctx, wait, target, opts)
				if err == nil && held.Info().TTL > 0 && time.Since(start) >= held.Info().TTL {
					space.Lose(target, swanlock.ErrExpired)
				}
				return held, err
			}
		}))},
	{name: "a session keeps in mind what has expired", caughtBy: []string{"OwnSuccessor"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var mu sync.Mutex
			mine := map[swanlock.Key]bool{}
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				key := swanlock.KeyOf(target)
				mu.Lock()
				is := mine[key]
				mu.Unlock()
				if is {
					return nil, swanlock.ErrAlreadyHeld
				}
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				mu.Lock()
				defer mu.Unlock()
				mine[key] = true
				return brokenLock{DistributedLock: held, release: func(ctx context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					delete(mine, key)
					return held.Release(ctx)
				}}, nil
			}
		}))},
	{name: "a late release frees what the same session holds anew", caughtBy: []string{"OwnSuccessor"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var mu sync.Mutex
			mine := map[swanlock.Key]swanlock.DistributedLock{}
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				mu.Lock()
				defer mu.Unlock()
				mine[swanlock.KeyOf(target)] = held
				return brokenLock{DistributedLock: held, release: func(ctx context.Context) error {
					err := held.Release(ctx)
					mu.Lock()
					defer mu.Unlock()
					if errors.Is(err, swanlock.ErrExpired) { // DEL key, by the name of the session
						_ = mine[swanlock.KeyOf(target)].Release(ctx)
					}
					return err
				}}, nil
			}
		}))},
	{name: "a late refresh says that the session's new lock is the old one", caughtBy: []string{"OwnSuccessor"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var mu sync.Mutex
			mine := map[swanlock.Key]swanlock.DistributedLock{}
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if err != nil {
					return nil, err
				}
				mu.Lock()
				defer mu.Unlock()
				mine[swanlock.KeyOf(target)] = held
				return brokenLock{DistributedLock: held, refresh: func(ctx context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					if errors.Is(held.Err(), swanlock.ErrExpired) {
						return mine[swanlock.KeyOf(target)].Refresh(ctx)
					}
					return held.Refresh(ctx)
				}}, nil
			}
		}))},
	{name: "a refresh whose context has ended does not look at the lock", caughtBy: []string{"AfterRelease", "LossIsSeen"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{refresh: func(ctx context.Context) error {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return held.Refresh(ctx)
			}}
		}))},
	{name: "Done is closed when the server frees, long after the deadline", caughtBy: []string{"Expires"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				o, err := swanlock.NewOptions(target, opts...)
				if err != nil {
					return nil, err
				}
				held, err := next(ctx, wait, target, append(opts[:len(opts):len(opts)], func(o *swanlock.Options) { o.TTL *= 2 }))
				if err != nil {
					return nil, err
				}
				return brokenLock{DistributedLock: held,
					info:     func() swanlock.Info { i := held.Info(); i.TTL = o.TTL; return i },
					deadline: func() (time.Time, bool) { d, ok := held.Deadline(); return d.Add(-o.TTL), ok }}, nil
			}
		}), ShortTTL(10*time.Second), FreesLate(2, "twice the TTL"))},
}

// asks changes the options, and what the lock says of itself is what was asked for.
func asks(change func(*swanlock.Options)) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			o, err := swanlock.NewOptions(target, opts...)
			if err != nil {
				return nil, err
			}
			held, err := next(ctx, wait, target, append(opts[:len(opts):len(opts)], change))
			if err != nil {
				return nil, err
			}
			return brokenLock{DistributedLock: held, info: func() swanlock.Info {
				i := held.Info()
				i.TTL, i.Shared = o.TTL, o.Shared
				return i
			}}, nil
		}
	})
}
