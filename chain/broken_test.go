package chain_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/chain"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

// TestNeither: a locker that returns neither a lock nor an error is an error, and what
// the one before it granted is free again.
func TestNeither(t *testing.T) {
	space := memlock.New()
	neither := func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return nil, nil }
	l := chain.New(space, &mocks.Locker{TryAcquireFunc: neither, AcquireFunc: neither})
	for _, acquire := range []func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){l.TryAcquire, l.Acquire} {
		if held, err := acquire(t.Context(), "t"); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, %v, want an error of its own", held, err)
		}
		held, err := space.TryAcquire(t.Context(), "t")
		must(t, err)
		must(t, held.Release(t.Context()))
	}
}

// TestEndsWithTheAnswer: the error matches the cause of a context that ends as a locker
// has answered, be it to a try or to the refresh at the end.
func TestEndsWithTheAnswer(t *testing.T) {
	cause, away := errors.New("the caller was stopped"), errors.New("away")
	for name, granted := range map[string]bool{"a try": false, "a refresh": true} {
		ctx, stop := context.WithCancelCause(t.Context())
		l := chain.New(memlock.New(), &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
			if !granted {
				stop(cause)
				return nil, away
			}
			return &mocks.DistributedLock{RefreshFunc: func(context.Context) error { stop(cause); return away }}, nil
		}})
		if _, err := l.TryAcquire(ctx, "t", swanlock.WithTTL(time.Minute)); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) || !errors.Is(err, away) {
			t.Errorf("%s: got %v, want ErrNotAcquired with the cause %q", name, err, cause)
		}
	}
}

// TestCauseIsNoLoss: what ends the context, as the last part is granted, may be the loss
// of another lock. No part was lost, and the error tells of the context.
func TestCauseIsNoLoss(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	cause, space := fmt.Errorf("another lock: %w", swanlock.ErrLost), memlock.New()
	l := chain.New(memlock.New(), &mocks.Locker{TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
		defer stop(cause)
		return space.TryAcquire(ctx, target, opts...)
	}})
	if _, err := l.TryAcquire(ctx, "t", swanlock.WithTTL(time.Minute)); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) {
		t.Errorf("got %v, want ErrNotAcquired with the cause %q", err, cause)
	}
}
