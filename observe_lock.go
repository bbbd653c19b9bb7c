package swanlock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// An observed is a Locker that tells of its calls.
type observed struct {
	Locker
	watches []*watch
}

func (o *observed) TryAcquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error) {
	return o.acquire(ctx, OpTryAcquire, o.Locker.TryAcquire, target, opts)
}

func (o *observed) Acquire(ctx context.Context, target string, opts ...Option) (DistributedLock, error) {
	return o.acquire(ctx, OpAcquire, o.Locker.Acquire, target, opts)
}

func (o *observed) acquire(ctx context.Context, op Op, f func(context.Context, string, ...Option) (DistributedLock, error), target string, opts []Option) (DistributedLock, error) {
	c := begin(ctx, o.watches, op, target)
	e := Event{Op: op, Target: target, Outcome: OutcomeError, Err: errPanicked}
	defer func() {
		if e.Err == errPanicked { // What Begin has counted must be taken back.
			c.end(e)
		}
	}()
	held, err := f(c.ctx, target, opts...)
	e.Err = err
	if err != nil || held == nil {
		switch {
		case err == nil:
			e.Err = errNeither
		case ctx.Err() != nil:
			e.Outcome = OutcomeCancelled
		case errors.Is(err, ErrNotAcquired):
			e.Outcome = OutcomeNotAcquired
		}
		e.Shared = wantsShared(opts)
		c.end(e)
		return held, err
	}
	e.Info, e.Outcome = held.Info(), OutcomeAcquired
	e.Shared = e.Info.Shared
	c.end(e)
	l := &observedLock{held, &fate{watches: o.watches, told: c.told, target: target, info: e.Info}}
	l.fate.watch(held)
	return l, nil
}

// errPanicked is the error of a call that did not return.
var errPanicked = errors.New("swanlock: the call panicked")

func wantsShared(opts []Option) bool {
	var o Options
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return o.Shared
}

// An observedLock is a lock of an observed Locker.
type observedLock struct {
	DistributedLock
	fate *fate
}

// Unwrap returns the lock that is observed: see As.
func (l *observedLock) Unwrap() DistributedLock { return l.DistributedLock }

// AfterDone calls f, in a goroutine of its own, when the lock is over: see
// Observe.
func (l *observedLock) AfterDone(f func(err error)) (stop func() bool) {
	return afterDone(l.DistributedLock, f)
}

func (l *observedLock) Refresh(ctx context.Context) error {
	return l.observe(ctx, OpRefresh, l.DistributedLock.Refresh)
}

func (l *observedLock) Release(ctx context.Context) error {
	return l.observe(ctx, OpRelease, l.DistributedLock.Release)
}

func (l *observedLock) observe(ctx context.Context, op Op, f func(context.Context) error) error {
	fate := l.fate
	c := begin(ctx, fate.watches, op, fate.target)
	e := Event{Op: op, Target: fate.target, Shared: fate.info.Shared, Info: fate.info, Outcome: OutcomeError, Err: errPanicked}
	defer func() {
		if op == OpRelease && e.Err == errPanicked {
			fate.watch(l.DistributedLock)
		}
		c.end(e)
	}()
	if op == OpRelease {
		fate.unwatch() // Its end is told by this call.
	}
	e.Err = f(c.ctx)
	switch over := l.DistributedLock.Err(); {
	case e.Err == nil && op == OpRelease && errors.Is(over, ErrLost): // not the first call
		e.Outcome = OutcomeOK
		fate.lose(over)
	case e.Err == nil:
		e.Outcome = OutcomeOK
		// Another Release may be under way. The lock is held until that returns.
		e.Ended = op == OpRelease && over != nil && fate.end()
	case errors.Is(e.Err, ErrLost) && errors.Is(over, ErrLost): // not the cause of ctx alone
		e.Outcome = OutcomeLost
		fate.lose(e.Err)
	case op == OpRelease && over == nil: // Nothing was sent.
		fate.watch(l.DistributedLock)
	case op == OpRelease && errors.Is(over, ErrLost):
		fate.lose(over)
	case op == OpRelease:
		e.Ended = fate.end()
	}
	if op == OpRelease {
		e.Held = fate.heldFor()
	}
	return e.Err
}

// A fate is what is told of a lock's end. It must not refer to the lock: the
// lock refers to it, through AfterDone, and would never be found to be dropped.
type fate struct {
	watches []*watch
	told    []told // of the acquire
	target  string
	info    Info

	loss sync.Once // tells that it was lost

	mu   sync.Mutex
	stop func() bool // ends the call of AfterDone
	over time.Time   // when the lock ended; zero until that is known
}

// watch has the end of held told, if nothing else tells it.
func (f *fate) watch(held DistributedLock) {
	stop := afterDone(held, f.done)
	f.mu.Lock()
	f.stop = stop
	f.mu.Unlock()
}

func (f *fate) unwatch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

// done tells that the lock is over because of err.
func (f *fate) done(err error) {
	if errors.Is(err, ErrLost) {
		f.lose(err)
	} else if f.end() {
		f.tell(Event{Op: OpRelease, Outcome: OutcomeOK, Ended: true})
	}
}

// lose tells, once, that the lock was lost because of err. It returns when that
// was told, by this call or by another.
func (f *fate) lose(err error) {
	f.loss.Do(func() {
		e := Event{Op: OpLoss, Outcome: OutcomeLost, Err: err, Ended: f.end()}
		if errors.Is(err, ErrExpired) {
			e.Outcome = OutcomeExpired
		}
		f.tell(e)
	})
}

// end notes that the lock is over, and reports whether that is new.
func (f *fate) end() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	isNew := f.over.IsZero()
	if isNew {
		f.over = time.Now()
	}
	return isNew
}

// heldFor returns how long the lock was held, or has been until now.
func (f *fate) heldFor() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over.IsZero() {
		return time.Since(f.info.AcquiredAt)
	}
	return f.over.Sub(f.info.AcquiredAt)
}

func (f *fate) tell(e Event) {
	e.Target, e.Shared, e.Info, e.Held = f.target, f.info.Shared, f.info, f.heldFor()
	for i, w := range f.watches {
		w.tell(notice{t: &f.told[i], end: &e})
	}
}

// afterDone calls f in a goroutine of its own when held is over. stop prevents
// that, and reports whether it did.
func afterDone(held DistributedLock, f func(err error)) (stop func() bool) {
	if l, ok := held.(interface {
		AfterDone(f func(err error)) (stop func() bool)
	}); ok {
		return l.AfterDone(f)
	}
	stopped := make(chan struct{})
	// f may take a mutex that the caller of stop holds, so stop does not wait
	// for it.
	var settled atomic.Bool // f is called, or stop was
	go func() {
		select {
		case <-held.Done():
			if settled.CompareAndSwap(false, true) {
				f(held.Err())
			}
		case <-stopped:
		}
	}()
	return func() (prevented bool) {
		prevented = settled.CompareAndSwap(false, true)
		if prevented {
			close(stopped)
		}
		return prevented
	}
}
