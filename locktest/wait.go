package locktest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

var waitCases = []testCase{
	{
		name: "AcquireWaits",
		why:  "Acquire is for callers that need the lock however long it takes; one that gives up, or that sleeps through the release, is a try at best",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			want := swanlock.Info{Target: target, Owner: "a waiter"}
			before := time.Now()
			wait := e.start(e.ctx, b, target, swanlock.WithOwner(want.Owner))
			e.pause()
			if !wait.waits() {
				_, err := e.result(wait)
				e.Fatalf("Acquire returned with %v while another holds the target, want it to wait", err)
			}
			e.mustRelease(held)
			next := e.mustGet(wait)
			e.info(next, before, want)
			e.holds("acquired after a wait", next, a)
			e.mustRelease(next)
		},
	},
	{
		name: "EveryWaiterIsServed",
		why:  "one wake-up that is lost leaves a free lock with a line of programs asleep in front of it",
		run: func(e *env) {
			target := e.target()
			held := e.mustTry(e.locker(), target)
			var served sync.WaitGroup
			var waits []*call
			for range 5 {
				wait := e.start(e.ctx, e.locker(), target)
				waits = append(waits, wait)
				served.Go(func() {
					<-wait.returned
					if wait.err == nil {
						_ = wait.held.Release(e.ctx)
					}
				})
			}
			e.pause()
			e.mustRelease(held)
			for _, wait := range waits {
				if _, err := e.result(wait); err != nil {
					e.Errorf("one of five waiters: %v", err)
				}
			}
			served.Wait()
			e.free("after all were served", e.locker(), target)
		},
	},
	{
		name: "EndedContext",
		why:  "a caller that has given up will not release what it is given; and it must see its own cause, to tell a shutdown from a held lock",
		run: func(e *env) {
			a, b, one, two := e.locker(), e.locker(), e.target(), e.target()
			other := e.mustTry(a, two)
			for _, held := range []bool{false, true} {
				var blocker swanlock.DistributedLock
				if held {
					blocker = e.mustTry(b, one)
				}
				got, err := a.Acquire(e.ended(), one)
				if err := e.keep(got, err); err == nil {
					e.Errorf("Acquire with a context that has ended: got a lock, want an error")
					e.mustRelease(got)
				} else {
					e.is("Acquire with a context that has ended", err, swanlock.ErrNotAcquired, errGaveUp)
				}
				got, err = a.TryAcquire(e.ended(), one)
				if err := e.keep(got, err); err == nil {
					e.Errorf("TryAcquire with a context that has ended: got a lock, want an error")
					e.mustRelease(got)
				} else {
					e.is("TryAcquire with a context that has ended", err, errGaveUp)
				}
				if held {
					e.mustRelease(blocker)
				}
			}
			e.free("after both", b, one)
			e.free("after both", a, one)
			e.holds("the same locker's other lock", other, b)
			e.mustRelease(other)
		},
	},
	{
		name: "WaitCutShort",
		why:  "a wait that ends must leave nothing behind: not a waiter that is granted the lock when nobody listens, not a session that died with its other locks",
		run: func(e *env) {
			a, b, c := e.locker(), e.locker(), e.locker()
			other := e.mustTry(b, e.target())
			for _, cut := range []struct {
				by   string
				ctx  func() (context.Context, context.CancelFunc)
				want error
			}{
				{"cancel with a cause", func() (context.Context, context.CancelFunc) {
					ctx, cancel := context.WithCancelCause(e.ctx)
					return ctx, func() { cancel(errGaveUp) }
				}, errGaveUp},
				{"cancel", func() (context.Context, context.CancelFunc) { return context.WithCancel(e.ctx) }, context.Canceled},
				// Long enough for the waiter to be in line: it is the wait that is cut short.
				{"deadline", func() (context.Context, context.CancelFunc) {
					return passed(context.WithTimeout(e.ctx, 500*time.Millisecond))
				}, context.DeadlineExceeded},
				{"deadline with a cause", func() (context.Context, context.CancelFunc) {
					return passed(context.WithTimeoutCause(e.ctx, 500*time.Millisecond, errGaveUp))
				}, errGaveUp},
			} {
				target := e.target()
				held := e.mustTry(a, target)
				ctx, cancel := cut.ctx()
				wait := e.start(ctx, b, target)
				e.pause()
				cancel()
				if got, err := e.result(wait); err == nil {
					e.Fatalf("Acquire cut short by %s got the lock that another holds: %+v", cut.by, got.Info())
				} else {
					e.is("Acquire cut short by "+cut.by, err, swanlock.ErrNotAcquired, cut.want)
					e.isNot("Acquire cut short by "+cut.by, err, swanlock.ErrAlreadyHeld)
				}
				e.holds("after a wait for it was cut short", held, c)
				e.mustRelease(held)
				e.free("right after the release", c, target)
				e.pause()
				e.free("some time after the release", c, target)
				e.holds("the waiter's other lock", other, c)
				e.free("later", b, target)
			}
			e.mustRelease(other)
		},
	},
	{
		name: "LineGoesOn",
		why:  "a waiter that leaves must not take along the wake-up of those behind it",
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			leaves := e.start(ctx, b, target)
			e.pause()
			stays := e.start(e.ctx, c, target)
			e.pause()
			cancel()
			if _, err := e.result(leaves); err == nil {
				e.Fatalf("a cancelled Acquire got the lock that another holds")
			}
			e.pause()
			if !stays.waits() {
				e.Fatalf("a waiter returned when the one before it left: %v", stays.err)
			}
			e.mustRelease(held)
			e.mustRelease(e.mustGet(stays))
			// On a busy machine the one that left came last, and may be about to
			// leave: what it is granted meanwhile, it gives back.
			e.mustRelease(e.mustGet(e.start(e.ctx, a, target)))
		},
	},
	{
		name: "WaitBlocksNothing",
		why:  "while a program waits for one lock it must refresh and release others on the same locker; if it cannot, they expire, or it deadlocks with itself",
		run: func(e *env) {
			a, b, mine, theirs := e.locker(), e.locker(), e.target(), e.target()
			held, blocker := e.mustTry(a, mine), e.mustTry(b, theirs)
			wait := e.start(e.ctx, a, theirs)
			e.pause()
			used := make(chan struct{})
			e.calls.Go(func() {
				defer close(used)
				if err := held.Refresh(e.ctx); err != nil {
					e.Errorf("Refresh while the locker waits for another target: got %v, want nil", err)
				}
				if third, err := e.try(a, e.target()); err != nil {
					e.Errorf("TryAcquire while the locker waits for another target: got %v, want nil", err)
				} else if err := third.Release(e.ctx); err != nil {
					e.Errorf("Release while the locker waits for another target: got %v, want nil", err)
				}
				if err := held.Release(e.ctx); err != nil {
					e.Errorf("Release while the locker waits for another target: got %v, want nil", err)
				}
			})
			e.mustClose(used, "the locker could not be used while it waits")
			e.free("released while its locker waits", b, mine)
			e.mustRelease(blocker)
			e.mustRelease(e.mustGet(wait))
		},
	},
	{
		name:  "LostPlace",
		why:   "a waiter whose session has died sleeps in front of a free lock, or is granted a lock that nobody keeps for it",
		needs: []feature{placeLoss},
		run:   func(e *env) { e.steady(func() error { return lostPlace(e) }) },
	},
	{
		name:  "Fair",
		why:   "without an order the unlucky waiter waits for ever, and with readers coming and going a writer does",
		needs: []feature{fair},
		run: func(e *env) {
			// A waiter may be late in line because the server is busy, which nobody
			// here can see: an order is wrong if it is wrong again and again.
			var err error
			defer e.setTTL(e.ttl) // as it is now
			for range 4 {
				if err = arrivalOrder(e); err == nil {
					return
				}
				e.Logf("out of order: %v", err)
				e.longerTTL()
			}
			e.Fatalf("%v", err)
		},
	},
}

// lostPlace ends the place of a waiter. It must be told so while the lock is
// still held, or wait on as if nothing had happened.
func lostPlace(e *env) error {
	a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
	held := e.mustTry(a, target)
	wait := e.start(e.ctx, b, target)
	e.pause()
	e.endPlaces(target)
	told := closedWithin(wait.returned, 2*e.ttl, "the waiter waits on") == nil
	e.holds("after a waiter has lost its place", held, c)
	e.mustRelease(held)
	next, err := e.result(wait)
	switch {
	case err == nil && told:
		e.Fatalf("a waiter that has lost its place got the lock that another holds: %+v", next.Info())
	case err == nil:
		e.holds("acquired by a waiter that had lost its place", next, c)
		e.mustRelease(next)
	case !told:
		return fmt.Errorf("a waiter that has lost its place was told only when the lock was free: %w", err)
	default:
		e.isNot("a waiter that has lost its place", err, swanlock.ErrAlreadyHeld)
	}
	e.free("after all", c, target)
	return nil
}

// arrivalOrder lines up waiters one by one and looks at the order of grants.
// Readers next to each other in line may come in either order.
func arrivalOrder(e *env) error {
	target := e.target()
	held := e.mustTry(e.locker(), target)
	line := []struct {
		reader bool
		turn   int
	}{{false, 0}, {true, 1}, {true, 1}, {false, 2}, {true, 3}, {false, 4}}
	var mu sync.Mutex
	var got, want []int
	var served sync.WaitGroup
	for i, w := range line {
		var opts []swanlock.Option
		turn := i
		if !e.lacks(shared) {
			turn = w.turn
			if w.reader {
				opts = append(opts, swanlock.WithShared())
			}
		}
		want = append(want, turn)
		l := e.locker()
		// What a first wait has to prepare must not make it late.
		soon, cancel := context.WithTimeout(e.ctx, e.ttl/10)
		_, err := l.Acquire(soon, target, opts...)
		cancel()
		if err == nil {
			return fmt.Errorf("a waiter got the lock that another holds")
		}
		wait := e.start(e.ctx, l, target, opts...)
		served.Go(func() {
			<-wait.returned
			if wait.err != nil {
				return
			}
			mu.Lock()
			got = append(got, turn)
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			_ = wait.held.Release(e.ctx)
		})
		time.Sleep(e.ttl / 4) // longer than what counts as a stall
	}
	e.mustRelease(held)
	served.Wait()
	if !slices.Equal(got, want) {
		return fmt.Errorf("waiters came in the order %v and were granted the lock in the order %v", want, got)
	}
	return nil
}

// passed makes cancel wait until the deadline has passed, which on a busy machine may be later than it says.
func passed(ctx context.Context, cancel context.CancelFunc) (context.Context, context.CancelFunc) {
	return ctx, func() {
		<-ctx.Done()
		cancel()
	}
}
