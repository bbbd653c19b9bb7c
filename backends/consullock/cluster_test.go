package consullock

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// leaderOf returns which of nodes leads, as another one says.
func leaderOf(t testing.TB, nodes []*testserver.Node) int {
	t.Helper()
	for i, n := range nodes {
		self, err := client(t, n.Addr).Agent().Self()
		if err != nil {
			continue
		}
		if self["Stats"]["consul"].(map[string]any)["leader"] == "true" {
			return i
		}
	}
	t.Fatal("no node leads")
	return 0
}

// TestLeader kills the leader, and has another stand still, so that there is none for a
// while: what is held is held, waiters wait, and fences rise.
func TestLeader(t *testing.T) {
	t.Parallel()
	nodes := testserver.ConsulCluster(t, 3, "1s")
	leader := leaderOf(t, nodes)
	lone, third := nodes[(leader+1)%3], nodes[(leader+2)%3]
	l := newLocker(t, lone.Addr, WithSessionTTL(30*time.Second))
	first := try(t, l, swanlock.WithFence())
	w := acquire(t, newLocker(t, lone.Addr), swanlock.WithFence())
	refreshed := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return first.Refresh(ctx)
	}
	nodes[leader].Kill()
	testserver.Eventually(t, "Refresh with a new leader", refreshed)

	resume := third.Stop()
	testserver.Eventually(t, "there is no leader", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		held, err := l.TryAcquire(ctx, target+"2")
		if err == nil {
			testserver.Release(t, held)
			return errors.New("a lock was granted")
		}
		if errors.Is(err, swanlock.ErrNotAcquired) && ctx.Err() == nil {
			t.Errorf("TryAcquire without a leader: got %v, want an error of its own", err)
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	if err := refreshed(); err == nil || errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Refresh without a leader: got %v, want an error that is not ErrLost", err)
	}
	resume()
	testserver.Eventually(t, "Refresh with a leader again", refreshed)
	w.MustWait("while another holds the lock")
	testserver.Release(t, first)
	next := w.MustGet()
	if was, is := first.Info().Fence, next.Info().Fence; is <= was {
		t.Errorf("fence with a new leader: got %d, want over %d", is, was)
	}
	testserver.Release(t, next)
}

// TestLeaderStops has the leader, which a holder talks to, stand still until others
// have elected another. What was sent to it meanwhile takes no lock.
func TestLeaderStops(t *testing.T) {
	t.Parallel()
	nodes := testserver.ConsulCluster(t, 3, "1s")
	leader := leaderOf(t, nodes)
	l, other := newLocker(t, nodes[leader].Addr, WithSessionTTL(4*time.Second)), newLocker(t, nodes[(leader+1)%3].Addr, WithSessionTTL(20*time.Second))
	lost := try(t, l, swanlock.WithFence())
	resume := nodes[leader].Stop()
	w := acquire(t, l, swanlock.WithFence())
	testserver.Told(t, lost, swanlock.ErrExpired)
	next := acquire(t, other, swanlock.WithFence()).MustGet()
	if was, is := lost.Info().Fence, next.Info().Fence; is <= was {
		t.Errorf("fence with a new leader: got %d, want over %d", is, was)
	}
	resume()
	time.Sleep(3 * time.Second)
	w.MustWait("while another holds the lock")
	testserver.Superseded(t, lost, next)
	testserver.Release(t, next)
	testserver.Release(t, w.MustGet())
}
