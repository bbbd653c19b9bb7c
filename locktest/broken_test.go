package locktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

// A brokenLocker breaks one promise, as others did or easily could, and names
// the cases that must notice.
type brokenLocker struct {
	name     string
	caughtBy []string
	backend
	panics bool
}

var brokenLockers = slices.Concat(brokenLocks, brokenKeys, brokenWaits, brokenOptions, brokenDeadlines, brokenMany, brokenPlaces, brokenLeases, brokenReaders)

// A backend makes, for each case anew, the lockers that it runs against.
type backend struct {
	new  func() func() swanlock.Locker
	opts []Option
}

// A breaker wraps a sound locker on space and breaks it.
type breaker func(sound *memlock.Locker, space *memlock.Locker) swanlock.Locker

// The space of the case that runs: cases run one after another.
var current *memlock.Locker

func lose(_ *testing.T, held swanlock.DistributedLock) { current.Lose(held.Info().Target, nil) }

func sessions(b breaker, opts ...Option) backend {
	return made(func(space *memlock.Locker) *memlock.Locker { return space.Session() }, b, opts...)
}

func pools(b breaker, opts ...Option) backend {
	return made(func(space *memlock.Locker) *memlock.Locker { return space }, b, append(opts, Pooled("memlock.New is"))...)
}

func made(sound func(space *memlock.Locker) *memlock.Locker, b breaker, opts ...Option) backend {
	return backend{
		new: func() func() swanlock.Locker {
			space := memlock.New()
			current = space
			return func() swanlock.Locker {
				if b == nil {
					return sound(space)
				}
				return b(sound(space), space)
			}
		},
		opts: append([]Option{ShortTTL(100 * time.Millisecond), Fair(), Lose(lose)}, opts...),
	}
}

// A locker whose two methods are one function.
type funcLocker func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error)

func (f funcLocker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f(ctx, false, target, opts)
}

func (f funcLocker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f(ctx, true, target, opts)
}

// sound makes a funcLocker of l, for others to wrap.
func sound(l swanlock.Locker) funcLocker {
	return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
		if wait {
			return l.Acquire(ctx, target, opts...)
		}
		return l.TryAcquire(ctx, target, opts...)
	}
}

// acquires wraps the acquiring.
func acquires(wrap func(next funcLocker, space *memlock.Locker) funcLocker) breaker {
	return func(l, space *memlock.Locker) swanlock.Locker { return wrap(sound(l), space) }
}

// errs changes the error of an acquire.
func errs(change func(ctx context.Context, err error) error) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			held, err := next(ctx, wait, target, opts)
			if err != nil {
				err = change(ctx, err)
			}
			return held, err
		}
	})
}

// options changes the options before they reach the sound locker.
func options(change func(*swanlock.Options)) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			return next(ctx, wait, target, append(opts[:len(opts):len(opts)], change))
		}
	})
}

// A brokenLock is a sound one save for the functions that are set.
type brokenLock struct {
	swanlock.DistributedLock
	info    func() swanlock.Info
	refresh func(context.Context) error
	release func(context.Context) error
	done    func() <-chan struct{}
	err     func() error

	deadline func() (time.Time, bool)
}

func (k brokenLock) Info() swanlock.Info {
	if k.info != nil {
		return k.info()
	}
	return k.DistributedLock.Info()
}

func (k brokenLock) Refresh(ctx context.Context) error {
	if k.refresh != nil {
		return k.refresh(ctx)
	}
	return k.DistributedLock.Refresh(ctx)
}

func (k brokenLock) Release(ctx context.Context) error {
	if k.release != nil {
		return k.release(ctx)
	}
	return k.DistributedLock.Release(ctx)
}

func (k brokenLock) Done() <-chan struct{} {
	if k.done != nil {
		return k.done()
	}
	return k.DistributedLock.Done()
}

func (k brokenLock) Deadline() (time.Time, bool) {
	if k.deadline != nil {
		return k.deadline()
	}
	return k.DistributedLock.Deadline()
}

func (k brokenLock) Err() error {
	if k.err != nil {
		return k.err()
	}
	return k.DistributedLock.Err()
}

// locks breaks each lock that was acquired.
func locks(wrap func(held swanlock.DistributedLock, space *memlock.Locker) brokenLock) breaker {
	return acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			held, err := next(ctx, wait, target, opts)
			if err != nil {
				return nil, err
			}
			k := wrap(held, space)
			k.DistributedLock = held
			return k, nil
		}
	})
}

// info changes what a lock says of itself.
func info(change func(*swanlock.Info)) breaker {
	return locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
		return brokenLock{info: func() swanlock.Info {
			i := held.Info()
			change(&i)
			return i
		}}
	})
}

// Lockers that can do less than memlock, and say so.
var (
	plain = sessions(refuses(func(o swanlock.Options) bool { return o.TTL > 0 || o.Fence || o.Shared }),
		WithoutTTL("no clock"), WithoutFence("no counter"), WithoutShared("no readers"))
	fenceless = sessions(refuses(func(o swanlock.Options) bool { return o.Fence || o.AutoRefresh }),
		WithoutFence("no counter"), WithoutAutoRefresh("no background"))
)

func refuses(unsupported func(swanlock.Options) bool) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			o, err := swanlock.NewOptions(target, opts...)
			if err != nil {
				return nil, err
			}
			if unsupported(o) {
				return nil, fmt.Errorf("refused: %w", errors.ErrUnsupported)
			}
			return next(ctx, wait, target, opts)
		}
	})
}
