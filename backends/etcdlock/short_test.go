package etcdlock

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestShortTTLWaits: a place in line lasts as long as etcd's lease, two seconds at least,
// and is renewed in time for that, however short the TTL is that begins with the grant.
func TestShortTTLWaits(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l, other := newLocker(t, connect(t, etcd.Addr)), newLocker(t, connect(t, etcd.Addr))
	held := try(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := testserver.Go(t, func() (swanlock.DistributedLock, error) {
		return other.Acquire(ctx, target, swanlock.WithTTL(time.Millisecond))
	})
	inLine(t, l, 2)
	time.Sleep(3 * time.Second)
	w.MustWait("while another holds the lock")
	cancel()
	if _, err := w.Result(); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("the waiter: got %v, want ErrNotAcquired", err)
	}
	testserver.Release(t, held)
}

// TestGrantedAfterItsEnd stops the process, as it were, for longer than the shared lease
// lasts. When it goes on, the first that happens is that a lock is released: the next
// caller must not be given one that may be held elsewhere by now.
func TestGrantedAfterItsEnd(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	held := try(t, l)
	w := acquire(t, l)
	inLine(t, l, 2)
	time.Sleep(2 * watchLocal)
	s := l.leases.group(l.session).current
	s.mu.Lock()
	s.term.Start = s.term.Start.Add(-time.Hour)
	s.mu.Unlock()
	_ = held.Release(t.Context())
	next, err := w.Result()
	if err == nil {
		err = next.Err()
		_ = next.Release(t.Context())
		t.Errorf("Acquire returned a lock; its Err: %v", err)
	} else if !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Acquire: got %v, want ErrLost", err)
	}
}

// TestNameOfAnother: a lock's name in etcd may be that of the next lock by the time at
// which the lock is forgotten. The lease goes on being renewed for that one.
func TestNameOfAnother(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr), WithSessionTTL(3*time.Second))
	before := l.newEntry(target, swanlock.Options{})
	before.key = l.line.take(before.prefix)
	if err := l.leases.take(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	l.line.remove(before.key, false)
	held := try(t, l)
	if key := keys(t, l.client, target)[0]; key != before.key {
		t.Fatalf("the next lock has the key %s, want %s", key, before.key)
	}
	before.lease.unkeep(before)
	select {
	case <-held.Done():
		t.Errorf("the lock was lost: %v", held.Err())
	case <-time.After(4 * time.Second):
	}
	_ = held.Release(t.Context())
}

// TestManyTTLs: a Locker forgets TTLs that are used no more.
func TestManyTTLs(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	takeAll := func(from time.Duration) {
		for n := range time.Duration(100) {
			ttl := swanlock.WithTTL(from + n*time.Millisecond)
			testserver.Release(t, try(t, l, ttl))
			testserver.Release(t, try(t, l, ttl, swanlock.WithAutoRefresh()))
		}
	}
	for from := range time.Duration(3) {
		takeAll(2*time.Second + from*200*time.Millisecond)
		time.Sleep(3500 * time.Millisecond) // The leases have ended.
	}
	takeAll(time.Hour)
	l.leases.mu.Lock()
	defer l.leases.mu.Unlock()
	if n := len(l.leases.groups) + len(l.leases.idle); n > 2*(100+100+maxIdle) {
		t.Errorf("after locks of 100 TTLs, three times, the Locker knows of %d", n)
	}
}
