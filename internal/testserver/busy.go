package testserver

import (
	"context"
	"errors"

	"github.com/swanlake-io/swanlock"
)

// ErrBusy is what the first release of a lock of BusyOnce returns.
var ErrBusy = errors.New("busy")

// BusyOnce returns a locker on l whose locks are busy at their first release, which frees
// nothing, as that of a pglock.Session whose connection has open Rows.
func BusyOnce(l swanlock.Locker) swanlock.Locker { return busyLocker{l} }

type busyLocker struct{ swanlock.Locker }

type busyLock struct {
	swanlock.DistributedLock
	tried *bool
}

func (l busyLocker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	held, err := l.Locker.Acquire(ctx, target, opts...)
	return busyLock{held, new(bool)}, err
}

func (l busyLock) Release(ctx context.Context) error {
	if !*l.tried {
		*l.tried = true
		return ErrBusy
	}
	return l.DistributedLock.Release(ctx)
}
