package locktest

import (
	"context"
	"errors"

	"github.com/swanlake-io/swanlock"
)

var sharedCases = []testCase{
	{
		name:  "Shared",
		why:   "readers that exclude each other are slow; a writer among readers, or a reader beside a writer, reads or leaves half-written data",
		needs: []feature{shared},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			one, two := e.mustTry(a, target, swanlock.WithShared()), e.mustAcquire(b, target, swanlock.WithShared())
			e.refused("two readers hold it: a writer", c, target)
			e.mustRelease(one)
			e.holds("after another reader's release", two, c)
			e.mustRelease(two)
			writer := e.mustTry(c, target)
			e.refused("a writer holds it: a reader", a, target, swanlock.WithShared())
			e.refused("a writer holds it: a writer", b, target)
			e.mustRelease(writer)
			e.mustRelease(e.mustTry(a, target, swanlock.WithShared()))
			e.free("after all", b, target)
		},
	},
	{
		name:  "SharedWaits",
		why:   "a writer must get in once the last reader leaves, and all readers once the writer does",
		needs: []feature{shared},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			one, two := e.mustTry(a, target, swanlock.WithShared()), e.mustTry(b, target, swanlock.WithShared())
			wait := e.start(e.ctx, c, target)
			e.pause()
			e.mustRelease(one)
			e.pause()
			if !wait.waits() {
				e.Fatalf("a writer's Acquire returned while a reader holds the target: %v", wait.err)
			}
			e.mustRelease(two)
			writer := e.mustGet(wait)
			readA := e.start(e.ctx, a, target, swanlock.WithShared())
			readB := e.start(e.ctx, b, target, swanlock.WithShared())
			e.pause()
			if !readA.waits() || !readB.waits() {
				e.Fatalf("a reader's Acquire returned while a writer holds the target: %v, %v", readA.err, readB.err)
			}
			e.mustRelease(writer)
			one, two = e.mustGet(readA), e.mustGet(readB) // neither has released yet
			e.mustRelease(one)
			e.mustRelease(two)
			e.free("after all", c, target)
		},
	},
	{
		name:  "WriterGivesUp",
		why:   "readers stand back for a writer that waits; when it leaves and they still do, one impatient writer has locked everybody out",
		needs: []feature{shared},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			reader := e.mustTry(a, target, swanlock.WithShared())
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			writer := e.start(ctx, b, target)
			e.pause()
			second := e.start(e.ctx, c, target, swanlock.WithShared()) // may wait for the writer, or not
			e.pause()
			cancel()
			if _, err := e.result(writer); err == nil {
				e.Fatalf("a writer got the target that a reader holds")
			}
			e.mustRelease(e.mustGet(second))
			third, err := e.try(b, target, swanlock.WithShared())
			if err != nil {
				e.Fatalf("a reader's try after the only writer left: %v", err)
			}
			e.mustRelease(third)
			e.holds("after all", reader, c)
			e.mustRelease(reader)
		},
	},
	{
		name:  "NoUpgrade",
		why:   "two readers that both wait to become writers wait for each other for ever",
		needs: []feature{shared},
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			reader := e.mustTry(a, target, swanlock.WithShared())
			_, err := e.try(a, target)
			if err == nil {
				e.Fatalf("a reader became a writer: want ErrNotAcquired")
			}
			e.is("TryAcquire of what the same locker reads", err, swanlock.ErrNotAcquired)
			if e.pooled == nil {
				e.is("TryAcquire of what the same session reads", err, swanlock.ErrAlreadyHeld)
				_, err = e.result(e.start(e.ctx, a, target))
				e.is("Acquire of what the same session reads", err, swanlock.ErrAlreadyHeld)
				_, err = e.try(a, target, swanlock.WithShared())
				e.is("TryAcquire as a second reader on the same session", err, swanlock.ErrAlreadyHeld)
			} else {
				e.mustRelease(e.mustTry(a, target, swanlock.WithShared()))
			}
			e.holds("after refused upgrades", reader, b)
			beside, err := e.try(b, target, swanlock.WithShared())
			if err != nil {
				e.Fatalf("a reader beside the one that could not upgrade: %v", err)
			}
			e.mustRelease(beside)
			e.mustRelease(reader)
			e.free("after all", b, target)
		},
	},
	{
		name: "SharedFenceIsRefused",
		why:  "readers hold together, so that no number could tell which came last; to ignore the option would let writes through unguarded",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			e.unsupported(a, target, swanlock.WithShared(), swanlock.WithFence())
			e.free("after it was refused", b, target)
		},
	},
}

// unsupported checks that both methods refuse opts with ErrUnsupported.
func (e *env) unsupported(l swanlock.Locker, target string, opts ...swanlock.Option) {
	e.Helper()
	held, err := e.try(l, target, opts...)
	e.unsupportedErr("TryAcquire", held, err)
	held, err = e.result(e.start(e.ctx, l, target, opts...))
	e.unsupportedErr("Acquire", held, err)
}

func (e *env) unsupportedErr(what string, held swanlock.DistributedLock, err error) {
	e.Helper()
	if err == nil {
		e.Errorf("%s: acquired %+v, want an error that matches errors.ErrUnsupported", what, held.Info())
		_ = held.Release(e.ctx)
		return
	}
	e.is(what, err, errors.ErrUnsupported)
	e.isNot(what, err, swanlock.ErrNotAcquired)
}
