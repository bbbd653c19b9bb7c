// Package lease is the holder's half of a lock that a server lends for a time:
// its deadline, its refreshes, its end. A locker adds how the lock is taken,
// and a Backend for each lock.
//
// It makes sure that the holder's deadline is never later than the server's,
// that a Backend is called once at a time, that Done is closed at the deadline
// without a call, and that a lock is freed once, whatever has become of the
// caller's context.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// A Backend is one lock on its server, known by a token that nobody else has. It
// is called by one goroutine at a time, also for a lock whose acquire has failed.
// A call must return soon after its ctx has ended. What it has sent may then
// still be on its way: a refresh that arrives after a release must take nothing.
type Backend interface {
	// Refresh proves that the lock is held, and restarts its lease on the
	// server. The error matches swanlock.ErrLost if the server has answered
	// that the lock is not held; any other leaves the lock as it was.
	Refresh(ctx context.Context) error

	// Release frees the lock, if it is held, and reports whether it was. It
	// must not touch the lock of anybody else, and may be called again.
	Release(ctx context.Context) (held bool, err error)
}

// A Request is what a lock is asked for with.
type Request struct {
	Package string // the locker's, for its errors
	Target  string
	Options swanlock.Options
	Backend Backend

	// Lease is for how long the server keeps the lock after the request was
	// sent, or less, if its clock may be faster: the TTL or, for a lock without
	// one, what the locker chooses; such a lock is kept alive in the background.
	// 0 says that the lock needs no lease.
	Lease time.Duration

	// Patience is for how long Try waits for the answer, if the lease lasts longer;
	// 0 says for the lease.
	Patience time.Duration

	// Kept says that the locker refreshes the lock in the background itself, and
	// many others with it, and tells the lock so through Extender.
	Kept bool
}

// A Lock is a lock that is held, or was. It is a swanlock.DistributedLock. One
// that is dropped without Release is released when the garbage collector finds
// it, and a warning is logged.
type Lock struct {
	h       *hold
	dropped runtime.Cleanup
}

// A hold is the state of a lock. Timers refer to it, and not to the Lock, so that
// the garbage collector can find a Lock that was dropped.
type hold struct {
	Request
	info swanlock.Info
	turn chan struct{}           // taken by the one that calls the Backend
	life context.Context         // ends when the lock is over
	end  context.CancelCauseFunc // ends life

	mu       sync.Mutex
	term     Term
	err      error       // why it is over; nil while it is held
	failed   error       // of the last refresh in the background; nil if there was none
	released bool        // Release was called
	expiry   *time.Timer // nil without a lease
	auto     *time.Timer // the next refresh in the background; nil: none
}

func newLock(r Request, start time.Time, fence uint64) *Lock {
	h := &hold{
		Request: r,
		info: swanlock.Info{Target: r.Target, Owner: r.Options.Owner, TTL: r.Options.TTL,
			AcquiredAt: start, Fence: fence, Shared: r.Options.Shared},
		turn: make(chan struct{}, 1),
		term: Term{r.Lease, start},
	}
	h.life, h.end = context.WithCancelCause(context.Background())
	if r.Lease > 0 {
		h.mu.Lock() // A timer may go off before it is stored.
		h.expiry = time.AfterFunc(h.nextLook(time.Now()), h.look)
		if !r.Kept && (r.Options.AutoRefresh || r.Options.TTL == 0) {
			h.auto = time.AfterFunc(r.Lease/3-time.Since(start), h.autoRefresh)
		}
		h.mu.Unlock()
	}
	l := &Lock{h: h}
	l.dropped = runtime.AddCleanup(l, drop, h)
	return l
}

// AsLock returns what an acquire returns, with no interface of a nil *Lock.
func AsLock(l *Lock, err error) (swanlock.DistributedLock, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Info returns what was locked, and how.
func (l *Lock) Info() swanlock.Info { return l.h.info }

// Done returns a channel that is closed once the lock is no longer held.
func (l *Lock) Done() <-chan struct{} { return l.h.life.Done() }

// AfterDone calls f, in a goroutine of its own, when Done is closed, with what
// Err returns then. stop prevents that, and reports whether it did.
// swanlock.Observe uses it.
func (l *Lock) AfterDone(f func(err error)) (stop func() bool) {
	life := l.h.life
	return context.AfterFunc(life, func() { f(context.Cause(life)) })
}

// Err returns nil while the lock is held.
func (l *Lock) Err() error { return l.h.over() }

// Deadline returns when the lease ends unless it is refreshed. A lock without a
// TTL has a deadline too, if it needs a lease.
func (l *Lock) Deadline() (deadline time.Time, ok bool) {
	h := l.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Lease == 0 {
		return time.Time{}, false
	}
	now := time.Now()
	return now.Add(h.term.Left(now)), true
}

// Refresh proves that the lock is held, and restarts its lease. If the lock is
// refreshed in the background too, it waits for a third of the lease at most, so
// that the next refresh there has its turn.
func (l *Lock) Refresh(ctx context.Context) error {
	defer runtime.KeepAlive(l)
	if l.h.auto != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.h.Lease/3, errUnanswered)
		defer cancel()
	}
	return l.h.refresh(ctx)
}

// Release frees the lock, also when ctx has ended. While ctx lives, it tries
// again when the server cannot be used, for 5 s in all.
func (l *Lock) Release(ctx context.Context) error {
	ctx.Err() // A nil context panics here, where the lock is as it was.
	l.dropped.Stop()
	return l.h.release(ctx)
}

// Loser returns a function that ends the lock as lost, because of cause. It is
// for a locker that learns of the loss by itself, and does not keep the Lock from
// being found to be dropped.
func (l *Lock) Loser() func(cause error) {
	return l.h.lose
}

// lose ends the lock as lost, because of cause.
func (h *hold) lose(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(h.lost(cause))
}

func (h *hold) endLocked(err error) {
	if h.err != nil {
		return
	}
	h.err = err
	for _, t := range []*time.Timer{h.expiry, h.auto} {
		if t != nil {
			t.Stop()
		}
	}
	h.end(err)
}

func (h *hold) expireLocked(now time.Time) {
	if h.err != nil || h.term.Left(now) > 0 {
		return
	}
	err := h.wrap("lease", swanlock.ErrExpired)
	if h.failed != nil {
		err = fmt.Errorf("%w: the last refresh in the background failed: %w", err, h.failed)
	}
	h.endLocked(err)
}

// over returns why the lock is over, or nil.
func (h *hold) over() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked(time.Now())
	return h.err
}

// look is called by the timer expiry. A refresh does not touch that timer.
func (h *hold) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.expireLocked(now); h.err == nil {
		h.expiry.Reset(h.nextLook(now))
	}
}

// nextLook returns when to look at the clocks: at the deadline, and before that
// now and then, since the timer stands still while the machine sleeps.
func (h *hold) nextLook(now time.Time) time.Duration {
	return min(h.term.Left(now), max(h.Lease/3, time.Millisecond))
}

func (h *hold) refresh(ctx context.Context) error {
	if err := h.over(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return h.wrap("refresh", context.Cause(ctx))
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return h.wrap("refresh", context.Cause(ctx))
	case <-h.life.Done():
		return h.over()
	}
	if err := h.over(); err != nil { // It was released before the turn was taken.
		return err
	}
	call, cancel := context.WithCancel(causeless{ctx})
	defer cancel()
	defer context.AfterFunc(h.life, cancel)() // Release does not wait for a refresh.
	start := time.Now()
	err := h.Backend.Refresh(call)
	over := h.refreshed(start, err)
	if err == nil && errors.Is(over, swanlock.ErrExpired) {
		_, _ = Free(ctx, h.Backend) // The server has begun a lease for a holder that is gone.
	}
	switch {
	case over != nil:
		return over
	case err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		return fmt.Errorf("%w: %w", h.wrap("refresh", context.Cause(ctx)), err)
	case err != nil:
		return h.wrap("refresh", err)
	}
	return nil
}

// refreshed notes the answer to a refresh that was sent after start, and returns
// why the lock is over, or nil.
func (h *hold) refreshed(start time.Time, answer error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireLocked(time.Now())
	switch {
	case h.err != nil:
	case answer == nil:
		if h.failed = nil; start.After(h.term.Start) { // Extender may have told of a later one.
			h.term.Start = start
		}
	case errors.Is(answer, swanlock.ErrLost):
		h.endLocked(h.wrap("refresh", answer))
	}
	return h.err
}

// autoRefresh refreshes every third of the lease, so that one may fail, or get no
// answer.
func (h *hold) autoRefresh() {
	every, start := h.Lease/3, time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), every)
	defer cancel()
	err := h.refresh(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.failed = err
		h.auto.Reset(max(every-time.Since(start), every/10))
	}
}

func (h *hold) release(ctx context.Context) error {
	h.mu.Lock()
	again := h.released
	h.released = true
	h.expireLocked(time.Now())
	over := h.err
	h.endLocked(swanlock.ErrReleased) // before another can hold it
	h.mu.Unlock()
	if again {
		return nil
	}
	var held bool
	var earlier error
	err := errBusy
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
		// Also after a loss, since the server may keep the lock for longer than
		// the holder may count on it.
		held, earlier, err = free(ctx, h.Backend)
	case <-time.After(freeing):
		// The server may keep a lock without a lease for ever, and the refresh may begin
		// another lease.
		go func() {
			h.turn <- struct{}{}
			defer func() { <-h.turn }()
			_, _ = Free(ctx, h.Backend)
		}()
	}
	switch {
	case over != nil:
		return over
	case held:
		return nil
	case err == nil && earlier != nil:
		err = fmt.Errorf("%w, or not any more when it was asked again: %w", errNotHeld, earlier)
	case err == nil:
		err = errNotHeld
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = fmt.Errorf("%s: release %s: %w: %w", h.Package, quoted.Text(h.Target), swanlock.ErrLost, err)
	return h.err
}

var (
	errNotHeld = errors.New("the server did not hold it")
	errBusy    = errors.New("a refresh does not return")
	errDropped = errors.New("dropped without Release")

	errUnanswered = errors.New("there was no answer for a third of the lease")
)

func (h *hold) lost(cause error) error {
	if errors.Is(cause, swanlock.ErrLost) {
		return h.wrap("lease", cause)
	}
	return fmt.Errorf("%s: %s: %w: %w", h.Package, quoted.Text(h.Target), swanlock.ErrLost, cause)
}

// drop ends a lock whose handle the garbage collector has found unreachable.
func drop(h *hold) {
	if h.over() != nil {
		return
	}
	slog.Default().Warn(h.Package+": a lock was dropped without Release", "target", h.Target, "owner", h.info.Owner)
	h.lose(errDropped)
	go func() { _ = h.release(context.Background()) }()
}
