package pglock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolClosesWhileTheLineGrants: the server has granted the lock to a waiter, and
// the answer is under way, when the pool is closed. Either the waiter gets the lock,
// and Close waits for its release, or it gets nothing.
func TestPoolClosesWhileTheLineGrants(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []string{"exclusive", "shared", "fence"} {
			t.Run(how, func(t *testing.T) {
				opts := map[string][]swanlock.Option{"shared": {swanlock.WithShared()}, "fence": {swanlock.WithFence()}}[how]
				o, network := observe(t), newProxy(t)
				pool, err := pglock.NewPool(openURL(t, driver, network.url))
				must(t, err)
				target := newTarget(t)
				must(t, acquired(t, pool, newTarget(t)).Release(bg))
				other, _ := newSession(t, driver)
				held := acquired(t, other, target)
				type result struct {
					held swanlock.DistributedLock
					err  error
				}
				came := make(chan result, 1)
				go func() {
					held, err := pool.Acquire(bg, target, opts...)
					came <- result{held, err}
				}()
				eventually(t, "it waits in the server", func() bool {
					return one[bool](t, o.db, `SELECT EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'advisory' AND k.objsubid = 1 AND NOT k.granted
						AND ((k.classid::bigint << 32) | k.objid::bigint) = $1::bigint)`, int64(pglock.KeyOf(target)))
				})
				network.delay.Store(int64(300 * time.Millisecond))
				must(t, held.Release(bg))
				time.Sleep(50 * time.Millisecond)
				closed := make(chan error, 1)
				go func() { closed <- pool.Close(shortly(t)) }()
				r := <-came
				network.delay.Store(0)
				if r.err == nil {
					time.Sleep(time.Second)
					if err := r.held.Err(); err != nil {
						t.Errorf("the lock was taken away: %v", err)
					}
					must(t, r.held.Release(bg))
				}
				must(t, <-closed)
				o.wantSoonFree(target)
			})
		}
	})
}

// TestPoolClosesWhileItOpens: a caller that waits for the pool's first session learns
// that the pool was closed, and not that its own context was cancelled.
func TestPoolClosesWhileItOpens(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []string{"TryAcquire", "Acquire"} {
			t.Run(how, func(t *testing.T) {
				network := newProxy(t)
				network.SwallowNext(100)
				pool, err := pglock.NewPool(openURL(t, driver, network.url))
				must(t, err)
				acquire := map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
					"TryAcquire": pool.TryAcquire, "Acquire": pool.Acquire}[how]
				tried := make(chan error, 1)
				go func() {
					_, err := acquire(bg, newTarget(t))
					tried <- err
				}()
				eventually(t, "it connects", func() bool { return network.Swallowed.Load() > 0 })
				pool.Close(shortly(t))
				err = <-tried
				if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the pool is closed") {
					t.Errorf("got %v, want that the pool is closed", err)
				}
			})
		}
	})
}
