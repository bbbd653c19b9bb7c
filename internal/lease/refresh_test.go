package lease_test

import (
	"context"
	"errors"
	"testing"

	"github.com/swanlake-io/swanlock"
)

// A calledCtx calls f when it is asked for its error.
type calledCtx struct {
	context.Context
	f func()
}

func (c calledCtx) Err() error {
	c.f()
	return nil
}

// TestRefreshAfterRelease: the lock is released between the moment when Refresh has seen
// that it is held and the call of the Backend, which would take it again.
func TestRefreshAfterRelease(t *testing.T) {
	for range 50 { // The turn and the end of the lock are there at once.
		s, r := newServer(t, swanlock.WithTTL(ttl))
		held := mustTry(t, s, r)
		s.refresh = func(context.Context) error {
			t.Error("the Backend is asked to refresh a lock that was released")
			return nil
		}
		release := func() {
			if err := held.Release(t.Context()); err != nil {
				t.Errorf("Release: %v", err)
			}
		}
		if err := held.Refresh(calledCtx{t.Context(), release}); !errors.Is(err, swanlock.ErrReleased) {
			t.Errorf("Refresh: got %v, want ErrReleased", err)
		}
	}
}
