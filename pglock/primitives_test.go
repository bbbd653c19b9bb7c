package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/multilock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/semaphore"
)

// What is built on lockers has its own tests, on memlock. These are about what a
// server adds.

// TestMultilock takes all in one round trip on a Pool, is excluded by single locks
// and excludes them, and knows when one of its sessions has ended.
func TestMultilock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, px, target := observe(t), newProxy(t), newTarget(t)
		p := newPool(t, openURL(t, driver, px.url), pglock.WithHeartbeat(time.Hour))
		var targets []string
		for i := range 20 {
			targets = append(targets, fmt.Sprintf("%s/%d", target, i))
		}
		all := func() swanlock.DistributedLock {
			held, err := multilock.TryAcquire(bg, p, targets)
			must(t, err)
			return held
		}
		must(t, all().Release(bg)) // warm
		best := 99
		for range 10 { // the callers may come a little apart
			var held swanlock.DistributedLock
			best = min(best, px.trips(t, func() { held = all() }))
			must(t, held.Release(bg))
		}
		if best != 1 {
			t.Errorf("%d targets took %d round trips, want 1", len(targets), best)
		}

		other, _ := newSession(t, driver)
		busy := acquired(t, other, targets[7])
		_, err := multilock.TryAcquire(bg, p, targets)
		wantIs(t, err, swanlock.ErrNotAcquired)
		for i, target := range targets {
			if i != 7 {
				o.wantHeld(target)
			}
		}
		time.AfterFunc(300*time.Millisecond, func() { busy.Release(bg) })
		held, err := multilock.Acquire(shortly(t), p, targets, swanlock.WithTTL(time.Minute))
		must(t, err)
		_, err = other.TryAcquire(bg, targets[3])
		wantIs(t, err, swanlock.ErrNotAcquired)
		o.kill(held.(*multilock.Lock).Parts()[0].(*pglock.PostgresLock).BackendPID())
		wantIs(t, held.Refresh(bg), swanlock.ErrLost)
		wantIs(t, ended(t, held), swanlock.ErrLost)
		wantIs(t, held.Release(bg), swanlock.ErrLost)
		for _, target := range targets {
			o.wantSoonFree(target)
		}
	})
}

// TestSemaphore: no more hold the target than there are places, as another session
// sees it, also while holders' sessions are killed; and their places are free again.
func TestSemaphore(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		const places = 3
		o, target := observe(t), newTarget(t)
		pools := []*pglock.Pool{newPool(t, openDB(t, driver)), newPool(t, openDB(t, driver))}
		tries := 25
		if testing.Short() {
			tries = 8
		}
		holders := func() (n int) {
			for i := range places + 2 {
				n += len(o.holders(fmt.Sprintf("%s/place-%d", target, i)))
			}
			return n
		}
		var inUse, lost atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			sem := semaphore.New(pools[i%2], places)
			wg.Go(func() {
				for n := range tries {
					held, err := sem.Acquire(shortly(t), target, swanlock.WithTTL(time.Minute))
					if err != nil {
						t.Error(err)
						return
					}
					if now := inUse.Add(1); now > places && held.Err() == nil && lost.Load() == 0 {
						t.Errorf("%d hold it", now)
					}
					if seen := holders(); seen > places {
						t.Errorf("the server shows %d holders", seen)
					}
					if i == 0 && n%8 == 4 {
						lost.Add(1)
						pid := held.(interface {
							Parts() []swanlock.DistributedLock
						}).Parts()[0].(*pglock.PostgresLock).BackendPID()
						one[bool](t, o.db, "SELECT pg_terminate_backend($1::int)", pid)
					}
					inUse.Add(-1)
					if err := held.Release(bg); err != nil && !errors.Is(err, swanlock.ErrLost) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "all places are free", func() bool { return holders() == 0 })
		held, err := semaphore.New(pools[0], places).Weighted(places).Acquire(shortly(t), target)
		must(t, err)
		must(t, held.Release(bg))
	})
}

// TestElection: when the leader steps down or its session is killed, another leads,
// and the leader knows of its loss.
func TestElection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		type term struct {
			i    int
			held swanlock.DistributedLock
			at   time.Time
			ctx  context.Context
			down func(error)
		}
		terms := make(chan term)
		ctx, stop := context.WithCancel(bg)
		var wg sync.WaitGroup
		for i := range 3 {
			p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(100*time.Millisecond))
			wg.Go(func() {
				err := election.Run(ctx, p, target, func(ctx context.Context) error {
					held, _ := election.Lock(ctx)
					down := make(chan error, 1)
					select {
					case terms <- term{i, held, time.Now(), ctx, func(err error) { down <- err }}:
					case <-ctx.Done():
						return nil
					}
					select {
					case err := <-down:
						return err
					case <-ctx.Done():
						return nil
					}
				}, election.WithLockOptions(swanlock.WithFence()))
				wantCause(t, err, context.Canceled)
			})
		}
		now := <-terms
		eventually(t, "the others wait", func() bool { return len(o.numbers(target)) == 2 })
		fence := uint64(0)
		for i := range 6 {
			if f := now.held.Info().Fence; f <= fence {
				t.Errorf("fence %d after %d", f, fence)
			} else {
				fence = f
			}
			left := time.Now()
			if i%2 == 0 {
				now.down(nil)
			} else {
				o.kill(now.held.(*pglock.PostgresLock).BackendPID())
			}
			next := <-terms
			t.Logf("from %d to %d in %v (killed: %t)", now.i, next.i, next.at.Sub(left), i%2 == 1)
			eventually(t, "the leader before knows", func() bool { return now.ctx.Err() != nil })
			now = next
		}
		stop()
		wg.Wait()
		o.wantSoonFree(target)
	})
}

func wantCause(t *testing.T, err, cause error) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}
