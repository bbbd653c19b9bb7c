package lease_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

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

// TestReleaseOfAHungRefresh: a client that does not heed its context keeps Release for
// 5 s. The lock is freed when the refresh has returned, also one that has no lease.
func TestReleaseOfAHungRefresh(t *testing.T) {
	for name, length := range map[string]time.Duration{"without a lease": 0, "with a lease": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := newServer(t)
				r.Lease, s.ttl, r.Kept = length, length, true
				held := mustTry(t, s, r)
				s.refresh = func(context.Context) error { time.Sleep(10 * time.Second); s.begin(); return nil }
				refreshed := make(chan error, 1)
				go func() { refreshed <- held.Refresh(context.Background()) }()
				synctest.Wait()
				start := time.Now()
				is(t, held.Release(t.Context()), swanlock.ErrLost)
				if took := time.Since(start); took != 5*time.Second {
					t.Errorf("Release took %v, want 5s", took)
				}
				is(t, <-refreshed, swanlock.ErrLost)
				synctest.Wait()
				if s.holds() || s.freed != 1 {
					t.Errorf("the server holds it: %t; it was freed %d times, want once", s.holds(), s.freed)
				}
			})
		})
	}
}
