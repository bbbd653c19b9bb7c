package several

import (
	"context"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Keeper refreshes the locks that an acquire has while it takes the rest. One
// Keeper is for the whole acquire, since each of many waits may be short. A lock
// that is lost all the same is found by Renew.
type Keeper struct {
	options swanlock.Options
	stop    func() // nil: it has not begun

	mu    sync.Mutex
	locks []swanlock.DistributedLock
}

// NewKeeper returns a Keeper of locks that are acquired with o. It keeps none yet.
func NewKeeper(o swanlock.Options) *Keeper { return &Keeper{options: o} }

// Keep has k refresh locks, until the next call or Stop.
func (k *Keeper) Keep(locks []swanlock.DistributedLock) {
	if k.options.TTL == 0 || k.options.AutoRefresh || len(locks) == 0 {
		return
	}
	k.mu.Lock()
	k.locks = locks
	k.mu.Unlock()
	if k.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	k.stop = func() { cancel(); <-stopped }
	go func() {
		defer close(stopped)
		tick := time.NewTicker(max(k.options.TTL/10, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				k.refresh(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
}

// refresh refreshes the locks if a third of the TTL of one has passed. They have
// another third to answer, so that a refresh may fail.
func (k *Keeper) refresh(ctx context.Context) {
	k.mu.Lock()
	locks := k.locks
	k.mu.Unlock()
	third := k.options.TTL / 3
	if first, ok := deadline(locks); ok && time.Until(first) > k.options.TTL-third {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, third)
	defer cancel()
	Each(len(locks), func(i int) { _ = locks[i].Refresh(ctx) })
}

// Stop ends the refreshes. It returns when none is under way.
func (k *Keeper) Stop() {
	if k.stop != nil {
		k.stop()
	}
}
