package etcdlock

import (
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestLeaseEndsMeanwhile: the lease that a lock was to share ends while the lock is asked
// for. It is asked for again with another, and is not lost with the one that has ended.
func TestLeaseEndsMeanwhile(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	var waits atomic.Bool
	found := make(chan struct{})
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		if method == pb.KV_Txn_FullMethodName && waits.CompareAndSwap(true, false) {
			<-found
		}
		return call()
	}), WithSessionTTL(3*time.Second))
	other, err := l.TryAcquire(t.Context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.client.Revoke(t.Context(), l.leases.group(l.session).current.id); err != nil {
		t.Fatal(err)
	}
	waits.Store(true)
	asks := testserver.Go(t, func() (swanlock.DistributedLock, error) { return l.TryAcquire(t.Context(), target) })
	testserver.Told(t, other, swanlock.ErrLost)
	time.Sleep(100 * time.Millisecond) // All that have the lease are told.
	close(found)
	testserver.Release(t, asks.MustGet())
	_ = other.Release(t.Context())
	time.Sleep(1500 * time.Millisecond) // What revokes the lease has ended.
}

// TestOldLeaseIsFound: the lease that a lock was to share is no more, and the lock has
// another. It is not lost when the Locker finds out what has become of the first.
func TestOldLeaseIsFound(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr), WithSessionTTL(ttl))
	other, err := l.TryAcquire(t.Context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	old := l.leases.group(l.session).current
	if _, err := l.client.Revoke(t.Context(), old.id); err != nil {
		t.Fatal(err)
	}
	held := try(t, l)
	testserver.Told(t, other, swanlock.ErrLost)
	_ = other.Release(t.Context())
	time.Sleep(ttl / 3)
	testserver.Release(t, held)
}
