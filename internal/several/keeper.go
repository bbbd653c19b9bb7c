package several

import (
	"context"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Keeper has the locks of an acquire that takes several, and refreshes them while it
// takes the rest. One Keeper is for the whole acquire, since each of many waits may be
// short. A lock that is lost all the same is found by Renew.
type Keeper struct {
	options swanlock.Options
	stop    func() // nil: it has not begun
	fate    any    // of the last refresh: see Caught

	mu    sync.Mutex
	locks []swanlock.DistributedLock
}

// NewKeeper returns a Keeper of locks that are acquired with o. It has none yet. End
// is to be deferred.
func NewKeeper(o swanlock.Options) *Keeper { return &Keeper{options: o} }

// Add gives locks to k.
func (k *Keeper) Add(locks ...swanlock.DistributedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.locks = append(k.locks, locks...)
}

// Len returns how many locks k has.
func (k *Keeper) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.locks)
}

// Keep has k refresh its locks, until Take or End.
func (k *Keeper) Keep() {
	if k.options.TTL == 0 || k.options.AutoRefresh || k.Len() == 0 {
		return
	}
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
				if Caught(func() { k.refresh(ctx) }, func(fate any) { k.fate = fate }); k.fate != nil {
					return
				}
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

// Take returns the locks, which are the caller's from now on. No refresh is under way.
// If one has panicked, the locks are freed, and Take panics; likewise if it has ended
// its goroutine.
func (k *Keeper) Take() []swanlock.DistributedLock {
	if k.stop != nil {
		k.stop()
	}
	k.mu.Lock()
	locks := k.locks
	k.locks = nil
	k.mu.Unlock()
	if fate := k.fate; fate != nil {
		k.fate = nil
		GiveBack(context.Background(), locks)
		Repeat(fate)
	}
	return locks
}

// End frees the locks that nobody has taken: the acquire has failed, or a locker has
// panicked.
func (k *Keeper) End(ctx context.Context) { GiveBack(ctx, k.Take()) }
