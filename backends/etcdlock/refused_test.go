package etcdlock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestDenied: a user that may not use the keys is told so at once, with an error of its
// own. A lock that it may not free any more is given up at once, too.
func TestDenied(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	root := connect(t, etcd.Addr)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(root.UserAdd(ctx, "root", "secret"))
	must(root.UserGrantRole(ctx, "root", "root"))
	must(root.UserAdd(ctx, "guest", "secret"))
	must(root.RoleAdd(ctx, "locks"))
	must(root.AuthEnable(ctx))
	as := func(user string) *clientv3.Client {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Addr}, Logger: zap.NewNop(), DialTimeout: testserver.Patience, Username: user, Password: "secret"})
		must(c, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	root = as("root")
	l := newLocker(t, as("guest"))
	for name, opts := range map[string][]swanlock.Option{"shared lease": nil, "own lease": {swanlock.WithTTL(time.Minute)}} {
		for method, call := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){"TryAcquire": l.TryAcquire, "Acquire": l.Acquire} {
			begun := time.Now()
			_, err := call(ctx, target, opts...)
			if !errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrLost) {
				t.Errorf("%s, %s: got %v, want ErrPermissionDenied alone", name, method, err)
			}
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("%s, %s: the refusal took %v", name, method, took)
			}
		}
	}
	must(root.RoleGrantPermission(ctx, "locks", "swanlock/", clientv3.GetPrefixRangeEnd("swanlock/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(root.UserGrantRole(ctx, "guest", "locks"))
	held := try(t, l)
	must(root.UserRevokeRole(ctx, "guest", "locks"))
	begun := time.Now()
	if err := held.Release(ctx); !errors.Is(err, swanlock.ErrLost) || !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("Release: got %v, want ErrLost and ErrPermissionDenied", err)
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("the refusal of Release took %v", took)
	}
	must(root.UserGrantRole(ctx, "guest", "locks"))
	testserver.Release(t, acquire(t, newLocker(t, as("guest"))).MustGet()) // The key went later.
}

// TestRestartsLater: when a waiter's turn has come, it restarts its lease. If etcd does
// not answer that in time, the waiter asks again, and does not come after those behind.
func TestRestartsLater(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	other := newLocker(t, connect(t, etcd.Addr))
	held := try(t, other)
	var fails atomic.Int32
	l := newLocker(t, connectWith(t, []string{etcd.Addr}, grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if method == pb.Lease_LeaseKeepAlive_FullMethodName && fails.Add(-1) >= 0 {
			return nil, status.Error(codes.DeadlineExceeded, "a test")
		}
		return stream(ctx, desc, cc, method, opts...)
	})))
	w := acquire(t, l, swanlock.WithTTL(20*time.Second))
	inLine(t, other, 2)
	behind := acquire(t, other)
	inLine(t, other, 3)
	time.Sleep(time.Second)
	fails.Store(2)
	testserver.Release(t, held)
	next := w.MustGet()
	behind.MustWait("behind the first")
	testserver.Release(t, next)
	testserver.Release(t, behind.MustGet())
}
