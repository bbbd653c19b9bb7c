package etcdlock

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

func countLeases(t testing.TB, c *clientv3.Client) int {
	t.Helper()
	resp, err := c.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Leases)
}

// TestLeasesAreShared takes many locks at once. Those that are kept alive need one
// lease for each TTL, and live on when others are released; the others have each one
// of its own, which serves again.
func TestLeasesAreShared(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	observer := connect(t, etcd.Addr)
	const many, ttl = 100, 15 * time.Second
	l := newLocker(t, connect(t, etcd.Addr), WithSessionTTL(16*time.Second))
	take := func(name string, n int, opts ...swanlock.Option) []swanlock.DistributedLock {
		held := make([]swanlock.DistributedLock, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				var err error
				if held[i], err = l.TryAcquire(t.Context(), fmt.Sprintf("%s/%d", name, i), opts...); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
		return held
	}
	plain := take("plain", many)
	auto := take("auto", many, swanlock.WithTTL(ttl), swanlock.WithAutoRefresh())
	if got := countLeases(t, observer); got != 2 {
		t.Errorf("%d locks that are kept alive, of two TTLs: got %d leases, want 2", 2*many, got)
	}
	for i := range many - 1 {
		testserver.Release(t, plain[i])
		testserver.Release(t, auto[i])
	}
	time.Sleep(ttl + 2*time.Second)
	for _, held := range []swanlock.DistributedLock{plain[many-1], auto[many-1]} {
		if err := held.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh when the others were released: %v", err)
		}
		testserver.Release(t, held)
	}

	testserver.Eventually(t, "the shared leases end", func() error {
		if n := countLeases(t, observer); n > 0 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	for range 3 {
		own := take("own", 10, swanlock.WithTTL(time.Minute))
		if got := countLeases(t, observer); got != 10 {
			t.Errorf("10 locks that their holders refresh: got %d leases, want 10", got)
		}
		for _, held := range own {
			testserver.Release(t, held)
		}
	}
}

// TestOneIsRefreshed refreshes one of two locks that have the same TTL. The other one
// ends all the same, for everybody.
func TestOneIsRefreshed(t *testing.T) {
	t.Parallel()
	const ttl = 4 * time.Second
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	forgotten := try(t, l, swanlock.WithTTL(ttl))
	refreshed, err := l.TryAcquire(t.Context(), "refreshed", swanlock.WithTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	w := acquire(t, newLocker(t, connect(t, etcd.Addr)))
	for start := time.Now(); w.Waits(); time.Sleep(ttl / 8) {
		if err := refreshed.Refresh(t.Context()); err != nil {
			t.Fatalf("Refresh: %v", err)
		}
		if time.Since(start) > testserver.Patience {
			t.Fatalf("the lock that was not refreshed is held after %v", testserver.Patience)
		}
	}
	testserver.Release(t, w.MustGet())
	testserver.Told(t, forgotten, swanlock.ErrExpired)
	testserver.Release(t, refreshed)
}

// TestJoinsALease takes a lock under a lease that has run for a while, and cuts its
// holder off. The holder must know before anybody else holds it.
func TestJoinsALease(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	proxy := testserver.NewProxy(t, etcd.Addr)
	l := newLocker(t, connect(t, proxy.Addr), WithSessionTTL(9*time.Second))
	first, err := l.TryAcquire(t.Context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond) // It is renewed after three seconds.
	before := time.Now()
	held := try(t, l)
	if at := held.Info().AcquiredAt; at.Before(before) {
		t.Errorf("AcquiredAt: got %v before the call", before.Sub(at))
	}
	proxy.Cut()
	next := acquire(t, newLocker(t, connect(t, etcd.Addr))).MustGet()
	if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
		t.Errorf("Err when another holds the lock: got %v, want ErrExpired", err)
	}
	testserver.Release(t, next)
	proxy.Heal()
	testserver.Told(t, first, swanlock.ErrExpired)
	_, _ = first.Release(t.Context()), held.Release(t.Context())
}

// TestWholeSeconds: etcd has the TTL rounded up, and the holder counts its own.
func TestWholeSeconds(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	for ttl, want := range map[time.Duration]int64{20100 * time.Millisecond: 21, 20 * time.Second: 20, 20001 * time.Millisecond: 21} {
		before := time.Now()
		held := try(t, l, swanlock.WithTTL(ttl))
		resp, err := l.client.Get(t.Context(), newEntryFor(target).all, clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		granted, err := l.client.TimeToLive(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
		if err != nil {
			t.Fatal(err)
		}
		if granted.GrantedTTL != want {
			t.Errorf("TTL %v: etcd has %d s, want %d", ttl, granted.GrantedTTL, want)
		}
		if deadline, _ := held.Deadline(); deadline.After(time.Now().Add(ttl)) || deadline.Before(before) {
			t.Errorf("TTL %v: the deadline is %v after the call", ttl, deadline.Sub(before))
		}
		testserver.Release(t, held)
	}
	if _, err := l.TryAcquire(t.Context(), target, swanlock.WithTTL(maxTTL+1)); !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a TTL that etcd refuses: got %v, want ErrUnsupported", err)
	}
}

// TestKeyIsDeleted deletes the key of a lock that is kept alive: the holder is told in
// the background.
func TestKeyIsDeleted(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr), WithSessionTTL(6*time.Second))
	for _, opts := range [][]swanlock.Option{nil, {swanlock.WithShared()}, {swanlock.WithTTL(time.Hour), swanlock.WithAutoRefresh()}} {
		held := try(t, l, opts...)
		other, err := l.TryAcquire(t.Context(), "another", opts...)
		if err != nil {
			t.Fatal(err)
		}
		deleteLine(t, l.client, target, 0)
		if held.Info().TTL > time.Minute { // which is not waited for
			if err := held.Refresh(t.Context()); !errors.Is(err, swanlock.ErrLost) {
				t.Errorf("Refresh: got %v, want ErrLost", err)
			}
		}
		testserver.Told(t, held, swanlock.ErrLost)
		if err := other.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh of another lock: %v", err)
		}
		testserver.Release(t, other)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	if _, err := New(nil); err == nil {
		t.Error("New of a nil client: got nil, want an error")
	}
	client := &clientv3.Client{}
	for ttl, ok := range map[time.Duration]bool{time.Second: false, 2500 * time.Millisecond: false, minTTL: true, maxTTL + time.Second: false} {
		if _, err := New(client, nil, WithSessionTTL(ttl)); (err == nil) != ok {
			t.Errorf("WithSessionTTL(%v): got %v, want none: %t", ttl, err, ok)
		}
	}
}

// TestUnproven renews a lease while nothing proves that the key is there. Its holder must
// not count on the lock for longer than the lease lasts since the last proof, and others
// have it after that, although the holder does not release it.
func TestUnproven(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	etcd := startEtcd(t)
	var refuse atomic.Bool
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		if method == pb.Lease_LeaseTimeToLive_FullMethodName && refuse.Load() {
			return status.Error(codes.PermissionDenied, "a test")
		}
		return call()
	}), WithSessionTTL(ttl))
	held := try(t, l)
	time.Sleep(ttl) // It is renewed, and proven.
	if err := held.Err(); err != nil {
		t.Fatal(err)
	}
	refuse.Store(true)
	start := time.Now()
	testserver.Told(t, held, swanlock.ErrExpired)
	if took := time.Since(start); took > 2*ttl {
		t.Errorf("the holder was told after %v, want %v", took, ttl)
	}
	testserver.Release(t, acquire(t, newLocker(t, connect(t, etcd.Addr))).MustGet())
	_ = held.Release(t.Context())
}

// TestMemberIsBehind: the member that is asked which keys a shared lease has does not know
// of them yet, and once cannot be asked for one of them. The lock is held on.
func TestMemberIsBehind(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	etcd := startEtcd(t)
	var asked atomic.Int32
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, reply any, call func() error) error {
		if method == pb.KV_Range_FullMethodName && asked.Add(1) == 1 {
			return status.Error(codes.PermissionDenied, "a test")
		}
		err := call()
		if r, ok := reply.(*pb.LeaseTimeToLiveResponse); ok {
			r.Keys = nil
		}
		return err
	}), WithSessionTTL(ttl))
	held := try(t, l)
	time.Sleep(3 * ttl / 2)
	if err := held.Err(); err != nil || asked.Load() < 2 {
		t.Errorf("got %v, after the key was asked for %d times", err, asked.Load())
	}
	_ = held.Release(t.Context())
}

// TestLeaseIsUnknown: a member says once that it does not know a lease that others share.
// The locks that it has are lost, and the next one has a lease that is kept alive.
func TestLeaseIsUnknown(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	etcd := startEtcd(t)
	var deny atomic.Bool
	l := newLocker(t, intercepted(t, etcd.Addr, func(_ string, reply any, call func() error) error {
		err := call()
		if r, ok := reply.(*pb.LeaseTimeToLiveResponse); ok && deny.CompareAndSwap(true, false) {
			r.TTL, r.Keys = -1, nil
		}
		return err
	}), WithSessionTTL(ttl))
	lost, err := l.TryAcquire(t.Context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	deny.Store(true)
	testserver.Told(t, lost, swanlock.ErrLost)
	held := try(t, l)
	time.Sleep(2 * ttl)
	testserver.Release(t, held)
	_ = lost.Release(t.Context())
}
