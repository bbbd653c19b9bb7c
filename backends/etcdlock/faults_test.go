package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

const target = "/lake/checkpoint"

func try(t testing.TB, l swanlock.Locker, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	return testserver.Try(t, l, target, opts...)
}

func acquire(t testing.TB, l swanlock.Locker, opts ...swanlock.Option) *testserver.Call {
	return testserver.Acquire(t, l, target, opts...)
}

// inLine waits until target's line has n keys.
func inLine(t testing.TB, l *Locker, n int) {
	t.Helper()
	testserver.Eventually(t, "the line", func() error {
		if got := keys(t, l.client, target); len(got) != n {
			return fmt.Errorf("got the keys %q, want %d", got, n)
		}
		return nil
	})
}

// TestHolderIsKilled kills a process that holds a lock without a TTL.
func TestHolderIsKilled(t *testing.T) {
	t.Parallel()
	if addr := os.Getenv("ETCDLOCK_HOLD"); addr != "" {
		try(t, newLocker(t, connect(t, addr), WithSessionTTL(8*time.Second)))
		testserver.Hold()
	}
	etcd := startEtcd(t)
	kill := testserver.HeldByChild(t, "ETCDLOCK_HOLD", etcd.Addr)
	l := newLocker(t, connect(t, etcd.Addr))
	if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Fatalf("TryAcquire while another process holds it: got %v, want ErrNotAcquired", err)
	}
	w := acquire(t, l)
	time.Sleep(12 * time.Second)
	w.MustWait("while a process that lives holds the lock")
	kill()
	testserver.Release(t, w.MustGet())
}

// TestServerStops stops the server for longer than the TTLs. The holders must know
// before anybody else can hold it.
func TestServerStops(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]swanlock.Option{
		"TTL":          {swanlock.WithTTL(4 * time.Second)},
		"auto-refresh": {swanlock.WithTTL(4 * time.Second), swanlock.WithAutoRefresh()},
		"no TTL":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			etcd := startEtcd(t)
			held := try(t, newLocker(t, connect(t, etcd.Addr), WithSessionTTL(4*time.Second)), opts...)
			resume := etcd.Stop()
			defer resume()
			testserver.Told(t, held, swanlock.ErrExpired)
			resume()
			next := acquire(t, newLocker(t, connect(t, etcd.Addr))).MustGet()
			testserver.Superseded(t, held, next)
			testserver.Release(t, next)
		})
	}
}

// TestTryIsCutShort gives up a try that the server has not answered yet. What it sent
// is answered later; it must not hold the lock then, although other locks of the same
// Locker keep its lease alive.
func TestTryIsCutShort(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]swanlock.Option{"shared lease": nil, "own lease": {swanlock.WithTTL(time.Minute)}} {
		t.Run(name, func(t *testing.T) {
			etcd := startEtcd(t)
			l, other := newLocker(t, connect(t, etcd.Addr), WithSessionTTL(6*time.Second)), newLocker(t, connect(t, etcd.Addr))
			kept, err := l.TryAcquire(t.Context(), "another", opts...)
			if err != nil {
				t.Fatal(err)
			}
			testserver.Release(t, try(t, l, opts...)) // The next one finds a lease.
			resume := etcd.Stop()
			defer resume()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if held, err := l.TryAcquire(ctx, target, opts...); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("TryAcquire of a server that stands still: got %v, %v, want DeadlineExceeded", held, err)
			}
			resume()
			testserver.Release(t, acquire(t, other).MustGet())
			testserver.Release(t, kept)
		})
	}
}

// TestAnswerIsLost loses the answers to requests that the server has carried out: an
// acquire finds out that it holds the lock, and holds it once.
func TestAnswerIsLost(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	proxy := testserver.NewProxy(t, etcd.Addr)
	l, other := newLocker(t, connect(t, proxy.Addr)), newLocker(t, connect(t, etcd.Addr))
	testserver.Release(t, try(t, l))
	for name, call := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
		"TryAcquire": l.TryAcquire, "Acquire": l.Acquire,
	} {
		proxy.CutAnswers()
		w := testserver.Go(t, func() (swanlock.DistributedLock, error) { return call(t.Context(), target) })
		inLine(t, other, 1)
		first := keys(t, other.client, target)[0]
		proxy.Reset()
		proxy.Heal()
		held := w.MustGet()
		if got := keys(t, other.client, target); len(got) != 1 || got[0] != first {
			t.Errorf("%s: got the keys %q, want %q alone", name, got, first)
		}
		testserver.Release(t, held)
	}
}

// TestCutOff cuts off a holder and a waiter, each on a network of its own.
func TestCutOff(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	holders, waiters := testserver.NewProxy(t, etcd.Addr), testserver.NewProxy(t, etcd.Addr)
	held := try(t, newLocker(t, connect(t, holders.Addr), WithSessionTTL(8*time.Second)))
	first := acquire(t, newLocker(t, connect(t, waiters.Addr), WithSessionTTL(4*time.Second)))
	other := newLocker(t, connect(t, etcd.Addr))
	inLine(t, other, 2)
	second := acquire(t, other)
	inLine(t, other, 3)

	waiters.Cut()
	if _, err := first.Result(); !errors.Is(err, swanlock.ErrLost) || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a waiter whose lease ended: got %v, want ErrLost", err)
	}
	if err := held.Err(); err != nil || !second.Waits() {
		t.Fatalf("the holder: %v; the second waiter waits: %t", err, second.Waits())
	}
	holders.Cut()
	next := second.MustGet()
	testserver.Told(t, held, swanlock.ErrExpired)
	holders.Heal()
	testserver.Superseded(t, held, next)
	testserver.Release(t, next)
}

// TestServerRestarts kills the server and starts it again.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l, other := newLocker(t, connect(t, etcd.Addr)), newLocker(t, connect(t, etcd.Addr))
	held := try(t, l, swanlock.WithFence())
	w := acquire(t, other, swanlock.WithFence())
	inLine(t, l, 2)
	etcd.Restart()
	testserver.Eventually(t, "Refresh after the restart", func() error { return held.Refresh(t.Context()) })
	w.MustWait("while another holds the lock")
	testserver.Release(t, held)
	next := w.MustGet()
	if was, is := held.Info().Fence, next.Info().Fence; is <= was {
		t.Errorf("fence after the restart: got %d, want over %d", is, was)
	}

	// Without its data it knows of no lock. The holder is told.
	w = acquire(t, l)
	inLine(t, other, 2)
	etcd.RestartEmpty()
	testserver.Told(t, next, swanlock.ErrLost)
	if held, err := w.Result(); err == nil {
		testserver.Release(t, held) // It gave up its place before it was in line, or came anew.
	} else if !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("a waiter whose server has lost its place: got %v, want ErrLost", err)
	}
	testserver.Release(t, try(t, l))
}

// TestReleasedTwice has a lock released when its Refresh is answered too late, and again
// by its holder. By then another lock of the Locker has its key's name: that stays held,
// for other processes and for the waiters of this one.
func TestReleasedTwice(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	var late atomic.Bool
	etcd := startEtcd(t)
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		err := call()
		if method == pb.KV_Range_FullMethodName && late.CompareAndSwap(true, false) {
			time.Sleep(ttl + 200*time.Millisecond)
		}
		return err
	}))
	held := try(t, l, swanlock.WithTTL(ttl))
	late.Store(true)
	if err := held.Refresh(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
		t.Fatalf("Refresh that was answered too late: got %v, want ErrExpired", err)
	}
	next := try(t, l)
	w := acquire(t, l)
	inLine(t, l, 2)
	line := keys(t, l.client, target)
	if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
		t.Errorf("Release: got %v, want ErrExpired", err)
	}
	if got := keys(t, l.client, target); !slices.Equal(got, line) {
		t.Errorf("after the Release of a lock that was over: got the keys %q, want %q", got, line)
	}
	time.Sleep(5 * watchLocal)
	w.MustWait("while another holds the lock")
	testserver.Release(t, next)
	testserver.Release(t, w.MustGet())
}

// TestRefreshIsUnproven: a refresh that cannot ask for the key fails, and leaves the lock as
// it was.
func TestRefreshIsUnproven(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	away := status.Error(codes.PermissionDenied, "a test")
	var refuse atomic.Bool
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		if method == pb.KV_Range_FullMethodName && refuse.Load() {
			return away
		}
		return call()
	}))
	held := try(t, l, swanlock.WithTTL(time.Minute))
	before, _ := held.Deadline()
	refuse.Store(true)
	if err := held.Refresh(t.Context()); err == nil || errors.Is(err, swanlock.ErrLost) || held.Err() != nil {
		t.Errorf("Refresh: got %v, and the lock is over: %v", err, held.Err())
	}
	if after, _ := held.Deadline(); after.Sub(before) > time.Millisecond {
		t.Errorf("the deadline was moved on by %v", after.Sub(before))
	}
	refuse.Store(false)
	if err := held.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh: %v", err)
	}
	testserver.Release(t, held)
}

// TestNoNewLease takes a lock when etcd knows no more of the shared lease, and grants no
// other. What is freed after that is nobody's key: not that of a lock which has the name
// by then.
func TestNoNewLease(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	observer := connect(t, etcd.Addr)
	var refuse atomic.Bool
	var deletes atomic.Int32
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		switch {
		case !refuse.Load():
		case method == pb.Lease_LeaseGrant_FullMethodName:
			return status.Error(codes.ResourceExhausted, "a test")
		case method == pb.KV_DeleteRange_FullMethodName:
			deletes.Add(1)
		}
		return call()
	}))
	testserver.Release(t, try(t, l))
	leases, err := observer.Leases(t.Context())
	if err != nil || len(leases.Leases) != 1 {
		t.Fatalf("got the leases %v, %v, want one", leases, err)
	}
	if _, err := observer.Revoke(t.Context(), leases.Leases[0].ID); err != nil {
		t.Fatal(err)
	}
	refuse.Store(true)
	if _, err := l.TryAcquire(t.Context(), target); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("TryAcquire without a lease: got %v, want ResourceExhausted", err)
	}
	if n := deletes.Load(); n != 0 {
		t.Errorf("a TryAcquire that created no key deleted %d", n)
	}
}
