package etcdlock

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestServerEndsFirst: the server is told the deadline of a request. If it gives up a
// moment before the caller does, it is the caller's deadline all the same.
func TestServerEndsFirst(t *testing.T) {
	s := startEtcd(t)
	l := newLocker(t, intercepted(t, s.Addr, func(method string, _ any, call func() error) error {
		if strings.HasSuffix(method, "/Txn") {
			return status.Error(codes.Unknown, "context deadline exceeded")
		}
		return call()
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := l.Acquire(ctx, "target"); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrNotAcquired and DeadlineExceeded", err)
	}
}

// TestSlowProof: the lease counts from the request that renewed it, and not from when the
// proof came that the key is there.
func TestSlowProof(t *testing.T) {
	t.Parallel()
	const ttl, slow = 2 * time.Second, 300 * time.Millisecond
	etcd := startEtcd(t)
	var asked atomic.Pointer[time.Time] // for the proof, when the lease had been renewed
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		if method == pb.Lease_LeaseTimeToLive_FullMethodName {
			now := time.Now()
			asked.Store(&now)
			time.Sleep(slow)
		}
		return call()
	}), WithSessionTTL(ttl))
	held := try(t, l)
	first, _ := held.Deadline()
	testserver.Eventually(t, "the lock is extended", func() error {
		if deadline, _ := held.Deadline(); deadline.Sub(first) < slow {
			return errors.New("not yet")
		}
		return nil
	})
	if deadline, _ := held.Deadline(); deadline.After(asked.Load().Add(ttl)) {
		t.Errorf("the deadline is %v later than the lease ends", deadline.Sub(asked.Load().Add(ttl)))
	}
	testserver.Release(t, held)
}
