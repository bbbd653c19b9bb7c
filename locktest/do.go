package locktest

import (
	"context"
	"errors"
	"fmt"

	"github.com/swanlake-io/swanlock"
)

var errWork = errors.New("locktest: the work failed")

var doCases = []testCase{
	{
		name: "Do",
		why:  "most users call nothing but Do: it must hold the lock while they work and free it however that ends",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			ran := false
			err := swanlock.Do(e.ctx, a, target, func(ctx context.Context, held swanlock.DistributedLock) error {
				ran = true
				if err := ctx.Err(); err != nil {
					e.Errorf("the context in Do has ended: %v", err)
				}
				e.holds("in Do", held, b)
				return nil
			}, swanlock.WithOwner("do"))
			if err != nil || !ran {
				e.Errorf("Do: got %v, ran %t; want nil, true", err, ran)
			}
			e.free("after Do", b, target)

			err = swanlock.Do(e.ctx, a, target, func(context.Context, swanlock.DistributedLock) error { return errWork })
			e.is("Do with work that fails", err, errWork)
			e.free("after Do with work that fails", b, target)

			func() {
				defer func() { _ = recover() }()
				_ = swanlock.Do(e.ctx, a, target, func(context.Context, swanlock.DistributedLock) error { panic(errWork) })
			}()
			e.free("after Do with work that panics", b, target)

			ctx, cancel := context.WithCancelCause(e.ctx)
			err = swanlock.Do(ctx, a, target, func(context.Context, swanlock.DistributedLock) error {
				cancel(errGaveUp)
				return nil
			})
			if err != nil {
				e.Errorf("Do whose context ended while it worked: got %v, want nil", err)
			}
			e.free("after Do whose context ended", b, target)

			held := e.mustTry(b, target)
			err = swanlock.Do(ctx, a, target, func(context.Context, swanlock.DistributedLock) error {
				e.Errorf("Do ran its function without the lock")
				return nil
			})
			e.is("Do with a context that has ended", err, errGaveUp)
			e.mustRelease(held)
		},
	},
	{
		name:  "DoExpires",
		why:   "work that overruns its TTL must be told to stop, and that it was the TTL",
		needs: []feature{ttl},
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			var cause, err error
			e.steady(func() error {
				ran := false
				err = swanlock.Do(e.ctx, a, target, func(ctx context.Context, held swanlock.DistributedLock) error {
					ran = true
					e.mustClose(ctx.Done(), "the context in Do did not end with the TTL")
					cause = context.Cause(ctx)
					return cause
				}, swanlock.WithTTL(e.ttl))
				if !ran {
					return fmt.Errorf("a Do of a free target did not run its function: %v", err)
				}
				return nil
			})
			e.is("cause of the context in Do", cause, swanlock.ErrExpired, swanlock.ErrLost)
			e.is("Do", err, swanlock.ErrExpired, swanlock.ErrLost)
			e.mustRelease(e.mustAcquire(b, target))
		},
	},
}
