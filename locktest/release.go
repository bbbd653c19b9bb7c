package locktest

import (
	"context"
	"errors"
	"time"

	"github.com/swanlake-io/swanlock"
)

// errGaveUp is a cause that no locker knows.
var errGaveUp = errors.New("locktest: gave up")

func (e *env) ended() context.Context {
	ctx, cancel := context.WithCancelCause(e.ctx)
	cancel(errGaveUp)
	return ctx
}

var releaseCases = []testCase{
	{
		name: "ReleaseTwice",
		why:  "an explicit Release and a deferred one is the usual way to write it; the second must neither fail nor free what another took meanwhile",
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			e.mustRelease(held)
			if err := held.Release(e.ctx); err != nil {
				e.Errorf("second Release: got %v, want nil", err)
			}
			next := e.mustTry(b, target)
			if err := held.Release(e.ctx); err != nil {
				e.Errorf("third Release, the target held by another: got %v, want nil", err)
			}
			e.holds("after its predecessor's third Release", next, c)
			e.mustRelease(next)

			again := e.mustTry(a, target)
			if err := held.Release(e.ctx); err != nil {
				e.Errorf("Release of an old lock, the target held anew by the same locker: got %v, want nil", err)
			}
			e.holds("after the old lock's Release", again, c)
			e.mustRelease(again)
		},
	},
	{
		name: "AfterRelease",
		why:  "a goroutine that still uses the lock must learn that it was released, and not that it was lost: one is a plan, the other an incident",
		run: func(e *env) {
			a, target := e.locker(), e.target()
			held := e.mustTry(a, target)
			before := held.Info()
			e.mustRelease(held)
			e.mustClose(held.Done(), "Done was not closed after Release")
			e.is("Err after Release", held.Err(), swanlock.ErrReleased)
			e.isNot("Err after Release", held.Err(), swanlock.ErrLost)
			err := held.Refresh(e.ctx)
			e.is("Refresh after Release", err, swanlock.ErrReleased)
			e.isNot("Refresh after Release", err, swanlock.ErrLost)
			e.is("Refresh with a context that has ended, after Release", held.Refresh(e.ended()), swanlock.ErrReleased)
			e.is("Err after Release and Refresh", held.Err(), swanlock.ErrReleased)
			e.free("after Release and Refresh", a, target)
			if got := held.Info(); got != before {
				e.Errorf("Info after Release: got %+v, want %+v", got, before)
			}
		},
	},
	{
		name: "Done",
		why:  "work that selects on Done must go on while the lock is held and wake when it is not",
		run: func(e *env) {
			held := e.mustTry(e.locker(), e.target())
			woken := make(chan struct{})
			e.calls.Go(func() {
				select {
				case <-held.Done():
				case <-e.ctx.Done():
					return
				}
				if held.Err() == nil {
					e.Errorf("Err after Done was closed: got nil")
				}
				close(woken)
			})
			e.pause()
			select {
			case <-held.Done():
				e.Errorf("Done is closed while the lock is held")
			default:
			}
			e.mustRelease(held)
			select {
			case <-held.Done():
			default:
				e.Errorf("Done is open although Release has returned")
			}
			e.mustClose(woken, "the goroutine that waited for Done did not wake")
		},
	},
	{
		name: "ReleaseWithEndedContext",
		why:  "locks are released while a program shuts down, when its contexts have ended; a lock that stays then keeps its successor out",
		run: func(e *env) {
			a, b, one, two := e.locker(), e.locker(), e.target(), e.target()
			held, other := e.mustTry(a, one), e.mustTry(a, two)
			if err := held.Release(e.ended()); err != nil {
				e.Errorf("Release with a context that has ended: got %v, want nil", err)
			}
			e.free("released with a context that has ended", b, one)
			e.is("Err", held.Err(), swanlock.ErrReleased)
			e.holds("the same locker's other lock", other, b)
			e.mustRelease(other)
		},
	},
	{
		name: "RefreshWithEndedContext",
		why:  "a request that was cancelled is no reason to lose the lock, let alone the session and all that it holds",
		run: func(e *env) {
			a, b, one, two := e.locker(), e.locker(), e.target(), e.target()
			held, other := e.mustTry(a, one), e.mustTry(a, two)
			if err := held.Refresh(e.ended()); err != nil {
				e.is("Refresh with a context that has ended", err, errGaveUp)
				e.isNot("Refresh with a context that has ended", err, swanlock.ErrLost, swanlock.ErrReleased)
			}
			e.holds("after a Refresh that was cut short", held, b)
			e.holds("the same locker's other lock", other, b)
			e.mustRelease(held)
			e.mustRelease(other)
		},
	},
	{
		name: "LockOutlivesContext",
		why:  "the context bounds the acquiring, as the one of sql.DB.Conn does; a lock that ends with it is lost when the request that took it returns",
		run: func(e *env) {
			b := e.locker()
			for _, way := range []string{"TryAcquire", "Acquire"} {
				a, target := e.locker(), e.target()
				acquire := a.TryAcquire
				if way == "Acquire" {
					acquire = a.Acquire
				}
				ctx, cancel := context.WithCancel(e.ctx)
				held, err := acquire(ctx, target)
				if err := e.keep(held, err); err != nil {
					cancel()
					e.Fatalf("%s: %v", way, err)
				}
				cancel()
				e.pause()
				e.holds("after the context of "+way+" ended", held, b)
				e.mustRelease(held)
				e.free("released", b, target)
			}
		},
	},
	{
		name: "CauseIsNoAnswer",
		why:  "a caller's context may end because another lock was lost; a locker that takes this for the server's answer ends a lock that is held",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			for n := range 50 {
				ctx, cancel := context.WithCancelCause(e.ctx)
				time.AfterFunc(time.Duration(n)*20*time.Microsecond, func() { cancel(swanlock.ErrLost) })
				_ = held.Refresh(ctx)
				cancel(nil)
				if err := held.Err(); err != nil {
					e.Fatalf("Err after a Refresh whose context has ended: got %v, want nil", err)
				}
			}
			e.holds("after many a Refresh that was cut short", held, b)
			e.mustRelease(held)
		},
	},
}
