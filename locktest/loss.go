package locktest

import (
	"context"

	"github.com/swanlake-io/swanlock"
)

var lossCases = []testCase{
	{
		name:  "LossIsSeen",
		why:   "a lock thought held after its session died means two leaders: Refresh is how a holder proves that it still is the one",
		needs: []feature{loss},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			e.loseLock(held)
			next := e.mustAcquire(b, target)
			e.is("Refresh after the loss", held.Refresh(e.ctx), swanlock.ErrLost)
			e.mustClose(held.Done(), "Done was not closed after the loss and Refresh")
			e.is("Err after the loss and Refresh", held.Err(), swanlock.ErrLost)
			e.isNot("Err after the loss and Refresh", held.Err(), swanlock.ErrReleased)
			e.is("Refresh with a context that has ended, after the loss", held.Refresh(e.ended()), swanlock.ErrLost)
			e.is("Release after the loss and Refresh", held.Release(e.ctx), swanlock.ErrLost)
			e.holds("after its predecessor's Refresh and Release", next, c)
			e.mustRelease(next)
		},
	},
	{
		name:  "LossIsSeenAtRelease",
		why:   "if nothing was asked in between, Release is the last chance to say that the work was done without the lock",
		needs: []feature{loss},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			e.loseLock(held)
			next := e.mustAcquire(b, target)
			e.is("Release after the loss", held.Release(e.ctx), swanlock.ErrLost)
			e.mustClose(held.Done(), "Done was not closed after the loss and Release")
			e.is("Err after the loss and Release", held.Err(), swanlock.ErrLost)
			if err := held.Release(e.ctx); err != nil {
				e.Errorf("second Release after the loss: got %v, want nil", err)
			}
			e.holds("after its predecessor's Release", next, c)
			e.mustRelease(next)
		},
	},
	{
		name:  "AutoRefreshSeesLoss",
		why:   "a holder that leaves the refreshing to the locker makes no call by which it would see a loss: if the refresh in the background does not tell, it works beside the next holder for ever",
		needs: []feature{autoRefresh, loss},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target, swanlock.WithTTL(2*e.ttl), swanlock.WithAutoRefresh())
			e.loseLock(held)
			next := e.mustAcquire(b, target)
			e.mustClose(held.Done(), "Done of a lock that is refreshed in the background was not closed after its loss")
			e.is("Err after the loss", held.Err(), swanlock.ErrLost)
			e.isNot("Err after the loss", held.Err(), swanlock.ErrReleased)
			e.is("Release after the loss", held.Release(e.ctx), swanlock.ErrLost)
			e.holds("after its predecessor's loss and Release", next, c)
			e.mustRelease(next)
		},
	},
	{
		name:  "LossStopsDo",
		why:   "what runs under Do stops by its context; if a loss does not reach it, it goes on beside the next holder",
		needs: []feature{loss},
		run: func(e *env) {
			target := e.target()
			var cause error
			err := swanlock.Do(e.ctx, e.locker(), target, func(ctx context.Context, held swanlock.DistributedLock) error {
				e.loseLock(held)
				e.is("Refresh after the loss", held.Refresh(ctx), swanlock.ErrLost)
				e.mustClose(ctx.Done(), "the context in Do did not end after the loss and Refresh")
				cause = context.Cause(ctx)
				return nil
			})
			e.is("cause of the context in Do", cause, swanlock.ErrLost)
			e.is("Do", err, swanlock.ErrLost)
			e.mustRelease(e.mustAcquire(e.locker(), target))
		},
	},
}
