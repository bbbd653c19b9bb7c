package verify

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/consullock"
	"github.com/swanlake-io/swanlock/backends/etcdlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/internal/verify"
)

// oneServer is a backend with one server that keeps its data: without them its locks
// are lost, as it says.
func oneServer(t *testing.T, b *verify.Backend, server *testserver.Node) {
	p := testserver.NewProxy(t, server.Addr)
	b.Open = p.Addr
	b.Faults = serverFaults([]*testserver.Server{server.Server}, []*testserver.Proxy{p})
	delete(b.Faults, "server-forgets")
	b.MostFree = 20 * time.Second
}

func finally(t *testing.T, b *verify.Backend, open func(context.Context, string) (swanlock.Locker, func(), error), where string) {
	b.Final = func(ctx context.Context) (swanlock.Locker, error) {
		l, closeLocker, err := open(ctx, where)
		if err == nil {
			t.Cleanup(closeLocker)
		}
		return l, err
	}
}

func startEtcd(t *testing.T, b *verify.Backend) {
	server := testserver.EtcdCluster(t, 1)[0]
	oneServer(t, b, server)
	b.Shared, b.TTL = true, 2*time.Second
	finally(t, b, openEtcd, server.Addr)
}

func openEtcd(_ context.Context, addr string) (swanlock.Locker, func(), error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	if err != nil {
		return nil, nil, err
	}
	l, err := etcdlock.New(client, etcdlock.WithSessionTTL(2*time.Second))
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return l, func() { client.Close() }, nil
}

func startConsul(t *testing.T, b *verify.Backend) {
	server := testserver.Consul(t, "1s")
	oneServer(t, b, server)
	b.TTL, b.Unordered = time.Second, "lockers race"
	finally(t, b, openConsul, server.Addr)
}

func openConsul(_ context.Context, addr string) (swanlock.Locker, func(), error) {
	config := api.DefaultConfig()
	config.Address = addr
	client, err := api.NewClient(config)
	if err != nil {
		return nil, nil, err
	}
	l, err := consullock.New(client, consullock.WithSessionTTL(time.Second))
	return l, config.Transport.CloseIdleConnections, err
}
