package locktest

import (
	"github.com/swanlake-io/swanlock"
)

var exclusionCases = []testCase{
	{
		name: "TryAcquire",
		why:  "a lock that cannot be taken when it is free, or not again after a release, stops the program for good",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			for range 2 {
				for _, l := range []swanlock.Locker{a, b} {
					held := e.mustTry(l, target)
					if err := held.Err(); err != nil {
						e.Errorf("Err of a lock just acquired: got %v, want nil", err)
					}
					if err := held.Refresh(e.ctx); err != nil {
						e.Errorf("Refresh of a held lock without a TTL: got %v, want nil", err)
					}
					e.mustRelease(held)
				}
			}
			e.mustRelease(e.mustAcquire(a, target))
			e.mustRelease(e.mustAcquire(b, target))
		},
	},
	{
		name: "Exclusion",
		why:  "two holders at once is the one thing that a lock exists to prevent; and a caller tells \"held elsewhere\" from a broken server by ErrNotAcquired",
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			for _, l := range []swanlock.Locker{b, c} {
				e.refused("held by a try", l, target)
			}
			e.mustRelease(held)

			held = e.mustAcquire(b, target)
			for _, l := range []swanlock.Locker{a, c} {
				e.refused("held by Acquire", l, target)
			}
			e.mustRelease(held)
			e.free("after all", c, target)
		},
	},
	{
		name: "FailedTryChangesNothing",
		why:  "a loser that frees, resets or shortens the winner's lock ends the winner's protection without a word",
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			before := held.Info()
			for range 3 {
				e.refused("try", b, target)
			}
			e.holds("after three failed tries", held, c)
			if got := held.Info(); got != before {
				e.Errorf("Info after failed tries: got %+v, want %+v", got, before)
			}
			e.mustRelease(held)
			e.free("after release", b, target)
		},
	},
	{
		name: "TargetsAreApart",
		why:  "a program holds many locks at once; taking or freeing one must not touch another, whichever session it is on",
		run: func(e *env) {
			a, b, one, two := e.locker(), e.locker(), e.target(), e.target()
			first, second := e.mustTry(a, one), e.mustTry(a, two)
			e.mustRelease(first)
			e.free("released", b, one)
			e.holds("after the release of another target", second, b)
			third := e.mustTry(b, one)
			e.mustRelease(second)
			e.holds("after a release on another locker", third, a)
			e.mustRelease(third)
		},
	},
	{
		name: "SameLocker",
		why:  "locks that stack need as many releases as there were acquires, and one too few keeps everybody out; and a program must be told that it waits for itself",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			if e.pooled != nil {
				e.refused("try by the pool that holds it", a, target)
				wait := e.start(e.ctx, a, target)
				e.pause()
				if !wait.waits() {
					_, err := e.result(wait)
					e.Fatalf("Acquire by the pool that holds it returned with %v, want it to wait", err)
				}
				e.holds("while its own pool waits", held, b)
				e.mustRelease(held)
				e.mustRelease(e.mustGet(wait))
				e.free("after both releases", b, target)
				return
			}
			already := func(what string, c *call) {
				e.Helper()
				got, err := e.result(c)
				if err == nil {
					e.Fatalf("%s by the session that holds it: acquired %+v, want ErrAlreadyHeld", what, got.Info())
				}
				e.is(what+" by the session that holds it", err, swanlock.ErrAlreadyHeld, swanlock.ErrNotAcquired)
			}
			_, err := e.try(a, target)
			e.is("TryAcquire by the session that holds it", err, swanlock.ErrAlreadyHeld, swanlock.ErrNotAcquired)
			already("Acquire", e.start(e.ctx, a, target))
			if !e.lacks(shared) {
				already("Acquire as a reader", e.start(e.ctx, a, target, swanlock.WithShared()))
			}
			e.holds("after ErrAlreadyHeld", held, b)
			e.mustRelease(held)
			e.free("after one release", b, target)
			e.free("after one release", a, target)
		},
	},
}
