package mocks

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

var _ swanlock.Locker = (*Locker)(nil)

// A Locker is a swanlock.Locker that a test makes do what it wants. The zero
// Locker is ready for use: it refuses what every locker refuses (bad input, a
// context that has ended) and grants everything else with a *DistributedLock,
// even a target that is held, with fences that rise. Do not copy a Locker, and
// set its functions before it is used.
type Locker struct {
	// TryAcquireFunc and AcquireFunc are called instead, if they are set.
	TryAcquireFunc func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error)
	AcquireFunc    func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error)

	mu    sync.Mutex
	fence uint64
	calls []AcquireCall
}

// An AcquireCall is a call to a Locker that has returned.
type AcquireCall struct {
	Method  string // "TryAcquire" or "Acquire"
	Context context.Context
	Target  string
	Options swanlock.Options // what the options add up to
	Lock    swanlock.DistributedLock
	Err     error
}

// TryAcquire calls TryAcquireFunc, or grants the lock.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.acquire("TryAcquire", l.TryAcquireFunc, ctx, target, opts)
}

// Acquire calls AcquireFunc, or grants the lock.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.acquire("Acquire", l.AcquireFunc, ctx, target, opts)
}

// Calls returns the calls so far, in the order in which they returned.
func (l *Locker) Calls() []AcquireCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

type acquireFunc func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error)

func (l *Locker) acquire(method string, f acquireFunc, ctx context.Context, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
	if f == nil {
		f = l.grant
	}
	held, err := f(ctx, target, opts...)
	o, _ := swanlock.NewOptions(target, opts...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, AcquireCall{method, ctx, target, o, held, err})
	return held, err
}

func (l *Locker) grant(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("mocks: acquire %q: %w: %w", target, swanlock.ErrNotAcquired, context.Cause(ctx))
	}
	info := swanlock.Info{Target: target, Owner: o.Owner, TTL: o.TTL, AcquiredAt: time.Now(), Shared: o.Shared}
	if o.Fence {
		l.mu.Lock()
		l.fence++
		info.Fence = l.fence
		l.mu.Unlock()
	}
	return &DistributedLock{info: info}, nil
}
