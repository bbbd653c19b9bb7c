// Package chain takes the same target from several lockers, as one lock: all of
// them, or none.
//
//	locks := chain.New(files, postgres)
//
// It is for a fleet that moves from one kind of lock to another. While old
// processes lock in the one and new processes in the other, those in between lock
// in both, and so exclude either. Each process goes from old to both, and when no
// process is old any more, from both to new.
package chain

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
	"github.com/swanlake-io/swanlock/internal/several"
)

// New returns a swanlock.Locker that takes each target from all of lockers, in
// their order, which must be the same in all processes: those that wait in another
// order may wait for each other. A locker that is nil, or that is there twice and so
// would wait for itself, or none at all, is an error of each acquire.
//
// Its locks are held while all of their parts are. When one part is lost, the lock
// is lost; the others stay held until Release, which frees the last first. Their
// deadline is the first of the parts'. If Acquire waits for a part, it refreshes
// those that it has; if one is lost all the same, it begins anew.
//
// WithFence is refused with errors.ErrUnsupported: each locker counts for itself.
// So are the options that one of lockers refuses.
func New(lockers ...swanlock.Locker) swanlock.Locker {
	return &chain{slices.Clone(lockers), check(lockers)}
}

type chain struct {
	lockers []swanlock.Locker
	wrong   error // with lockers
}

func check(lockers []swanlock.Locker) error {
	if len(lockers) == 0 {
		return errors.New("chain: it has no lockers")
	}
	for i, l := range lockers {
		if l == nil {
			return fmt.Errorf("chain: locker %d is nil", i+1)
		}
		if !reflect.ValueOf(l).Comparable() {
			continue
		}
		if first := slices.Index(lockers[:i], l); first >= 0 {
			return fmt.Errorf("chain: lockers %d and %d are the same one", first+1, i+1)
		}
	}
	return nil
}

// TryAcquire takes the lock if it is free in all lockers.
func (c *chain) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return c.acquire(ctx, target, opts, swanlock.Locker.TryAcquire)
}

// Acquire waits in each locker until ctx ends.
func (c *chain) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	for {
		held, err := c.acquire(ctx, target, opts, swanlock.Locker.Acquire)
		if !errors.Is(err, several.ErrLostMeanwhile) {
			return held, err
		}
	}
}

func (c *chain) acquire(ctx context.Context, target string, opts []swanlock.Option,
	acquire func(swanlock.Locker, context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error)) (swanlock.DistributedLock, error) {
	o, err := swanlock.NewOptions(target, opts...)
	switch {
	case err != nil:
		return nil, fmt.Errorf("chain: %w", err)
	case c.wrong != nil:
		return nil, c.wrong
	case o.Fence:
		return nil, fmt.Errorf("chain: %s: WithFence: %w: each of its lockers counts for itself", quoted.Text(target), errors.ErrUnsupported)
	}
	keeper := several.NewKeeper(o)
	defer keeper.End(ctx)
	for i, l := range c.lockers {
		keeper.Keep()
		p, err := several.Granted(acquire(l, ctx, target, opts...))
		if err != nil {
			return nil, fmt.Errorf("chain: locker %d: %w", i+1, several.Failed(ctx, err))
		}
		keeper.Add(p)
	}
	parts := keeper.Take()
	info := parts[0].Info()
	info.Fence = 0 // Some lockers give each grant a fence.
	held := several.New(info, parts)
	if err := held.Renew(ctx, o, true); err != nil {
		return nil, fmt.Errorf("chain: %s: %w", quoted.Text(target), err)
	}
	return held, nil
}
