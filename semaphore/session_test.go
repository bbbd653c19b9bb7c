package semaphore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/semaphore"
)

// TestOwnPlaces: a session that has some places waits for the others, and for its
// own, since it may release them meanwhile; one that has all is refused at once.
func TestOwnPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		mine, theirs := semaphore.New(space.Session(), 2), semaphore.New(space.Session(), 2)
		a, err := mine.TryAcquire(bg, "t")
		must(t, err)
		b, err := theirs.TryAcquire(bg, "t")
		must(t, err)
		for _, first := range []swanlock.DistributedLock{a, b} {
			released := time.Now().Add(time.Minute)
			time.AfterFunc(time.Minute, func() { first.Release(bg) })
			ctx, cancel := context.WithTimeout(bg, time.Hour)
			_, err = mine.Acquire(ctx, "t")
			must(t, err)
			cancel()
			if late := time.Since(released); late < 0 || late > time.Second {
				t.Errorf("acquired %v after a place was free, want a second at most", late)
			}
		}
		begin := time.Now()
		if _, err := mine.Acquire(bg, "t"); !errors.Is(err, swanlock.ErrAlreadyHeld) || time.Since(begin) > 0 {
			t.Errorf("a session that has all places: after %v: %v, want ErrAlreadyHeld at once", time.Since(begin), err)
		}
	})
}

// TestLineOfOneSession: two that wait on one session both get a place, and one whose
// context ends meanwhile is told so.
func TestLineOfOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		all, err := semaphore.New(space, 4).Weighted(4).TryAcquire(bg, "t")
		must(t, err)
		sem := semaphore.New(space.Session(), 4)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := sem.Acquire(bg, "t"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		if _, err := sem.Acquire(ctx, "t"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) {
			t.Errorf("whose context ends: %v", err)
		}
		must(t, all.Release(bg))
		wg.Wait()
	})
}
