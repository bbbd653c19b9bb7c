package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestPlaceIsLost deletes the key of a waiter, or revokes its lease, while another
// holds the lock. The waiter is told then, not when it would be its turn.
func TestPlaceIsLost(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l, observer := newLocker(t, connect(t, etcd.Addr)), newLocker(t, connect(t, etcd.Addr))
	held := try(t, l)
	for name, lose := range map[string]func(key string){
		"key": func(key string) { observer.client.Delete(t.Context(), key) },
		"lease": func(key string) {
			resp, err := observer.client.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			observer.client.Revoke(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
		},
	} {
		// One whose predecessor is of the same Locker, and one whose is not.
		for _, waiter := range []*Locker{l, newLocker(t, connect(t, etcd.Addr))} {
			w := acquire(t, waiter, swanlock.WithTTL(time.Hour))
			inLine(t, observer, 2)
			lose(keys(t, observer.client, target)[1])
			if _, err := w.Result(); !errors.Is(err, swanlock.ErrLost) {
				t.Errorf("%s: got %v, want ErrLost", name, err)
			}
			if err := held.Refresh(t.Context()); err != nil {
				t.Errorf("%s: Refresh of the holder: %v", name, err)
			}
		}
	}
	testserver.Release(t, held)
}

// TestTryJoinsNoLine looks for what a try that is refused writes: nothing. Else one
// that dies in between would keep out everybody for as long as its lease lasts.
func TestTryJoinsNoLine(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l, other := newLocker(t, connect(t, etcd.Addr)), newLocker(t, connect(t, etcd.Addr))
	held := try(t, l)
	testserver.Release(t, func() swanlock.DistributedLock { // and so has a lease
		held, err := other.TryAcquire(t.Context(), "another")
		if err != nil {
			t.Fatal(err)
		}
		return held
	}())
	before, err := l.client.Get(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range [][]swanlock.Option{nil, {swanlock.WithShared()}} {
		if _, err := other.TryAcquire(t.Context(), target, opts...); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("TryAcquire: got %v, want ErrNotAcquired", err)
		}
	}
	after, err := l.client.Get(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if before.Header.Revision != after.Header.Revision {
		t.Errorf("two refused tries wrote %d revisions, want none", after.Header.Revision-before.Header.Revision)
	}
	testserver.Release(t, held)
}

// TestWaitsLongerThanItsTTL waits for a multiple of the TTL, which begins with the
// grant.
func TestWaitsLongerThanItsTTL(t *testing.T) {
	t.Parallel()
	const ttl = 6 * time.Second
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	for _, holder := range []*Locker{l, newLocker(t, connect(t, etcd.Addr))} {
		held := try(t, holder)
		w := acquire(t, l, swanlock.WithTTL(ttl))
		time.Sleep(2*ttl + time.Second)
		w.MustWait("while another holds the lock")
		before := time.Now()
		testserver.Release(t, held)
		next := w.MustGet()
		if deadline, _ := next.Deadline(); deadline.Before(before.Add(ttl)) {
			t.Errorf("the deadline is %v after the release, want %v at least", deadline.Sub(before), ttl)
		}
		testserver.Release(t, next)
	}
}

// TestReadersOfOneLocker: a writer waits for all readers of its own Locker, and readers
// for the writer before them alone.
func TestReadersOfOneLocker(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	one, two := try(t, l, swanlock.WithShared()), try(t, l, swanlock.WithShared())
	writer := acquire(t, l)
	inLine(t, l, 3)
	leaves, cancel := context.WithCancel(t.Context())
	left := testserver.Go(t, func() (swanlock.DistributedLock, error) { return l.Acquire(leaves, target) })
	inLine(t, l, 4)
	readers := []*testserver.Call{acquire(t, l, swanlock.WithShared()), acquire(t, l, swanlock.WithShared())}
	inLine(t, l, 6)
	cancel()
	if _, err := left.Result(); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a waiter that leaves: got %v, want ErrNotAcquired", err)
	}
	testserver.Release(t, two)
	time.Sleep(5 * watchLocal)
	if !writer.Waits() || !readers[0].Waits() || !readers[1].Waits() {
		t.Fatalf("while a reader holds the lock: the writer waits: %t, the readers: %t, %t",
			writer.Waits(), readers[0].Waits(), readers[1].Waits())
	}
	testserver.Release(t, one)
	wrote := writer.MustGet()
	time.Sleep(5 * watchLocal)
	if !readers[0].Waits() || !readers[1].Waits() {
		t.Fatal("a reader got the lock that a writer holds")
	}
	testserver.Release(t, wrote)
	for _, r := range readers {
		testserver.Release(t, r.MustGet())
	}
}

// TestCompaction compacts away what a waiter that was cut off has not seen.
func TestCompaction(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	proxy := testserver.NewProxy(t, etcd.Addr)
	l, other := newLocker(t, connect(t, etcd.Addr)), newLocker(t, connect(t, proxy.Addr))
	first := try(t, l)
	w := acquire(t, other)
	inLine(t, l, 2)
	time.Sleep(200 * time.Millisecond) // The watches begin.
	proxy.Cut()
	testserver.Release(t, first)
	var revision int64
	for i := range 10 {
		resp, err := l.client.Put(t.Context(), "elsewhere", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		revision = resp.Header.Revision
	}
	if _, err := l.client.Compact(t.Context(), revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	proxy.Reset()
	proxy.Heal()
	testserver.Release(t, w.MustGet())
}

// TestLeader kills the leader of three while one holds the lock and another waits,
// and has the others stand still, so that the waiter's member has no leader.
func TestLeader(t *testing.T) {
	t.Parallel()
	members := testserver.EtcdCluster(t, 3)
	var addrs []string
	for _, m := range members {
		addrs = append(addrs, m.Addr)
	}
	l := newLocker(t, connect(t, addrs...))
	held := try(t, l, swanlock.WithFence())
	leader := leaderOf(t, l.client, members)
	lone := members[(leader+1)%3]
	w := acquire(t, newLocker(t, connect(t, lone.Addr)), swanlock.WithFence())
	inLine(t, l, 2)

	members[leader].Kill()
	testserver.Eventually(t, "Refresh with a new leader", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return held.Refresh(ctx)
	})
	resume := members[(leader+2)%3].Stop()
	testserver.Eventually(t, "the member has no leader", func() error {
		if lone.Ready() == nil {
			return errors.New("it is healthy")
		}
		return nil
	})
	time.Sleep(2 * time.Second) // for the watches to be ended
	resume()
	testserver.Eventually(t, "Refresh with a leader again", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return held.Refresh(ctx)
	})
	w.MustWait("while another holds the lock")
	testserver.Release(t, held)
	next := w.MustGet()
	if was, is := held.Info().Fence, next.Info().Fence; is <= was {
		t.Errorf("fence with a new leader: got %d, want over %d", is, was)
	}
	testserver.Release(t, next)
}

func leaderOf(t testing.TB, c *clientv3.Client, members []*testserver.Node) int {
	t.Helper()
	for i, m := range members {
		status, err := c.Status(t.Context(), m.Addr)
		if err != nil {
			t.Fatal(err)
		}
		if status.Leader == status.Header.MemberId {
			return i
		}
	}
	t.Fatal("no member leads")
	return 0
}

// TestNamesServeAgain: etcd keeps deleted names until it is compacted, so locks of one
// target that follow each other have one name, but for one whose request may come late.
func TestNamesServeAgain(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	names := map[string]bool{}
	for range 5 {
		held := try(t, l)
		w := acquire(t, l)
		inLine(t, l, 2)
		for _, name := range keys(t, l.client, target) {
			names[name] = true
		}
		testserver.Release(t, held)
		testserver.Release(t, w.MustGet())
	}
	if len(names) != 2 {
		t.Errorf("got the names %v, want two", names)
	}
	l.line.remove(l.line.take("x"), true)
	held := try(t, l)
	if name := keys(t, l.client, target)[0]; names[name] {
		t.Errorf("the name %s serves again, although its request may come late", name)
	}
	testserver.Release(t, held)
}
