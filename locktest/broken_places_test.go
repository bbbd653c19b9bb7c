package locktest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

// Lockers whose waiters can lose their places, and that do something about it.
var (
	toldOfLostPlaces = sessions(places(func(displaced) (swanlock.DistributedLock, error) {
		return nil, errNoPlace
	}), LosePlaces(losePlaces))
	waitsAnew = sessions(places(displaced.again), LosePlaces(losePlaces))
)

var errNoPlace = errors.New("the place in line was lost")

var brokenPlaces = []brokenLocker{
	{name: "a waiter that has lost its place sleeps on", caughtBy: []string{"LostPlace"}, backend: sessions(
		places(func(w displaced) (swanlock.DistributedLock, error) {
			<-w.ctx.Done()
			return nil, errors.Join(swanlock.ErrNotAcquired, context.Cause(w.ctx))
		}), LosePlaces(losePlaces))},
	{name: "a waiter is told that it has lost its place when the lock is free", caughtBy: []string{"LostPlace"}, backend: sessions(
		places(func(w displaced) (swanlock.DistributedLock, error) {
			if held, err := w.again(); err == nil {
				held.Release(context.Background())
			}
			return nil, errNoPlace
		}), LosePlaces(losePlaces))},
	{name: "a waiter that has lost its place gets a lock that nobody keeps", caughtBy: []string{"LostPlace"}, backend: sessions(
		places(func(w displaced) (swanlock.DistributedLock, error) {
			held, err := w.again()
			if err != nil {
				return nil, err
			}
			w.space.Lose(w.target, nil)
			return brokenLock{DistributedLock: held, err: func() error { return nil }}, nil
		}), LosePlaces(losePlaces))},
	{name: "a waiter that has lost its place gets the lock at once", caughtBy: []string{"LostPlace"}, backend: sessions(
		places(func(displaced) (swanlock.DistributedLock, error) {
			return memlock.New().TryAcquire(context.Background(), "another")
		}), LosePlaces(losePlaces))},
}

var errPlaceEnded = errors.New("the session of the place has ended")

var inPlace sync.Map // for each wait: the function that ends its place

func losePlaces(*testing.T, string) {
	inPlace.Range(func(_, end any) bool { end.(context.CancelCauseFunc)(errPlaceEnded); return true })
	time.Sleep(time.Millisecond)
}

// A displaced is a waiter that has lost its place.
type displaced struct {
	ctx    context.Context // of its Acquire
	space  *memlock.Locker
	target string
	opts   []swanlock.Option
	next   funcLocker
}

// again waits for the lock anew.
func (w displaced) again() (swanlock.DistributedLock, error) {
	return w.next(w.ctx, true, w.target, w.opts)
}

// places lets waiters lose their places. lost is what one then does.
func places(lost func(w displaced) (swanlock.DistributedLock, error)) breaker {
	return acquires(func(next funcLocker, space *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			if !wait {
				return next(ctx, wait, target, opts)
			}
			place, end := context.WithCancelCause(ctx)
			defer end(nil)
			inPlace.Store(place, end)
			held, err := next(place, wait, target, opts)
			inPlace.Delete(place)
			if err != nil && ctx.Err() == nil && errors.Is(err, errPlaceEnded) {
				return lost(displaced{ctx, space, target, opts, next})
			}
			return held, err
		}
	})
}
