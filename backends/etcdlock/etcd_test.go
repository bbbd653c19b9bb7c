package etcdlock

import (
	"context"
	"flag"
	"os/exec"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/locktest"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // most tests wait for a TTL; the command line may say otherwise
	if _, err := exec.LookPath("etcd"); err != nil {
		testserver.SkipExamples()
	}
	goleak.VerifyTestMain(m)
}

// Client gives an example its client, where a program has its own.
func Client() (c *clientv3.Client, done func()) {
	t, done := testserver.Example()
	return connect(t, startEtcd(t).Addr), done
}

// startEtcd starts etcd with one member.
func startEtcd(t testing.TB) *testserver.Node { return testserver.EtcdCluster(t, 1)[0] }

// connect returns a client, which is closed when t ends.
func connect(t testing.TB, addrs ...string) *clientv3.Client {
	t.Helper()
	return connectWith(t, addrs)
}

func connectWith(t testing.TB, addrs []string, opts ...grpc.DialOption) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: addrs, Logger: zap.NewNop(), DialTimeout: testserver.Patience, DialOptions: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// intercepted returns a client on which f stands between each request and its reply:
// call sends the request, and fills in the reply.
func intercepted(t testing.TB, addr string, f func(method string, reply any, call func() error) error) *clientv3.Client {
	t.Helper()
	return connectWith(t, []string{addr}, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return f(method, reply, func() error { return next(ctx, method, req, reply, c, opts...) })
		}))
}

func newLocker(t testing.TB, c *clientv3.Client, opts ...Option) *Locker {
	t.Helper()
	l, err := New(c, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestConformance(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	observer := connect(t, etcd.Addr)
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return newLocker(t, connect(t, etcd.Addr)) },
		locktest.Pooled("each lock has a key of its own"), locktest.Fair(), locktest.ShortTTL(3*time.Second),
		locktest.KeptAlive("its key is attached to a lease"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) { deleteLine(t, observer, held.Info().Target, 0) }),
		locktest.LosePlaces(func(t *testing.T, target string) { deleteLine(t, observer, target, 1) }))
}

// keys are those of target, in the order of the line, as c sees them.
func keys(t testing.TB, c *clientv3.Client, target string) (names []string) {
	t.Helper()
	resp, err := c.Get(context.Background(), newEntryFor(target).all, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		names = append(names, string(kv.Key))
	}
	return names
}

// deleteLine deletes the keys of target from number from on, as an operator might.
func deleteLine(t testing.TB, c *clientv3.Client, target string, from int) {
	t.Helper()
	for _, key := range keys(t, c, target)[from:] {
		if _, err := c.Delete(context.Background(), key); err != nil {
			t.Fatal(err)
		}
	}
}

func newEntryFor(target string) *entry { return (&Locker{}).newEntry(target, swanlock.Options{}) }
