package semaphore_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/semaphore"
)

// TestNoMoreThanItsWeight: if more places become free at once than are wanted, the
// others are free for others.
func TestNoMoreThanItsWeight(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			sem := semaphore.New(memlock.New(), 4)
			busy, err := sem.Weighted(3).TryAcquire(bg, "t")
			must(t, err)
			time.AfterFunc(time.Second, func() { busy.Release(bg) })
			held, err := sem.Weighted(2).Acquire(bg, "t")
			must(t, err)
			synctest.Wait()
			other, err := sem.Weighted(2).TryAcquire(bg, "t")
			must(t, err)
			must(t, held.Release(bg))
			must(t, other.Release(bg))
		})
	}
}

// TestOneOfTheOthers: the error says that the session itself holds a place only if it
// holds all that are not free.
func TestOneOfTheOthers(t *testing.T) {
	for range 20 { // Places are tried in a random order.
		space := memlock.New()
		mine := semaphore.New(space.Session(), 2)
		own, err := mine.TryAcquire(bg, "t")
		must(t, err)
		_, err = mine.Weighted(2).TryAcquire(bg, "t")
		if !errors.Is(err, swanlock.ErrAlreadyHeld) {
			t.Errorf("two, one of which is its own: got %v, want ErrAlreadyHeld", err)
		}
		_, err = semaphore.New(space.Session(), 2).TryAcquire(bg, "t")
		must(t, err)
		_, err = mine.TryAcquire(bg, "t")
		if !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) {
			t.Errorf("one of two is another's: got %v, want ErrNotAcquired alone", err)
		}
		must(t, own.Release(bg))
	}
}

// TestNoNeedlessRefresh: places that are free are taken without a refresh.
func TestNoNeedlessRefresh(t *testing.T) {
	space := memlock.New()
	l := &mocks.Locker{TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
		part, err := space.TryAcquire(ctx, target, opts...)
		return &mocks.DistributedLock{InfoFunc: part.Info, ErrFunc: part.Err, ReleaseFunc: part.Release,
			RefreshFunc: func(context.Context) error { t.Error("refreshed"); return nil }}, err
	}, AcquireFunc: space.Acquire}
	two := semaphore.New(l, 2).Weighted(2)
	for _, acquire := range []func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){two.TryAcquire, two.Acquire} {
		held, err := acquire(bg, "t", swanlock.WithTTL(time.Minute))
		must(t, err)
		must(t, held.Release(bg))
	}
}

// TestPartLost: one that is the first in line, and loses a place while it waits for
// another, is still the first.
func TestPartLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := space.TryAcquire(bg, "t/place-1")
		must(t, err)
		order := make(chan string, 2)
		for _, name := range []string{"first", "second"} {
			go func() {
				held, err := semaphore.New(space, 2).Weighted(2).Acquire(bg, "t")
				if err != nil {
					t.Error(err)
					return
				}
				order <- name
				_ = held.Release(bg)
			}()
			synctest.Wait()
		}
		space.Lose("t/place-0", nil)
		must(t, busy.Release(bg))
		if first := <-order; first != "first" {
			t.Errorf("the %s in line was served first", first)
		}
		<-order
	})
}

// TestGrantedLate: a place that is granted when the wait for it is over, since a locker
// is slow to leave, is free again.
func TestGrantedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := semaphore.New(space, 2).Weighted(2).TryAcquire(bg, "t")
		must(t, err)
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target == "t/place-1" {
				time.Sleep(time.Minute)
				ctx = bg
			}
			return space.Acquire(ctx, target, opts...)
		}}
		time.AfterFunc(time.Second, func() { _ = busy.Release(bg) })
		held, err := semaphore.New(l, 2).Acquire(bg, "t")
		must(t, err)
		must(t, held.Release(bg))
		time.Sleep(2 * time.Minute)
		allFree(t, space)
	})
}

// TestWaitsEnd: a call that was granted a place, and waits for another, waits once for
// each that is not free.
func TestWaitsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := semaphore.New(space, 3).Weighted(3).TryAcquire(bg, "t")
		must(t, err)
		var waits atomic.Int32 // for the last place
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target == "t/place-2" {
				waits.Add(1)
				defer waits.Add(-1)
			}
			return space.Acquire(ctx, target, opts...)
		}}
		time.AfterFunc(time.Second, func() { space.Lose("t/place-0", nil) })
		time.AfterFunc(time.Minute, func() { _ = busy.Release(bg) })
		go func() {
			time.Sleep(2 * time.Second)
			if n := waits.Load(); n != 1 {
				t.Errorf("it waits %d times for a place", n)
			}
		}()
		held, err := semaphore.New(l, 3).Weighted(2).Acquire(bg, "t")
		must(t, err)
		must(t, held.Release(bg))
	})
}

// TestGrantedWithErrors: of places that are answered at once some are granted, and others
// fail. All are free then.
func TestGrantedWithErrors(t *testing.T) {
	for range 60 { // The answers come in any order.
		synctest.Test(t, func(t *testing.T) {
			const places = 64
			space, away := memlock.New(), errors.New("away")
			all := semaphore.New(space, places).Weighted(places)
			busy, err := all.TryAcquire(bg, "t")
			must(t, err)
			l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
				if target != "t/line" {
					time.Sleep(time.Second)
				}
				if strings.HasSuffix(target, "0") {
					return nil, away
				}
				return space.Acquire(ctx, target, opts...)
			}}
			time.AfterFunc(time.Second/2, func() { _ = busy.Release(bg) })
			if _, err := semaphore.New(l, places).Weighted(places).Acquire(bg, "t"); !errors.Is(err, away) {
				t.Errorf("got %v, want %v", err, away)
			}
			synctest.Wait()
			busy, err = all.TryAcquire(bg, "t")
			must(t, err)
			must(t, busy.Release(bg))
		})
	}
}
