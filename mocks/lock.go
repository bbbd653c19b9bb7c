package mocks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

var _ swanlock.DistributedLock = (*DistributedLock)(nil)

// A DistributedLock is a swanlock.DistributedLock that a test makes do what it
// wants. The zero one is held, until Release or Lose; a TTL does not end it.
// Each function that is set stands in for one method, and the others stay in
// step with it: an error of RefreshFunc or ReleaseFunc that matches ErrLost
// ends the lock with that error, any other outcome of ReleaseFunc with
// ErrReleased, and a channel of DoneFunc that is closed is a loss. Do not copy a
// DistributedLock, and set its functions before it is used.
type DistributedLock struct {
	InfoFunc    func() swanlock.Info
	RefreshFunc func(ctx context.Context) error
	ReleaseFunc func(ctx context.Context) error
	DoneFunc    func() <-chan struct{}
	ErrFunc     func() error

	// DeadlineFunc stands in for Deadline, which otherwise is the TTL of Info
	// after the last Refresh that returned nil, or else after AcquiredAt.
	DeadlineFunc func() (deadline time.Time, ok bool)

	info swanlock.Info

	mu        sync.Mutex
	done      chan struct{}
	err       error
	refreshed time.Time // when the last Refresh that returned nil was called
	released  bool      // Release was called
	calls     []LockCall
}

// A LockCall is a call to a lock that acts, and has returned. Those that only
// look (Info, Done, Err, Deadline) are not kept.
type LockCall struct {
	Method  string // "Refresh" or "Release"
	Context context.Context
	Err     error
}

// Info calls InfoFunc, or tells what the Locker granted, if one did.
func (l *DistributedLock) Info() swanlock.Info {
	if l.InfoFunc != nil {
		return l.InfoFunc()
	}
	return l.info
}

// Refresh calls RefreshFunc, or returns nil while the lock is held and ctx
// lasts.
func (l *DistributedLock) Refresh(ctx context.Context) error {
	var err error
	called := time.Now()
	switch {
	case l.RefreshFunc != nil:
		if err = l.RefreshFunc(ctx); errors.Is(err, swanlock.ErrLost) {
			l.end(err)
		}
	default:
		if err = l.Err(); err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if err == nil {
		l.mu.Lock()
		l.refreshed = called
		l.mu.Unlock()
	}
	l.record("Refresh", ctx, err)
	return err
}

// Release calls ReleaseFunc, at every call; without one it returns nil, or at
// the first call after a loss the loss.
func (l *DistributedLock) Release(ctx context.Context) error {
	l.mu.Lock()
	again := l.released
	l.released = true
	l.mu.Unlock()
	var err error
	switch {
	case l.ReleaseFunc != nil:
		err = l.ReleaseFunc(ctx)
	case !again:
		if err = l.Err(); !errors.Is(err, swanlock.ErrLost) {
			err = nil
		}
	}
	if errors.Is(err, swanlock.ErrLost) {
		l.end(err)
	} else {
		l.end(swanlock.ErrReleased)
	}
	l.record("Release", ctx, err)
	return err
}

// Done calls DoneFunc, or returns a channel that is closed when the lock ends.
func (l *DistributedLock) Done() <-chan struct{} {
	if l.DoneFunc != nil {
		return l.DoneFunc()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.doneChan()
}

// Err calls ErrFunc, or tells how the lock ended.
func (l *DistributedLock) Err() error {
	if l.ErrFunc != nil {
		return l.ErrFunc()
	}
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if err == nil && l.DoneFunc != nil {
		select {
		case <-l.DoneFunc():
			return swanlock.ErrLost
		default:
		}
	}
	return err
}

// Deadline calls DeadlineFunc, or counts the TTL that Info tells; ok is false if
// that is 0. The time passes without a consequence: a mock's TTL does not end
// it.
func (l *DistributedLock) Deadline() (deadline time.Time, ok bool) {
	if l.DeadlineFunc != nil {
		return l.DeadlineFunc()
	}
	info := l.Info()
	if info.TTL == 0 {
		return time.Time{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	start := info.AcquiredAt
	if l.refreshed.After(start) {
		start = l.refreshed
	}
	return start.Add(info.TTL), true
}

// Lose ends the lock as a dead session or a TTL that ran out would: Done is
// closed, and Err is cause, made to match swanlock.ErrLost if it does not. A nil
// cause is ErrLost itself. It does nothing to a lock that has ended.
func (l *DistributedLock) Lose(cause error) {
	switch {
	case cause == nil:
		cause = swanlock.ErrLost
	case !errors.Is(cause, swanlock.ErrLost):
		cause = fmt.Errorf("%w: %w", swanlock.ErrLost, cause)
	}
	l.end(cause)
}

// Calls returns the calls so far, in the order in which they returned.
func (l *DistributedLock) Calls() []LockCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

func (l *DistributedLock) record(method string, ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, LockCall{method, ctx, err})
}

func (l *DistributedLock) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.doneChan())
	}
}

// doneChan makes the channel when it is first wanted. l.mu is held.
func (l *DistributedLock) doneChan() chan struct{} {
	if l.done == nil {
		l.done = make(chan struct{})
	}
	return l.done
}
