// Package election has one of several processes lead at a time: the one that
// holds a lock.
//
//	err := election.Run(ctx, locks, "/scheduler", func(ctx context.Context) error {
//		return schedule(ctx) // on this host alone; ctx ends if the lock is lost
//	})
//
// It works on every swanlock.Locker, and promises what that promises. If a leader
// steps down, the next in line leads as soon as its lock is free; if its process
// dies, as soon as the locker finds out.
package election

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/several"
)

// ErrResign is what the function that leads returns to end Run: the process
// steps down, and does not campaign any more.
var ErrResign = errors.New("resigned")

// defaultTTL is the TTL of a leader's lock. WithLockOptions changes it.
const defaultTTL = 15 * time.Second

// An Option changes how an Election works.
type Option func(*Election)

// WithLockOptions sets options of the lock, such as its owner, which is the
// leader's name, or swanlock.WithFence. The lock has a TTL of 15 s and is
// refreshed in the background, unless they say something else.
func WithLockOptions(opts ...swanlock.Option) Option {
	return func(e *Election) { e.opts = append(e.opts, opts...) }
}

// WithBackoff sets how long to wait after a failure: from min, doubled with each
// failure in a row, to max. The default is 100 ms to 15 s. A failure is an error of
// the locker, or of the function that leads.
func WithBackoff(min, max time.Duration) Option {
	return func(e *Election) { e.min, e.max = min, max }
}

// OnError has f called with each failure, before the wait that follows it.
func OnError(f func(error)) Option { return func(e *Election) { e.onError = f } }

// OnStart has f called when this process begins to lead, before the function that
// leads, and OnStop when that function has returned, before the lock is released.
func OnStart(f func(held swanlock.DistributedLock)) Option {
	return func(e *Election) { e.onStart = f }
}

// OnStop is described at OnStart.
func OnStop(f func()) Option { return func(e *Election) { e.onStop = f } }

// OnLeader has f called with the name of each new leader, which is the owner of the
// lock; it is empty when nobody leads, and as soon as this process has lost the lock.
// It learns of others by LookUp.
func OnLeader(f func(owner string)) Option { return func(e *Election) { e.onLeader = f } }

// LookUp tells how to find out who holds the target, and how often to look: a
// swanlock.Locker does not say. With pglock's audit it is in the table lock_audit.
// An error leaves the leader as it was. Run and Watch wait for holder for two seconds
// at most after the end of its context.
func LookUp(every time.Duration, holder func(ctx context.Context, target string) (owner string, err error)) Option {
	return func(e *Election) { e.every, e.holder = every, holder }
}

// An Election is one process's view of who leads. All its methods may be called
// by several goroutines at once, but Run and Watch only by one at a time.
type Election struct {
	l        swanlock.Locker
	target   string
	opts     []swanlock.Option
	min, max time.Duration
	onError  func(error)
	onStart  func(swanlock.DistributedLock)
	onStop   func()
	onLeader func(string)
	every    time.Duration
	holder   func(context.Context, string) (string, error)

	telling sync.Mutex // held while the callbacks and the channel are told
	mu      sync.Mutex
	leader  string
	leads   bool
	terms   int // how often leads has changed
	changes chan string
}

// New returns the election of the target's leader. It does nothing until Run or
// Watch is called. An option that is nil, or the function of one, does nothing.
func New(l swanlock.Locker, target string, opts ...Option) *Election {
	e := &Election{l: l, target: target, min: 100 * time.Millisecond, max: 15 * time.Second, changes: make(chan string, 1),
		opts: []swanlock.Option{swanlock.WithTTL(defaultTTL), swanlock.WithAutoRefresh()}}
	for _, opt := range opts {
		if opt != nil {
			opt(e)
		}
	}
	// A lock without a TTL, as WithLockOptions may say, is not refreshed.
	e.opts = append(e.opts, func(o *swanlock.Options) { o.AutoRefresh = o.AutoRefresh && o.TTL != 0 })
	if e.onError == nil {
		e.onError = func(error) {}
	}
	if e.onStart == nil {
		e.onStart = func(swanlock.DistributedLock) {}
	}
	if e.onStop == nil {
		e.onStop = func() {}
	}
	if e.onLeader == nil {
		e.onLeader = func(string) {}
	}
	return e
}

// Run is New and Election.Run in one.
func Run(ctx context.Context, l swanlock.Locker, target string, lead func(ctx context.Context) error, opts ...Option) error {
	return New(l, target, opts...).Run(ctx, lead)
}

// Run campaigns until ctx ends, and calls lead each time that this process becomes
// the leader. The context that lead gets is swanlock.WithLock's: it ends with ctx,
// and when the lock is lost, and lead must return then. Whenever lead returns, the
// lock is released, and the campaign goes on; after an error, with a pause, so
// that another leads.
//
// Run returns nil when lead has returned ErrResign, the cause when ctx has ended,
// and at once the error of an option that is wrong or that the locker does not
// know. It has released the lock then; if it could not, because nothing could be
// sent (pglock.ErrBusy), OnError is told why, and the error of Run matches that
// too. After any other error it tries again, and first to release a lock that it could
// not release.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context) error) error {
	if err := e.check(); err != nil {
		return err
	}
	if e.holder != nil {
		var end func()
		ctx, end = e.lookBeside(ctx)
		defer end()
	}
	var stays swanlock.DistributedLock // the lock of a term that could not be released
	for failures := 0; ; {
		var led bool
		var err error
		kept := release(ctx, stays)
		if kept == nil {
			led, stays, kept, err = e.term(ctx, lead)
		}
		switch {
		case errors.Is(err, ErrResign):
			return e.ended(nil, kept)
		case ctx.Err() != nil:
			return e.ended(context.Cause(ctx), kept)
		case err == nil && kept == nil:
			failures = 0
			continue
		case !led && errors.Is(err, errors.ErrUnsupported):
			return fmt.Errorf("election: %w", err)
		}
		if kept != nil {
			err = errors.Join(err, kept)
		}
		e.onError(err)
		sleep(ctx, e.backoff(failures))
		failures++
	}
}

// release releases a lock, which may be nil, once more. A loss is no error.
func release(ctx context.Context, held swanlock.DistributedLock) error {
	if held == nil {
		return nil
	}
	if err := held.Release(ctx); !errors.Is(err, swanlock.ErrLost) {
		return err
	}
	return nil
}

// ended returns the error of a Run that ends because of err, and tells kept, which
// is why the lock could not be released, if it is not nil.
func (e *Election) ended(err, kept error) error {
	if kept == nil {
		return err
	}
	e.onError(kept)
	return errors.Join(err, kept)
}

func (e *Election) check() error {
	if e.l == nil {
		return errors.New("election: the locker is nil")
	}
	if e.min <= 0 || e.max < e.min {
		return fmt.Errorf("election: WithBackoff: from %v to %v", e.min, e.max)
	}
	if e.holder != nil && e.every <= 0 {
		return fmt.Errorf("election: LookUp: every %v", e.every)
	}
	if _, err := swanlock.NewOptions(e.target, e.opts...); err != nil {
		return fmt.Errorf("election: %w", err)
	}
	return nil
}

// term waits until this process leads, and leads until that is over. led reports
// whether it did. stays is the lock if it could not be released, and kept says why. A
// loss is no failure: the process campaigns again at once.
func (e *Election) term(ctx context.Context, lead func(context.Context) error) (led bool, stays swanlock.DistributedLock, kept, err error) {
	held, err := several.Granted(e.l.Acquire(ctx, e.target, e.opts...))
	if err != nil {
		return false, nil, nil, err
	}
	var lost error // as it was when lead had returned
	lctx, cancel := swanlock.WithLock(context.WithValue(ctx, lockKey{}, held), held)
	over, unwatch := swanlock.WithLock(context.WithoutCancel(ctx), held) // It ends with the lock alone.
	told, untold := make(chan any, 1), func() bool { return true }
	defer func() {
		defer func() { // also if a callback panics
			switch rerr := held.Release(ctx); {
			case rerr == nil:
			case !errors.Is(rerr, swanlock.ErrLost):
				stays, kept = held, rerr
			case lost == nil:
				e.onError(rerr)
			}
		}()
		defer e.now("", false)
		defer e.onStop()
		stopped := untold()
		unwatch()
		// What lead may have left running must not go on beside the next leader.
		cancel()
		if !stopped {
			several.Repeat(<-told) // what OnLeader has panicked with
		}
	}()
	e.onStart(held)
	if held.Err() == nil {
		e.now(held.Info().Owner, true)
	}
	untold = context.AfterFunc(over, func() { // Another may lead, although lead has not returned.
		several.Caught(func() { e.now("", false) }, func(fate any) { told <- fate })
	})
	err = lead(lctx)
	if lost = held.Err(); errors.Is(lost, swanlock.ErrLost) && !errors.Is(err, ErrResign) {
		if errors.Is(err, swanlock.ErrLost) || errors.Is(err, context.Canceled) {
			err = nil // It says no more than that its context has ended.
		}
		e.onError(errors.Join(lost, err))
		err = nil
	}
	return true, nil, nil, err
}

type lockKey struct{}

// Lock returns the leader's lock, with its fence, to the function that leads.
func Lock(ctx context.Context) (held swanlock.DistributedLock, ok bool) {
	held, ok = ctx.Value(lockKey{}).(swanlock.DistributedLock)
	return held, ok
}

// Leader returns the name of the leader, or nothing if that is not known.
func (e *Election) Leader() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leader
}

// Changes returns a channel that gets the name of each new leader. A reader that
// is slow gets the last one only.
func (e *Election) Changes() <-chan string { return e.changes }

// now notes that this process leads, or that it does not any more.
func (e *Election) now(owner string, leads bool) {
	e.telling.Lock()
	defer e.telling.Unlock()
	e.mu.Lock()
	ended := !leads && !e.leads // That was told, and who leads may have been found out since.
	e.leads = leads
	e.terms++
	e.mu.Unlock()
	if !ended {
		e.tell(owner)
	}
}

func (e *Election) tell(owner string) {
	e.mu.Lock()
	changed := e.leader != owner
	e.leader = owner
	e.mu.Unlock()
	if !changed {
		return
	}
	select {
	case <-e.changes:
	default:
	}
	e.changes <- owner
	e.onLeader(owner)
}

// backoff returns a random time, half of the pause or more, so that processes do
// not come back together.
func (e *Election) backoff(failures int) time.Duration {
	d := e.max
	if e.min <= e.max>>failures {
		d = e.min << failures
	}
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
