package locktest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenMany = []brokenLocker{
	{name: "now and then the release overtakes the acquire", caughtBy: []string{"ManyPairs"}, backend: sessions(
		locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
			return brokenLock{release: func(ctx context.Context) error {
				if releases.Add(1)%20 == 0 {
					time.AfterFunc(20*time.Millisecond, func() { held.Release(context.Background()) })
					return nil
				}
				return held.Release(ctx)
			}}
		}))},
	{name: "a split vote refuses everybody", caughtBy: []string{"TriesAtOnce"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			var own sync.Mutex
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				own.Lock() // The calls of one locker do not compete.
				defer own.Unlock()
				votes.Add(1)
				defer votes.Add(-1)
				if time.Sleep(time.Millisecond); votes.Load() > 1 {
					time.Sleep(time.Millisecond) // for the others to see it
					return nil, swanlock.ErrNotAcquired
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "a waiter of a file is in the way of its folder", caughtBy: []string{"NestedTargets"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if wait {
					line.Store(target, nil)
					defer line.Delete(target)
				}
				held, err := next(ctx, wait, target, opts)
				for err == nil && ctx.Err() == nil && waitsBelow(target) {
					time.Sleep(10 * time.Millisecond)
				}
				return held, err
			}
		}))},
}

var (
	releases atomic.Int64
	votes    atomic.Int64
	line     sync.Map // the targets that are waited for
)

func waitsBelow(folder string) (found bool) {
	line.Range(func(target, _ any) bool {
		found = strings.HasPrefix(target.(string), folder+"/")
		return !found
	})
	return found
}
