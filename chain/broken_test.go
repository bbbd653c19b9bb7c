package chain_test

import (
	"context"
	"errors"
	"testing"

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
