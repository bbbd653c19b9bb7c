package etcdlock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestComesLate has what a try has sent arrive after the try was cut short, and its key
// deleted. The lock, whose lease lasts for an hour, must be free soon: while other locks
// have that lease, when they are released before anybody has looked, and when there are
// none.
func TestComesLate(t *testing.T) {
	t.Parallel()
	hour := []swanlock.Option{swanlock.WithTTL(time.Hour), swanlock.WithAutoRefresh()}
	for name, c := range map[string]struct {
		opts           []swanlock.Option
		others, remain bool // other locks
	}{
		"beside others": {hour, true, true}, "others are released": {hour, true, false}, "alone": {hour, false, false},
		"own lease": {hour[:1], true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etcd := startEtcd(t)
			var late atomic.Bool
			arrived := make(chan error, 1)
			l := newLocker(t, connectWith(t, []string{etcd.Addr}, grpc.WithChainUnaryInterceptor(
				func(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					if method != pb.KV_Txn_FullMethodName || !late.CompareAndSwap(true, false) {
						return next(ctx, method, req, reply, c, opts...)
					}
					<-ctx.Done()
					go func() {
						time.Sleep(500 * time.Millisecond)
						arrived <- next(context.WithoutCancel(ctx), method, req, new(pb.TxnResponse), c)
					}()
					return ctx.Err()
				})))
			other, err := l.TryAcquire(t.Context(), "another", c.opts...)
			if err != nil {
				t.Fatal(err)
			}
			if !c.others {
				testserver.Release(t, other)
			}
			late.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if held, err := l.TryAcquire(ctx, target, c.opts...); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("TryAcquire without an answer: got %v, %v, want DeadlineExceeded", held, err)
			}
			if c.others && !c.remain {
				testserver.Release(t, other)
			}
			<-arrived // It may be refused by then: the lease has ended.
			testserver.Release(t, acquire(t, newLocker(t, connect(t, etcd.Addr))).MustGet())
			testserver.Release(t, try(t, l, c.opts...))
			if c.remain {
				testserver.Release(t, other)
			}
			time.Sleep(1500 * time.Millisecond) // What looks for the key has ended.
		})
	}
}

// TestLostAndNotReleased has renewals prove nothing for a while: a lock is lost, while
// those that were taken later are not. The lease lives on for these; what was lost is free
// all the same, also if its holder does not call Release.
func TestLostAndNotReleased(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	var unproven atomic.Bool
	l := newLocker(t, intercepted(t, etcd.Addr, func(method string, _ any, call func() error) error {
		if method == pb.Lease_LeaseTimeToLive_FullMethodName && unproven.Load() {
			return status.Error(codes.Unavailable, "a test")
		}
		return call()
	}), WithSessionTTL(3*time.Second))
	lost := try(t, l)
	unproven.Store(true)
	time.Sleep(2500 * time.Millisecond)
	other, err := l.TryAcquire(t.Context(), "another")
	if err != nil {
		t.Fatal(err)
	}
	testserver.Told(t, lost, swanlock.ErrExpired)
	unproven.Store(false)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if next, err := newLocker(t, connect(t, etcd.Addr)).Acquire(ctx, target); err != nil {
		t.Errorf("after a lock was lost: %v", err)
	} else {
		testserver.Release(t, next)
	}
	testserver.Release(t, other)
	if err := lost.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
		t.Errorf("Release of the lock that was lost: got %v, want ErrExpired", err)
	}
	time.Sleep(1500 * time.Millisecond) // What looks for the key has ended.
}
