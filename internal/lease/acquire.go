package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// freeing bounds how long a lock is tried to be freed, and tidying how long that
// keeps a caller whose context has ended.
const freeing, tidying = 5 * time.Second, 2 * time.Second

// Try sends one request for a lock by calling acquire, and returns the lock or
// an error after which nothing is held. The error of acquire matches
// swanlock.ErrNotAcquired, or is one of Refused, if the server has answered that
// nothing was granted. After any other, such as an answer that did not come, the
// lock is freed. So it is if ctx ends before the answer, or if the answer takes
// longer than the lease.
func Try(ctx context.Context, r Request, acquire func(ctx context.Context) (fence uint64, err error)) (*Lock, error) {
	if ctx.Err() != nil {
		return nil, r.Failed(ctx, nil)
	}
	// It is read before the timeout begins: when that is over, so is the lease.
	start := time.Now()
	call := context.Context(causeless{ctx})
	if r.Lease > 0 {
		var cancel context.CancelFunc
		call, cancel = context.WithTimeout(call, min(r.Lease, cmp.Or(r.Patience, r.Lease)))
		defer cancel()
	}
	fence, err := acquire(call)
	late := call.Err() != nil && r.overdue(start)
	switch {
	case err == nil:
		return Granted(ctx, r, start, fence)
	case errors.Is(err, swanlock.ErrNotAcquired), errors.As(err, new(refused)):
	default:
		if _, ferr := Free(ctx, r.Backend); ferr != nil {
			err = fmt.Errorf("%w (if it was granted all the same, it is free after %v: %v)", err, r.Lease, ferr)
		}
		if late && ctx.Err() == nil {
			err = r.tooLate()
		}
	}
	return nil, r.Failed(ctx, err)
}

// Refused returns err for an acquire that Try calls: the server has answered with
// an error, and granted nothing. For a Release that Free calls it says that the
// server would answer so again.
func Refused(err error) error { return refused{err} }

type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// A causeless is a context without its cause. Some clients return that as their
// error, as net/http does. If another lock's end has ended the context, it would be
// taken for the server's answer about this one.
type causeless struct{ context.Context }

func (c causeless) Value(key any) any {
	v := c.Context.Value(key)
	if _, isContext := v.(context.Context); isContext {
		return nil // By this value context.Cause finds which context was ended, and why.
	}
	return v
}

// AfterFunc saves the package context a goroutine for each context that is made of c.
func (c causeless) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(c.Context, f) }

// Granted returns the lock that r asks for, and that the server has granted, for
// r.Lease from a time after start. If ctx has ended, or the lease, then the lock
// is freed, and the error matches swanlock.ErrNotAcquired.
func Granted(ctx context.Context, r Request, start time.Time, fence uint64) (*Lock, error) {
	var err error
	switch {
	case ctx.Err() != nil:
		err = CutShort(ctx, nil)
	case r.overdue(start):
		err = r.tooLate()
	default:
		return newLock(r, start, fence), nil
	}
	_, _ = Free(ctx, r.Backend)
	return nil, r.Wrap(err)
}

// ErrRepeated is what a Backend's Release returns if the server did not hold the lock,
// but the client may have asked it twice by itself: then it may have been held until the
// first time.
var ErrRepeated = errors.New("the client may have asked twice, for want of the first answer")

// Free releases a lock under a context of its own. While ctx lives, it tries
// again when that fails, for 5 s in all; if ctx has ended before, it tries once,
// for 2 s. err is that of the last try; an earlier one may have freed the lock
// although its answer did not come.
func Free(ctx context.Context, b Backend) (held bool, err error) {
	held, _, err = free(ctx, b)
	return held, err
}

// free does what Free does. earlier is the error of the try before the last, or
// ErrRepeated, or nil if there was none.
func free(ctx context.Context, b Backend) (held bool, earlier, err error) {
	limit := freeing
	if ctx.Err() != nil {
		limit = tidying
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	for n := 0; ; n++ {
		held, err = b.Release(own)
		if err == ErrRepeated {
			return false, err, nil
		}
		if err == nil || ctx.Err() != nil || errors.As(err, new(refused)) || !Pause(own, Backoff(n)) {
			return held && err == nil, earlier, err
		}
		earlier = err
	}
}

// Poll calls try, with a Backoff between, until it acquires, ctx ends, or it
// fails with an error that neither matches swanlock.ErrNotAcquired nor is one
// after which waiting goes on, as goesOn reports: such as that of a server that is
// restarting. That is part of the error if ctx ends meanwhile.
func Poll[L any](ctx context.Context, pkg, target string, goesOn func(err error) bool, try func() (L, error)) (L, error) {
	var none L
	var outage error // nil: the server has answered since
	for n := 0; ; n++ {
		l, err := try()
		switch refused := errors.Is(err, swanlock.ErrNotAcquired); {
		case err == nil:
			return l, nil
		case refused && ctx.Err() == nil:
			outage = nil
		case refused && outage == nil && errors.Is(err, context.Cause(ctx)):
			return none, err
		case refused:
		case !goesOn(err):
			return none, err
		default:
			outage = err
		}
		if !Pause(ctx, Backoff(n)) {
			return none, Request{Package: pkg, Target: target}.Failed(ctx, outage)
		}
	}
}

// Leave calls f in a goroutine of its own, and returns what f does or, once ctx has
// ended, the cause of that: for clients that do not return then, such as lib/pq
// when the network has fallen silent. late, if it is not nil, gets what f returns
// afterwards.
func Leave[T any](ctx context.Context, f func() (T, error), late func(T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	var over atomic.Bool // f has returned, or its caller has left
	go func() {
		v, err := f()
		if over.CompareAndSwap(false, true) {
			c <- answer{v, err}
		} else if late != nil {
			late(v, err)
		}
	}()
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		if over.CompareAndSwap(false, true) {
			var none T
			return none, context.Cause(ctx)
		}
		a := <-c
		return a.v, a.err
	}
}

// CutShort returns the error for one whose ctx has ended before it got the lock.
// err, which may be nil, says what else there is to say.
func CutShort(ctx context.Context, err error) error {
	cut := fmt.Errorf("%w: %w", swanlock.ErrNotAcquired, context.Cause(ctx))
	if err == nil {
		return cut
	}
	return fmt.Errorf("%w: %w", cut, err)
}

// Wrap returns err as that of an acquire.
func (r Request) Wrap(err error) error { return r.wrap("acquire", err) }

// Failed returns err as that of an acquire, and tells of the end of ctx if that has
// ended. Then err may be nil.
func (r Request) Failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = CutShort(ctx, err)
	}
	return r.Wrap(err)
}

func (r Request) wrap(what string, err error) error {
	return fmt.Errorf("%s: %s %s: %w", r.Package, what, quoted.Text(r.Target), err)
}

// overdue reports whether a lease that was asked for at start is over.
func (r Request) overdue(start time.Time) bool {
	return (Term{r.Lease, start}).Left(time.Now()) <= 0
}

func (r Request) tooLate() error {
	return fmt.Errorf("%w: the answer took longer than the lease (%v)", swanlock.ErrNotAcquired, r.Lease)
}

// Pause waits for d, and reports whether that has passed before ctx ended.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
