package verify

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
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
func oneServer(t *testing.T, b *verify.Backend, addr string, ready func() error, program string, args ...string) {
	server := testserver.Start(t, ready, program, args...)
	p := testserver.NewProxy(t, addr)
	b.Open = p.Addr
	b.Faults = maps.Clone(serverFaults([]*testserver.Server{server}, []*testserver.Proxy{p}))
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
	program := testserver.Find(t, "etcd", "apt-get install etcd-server")
	addr, peer := testserver.FreeAddr(t), "http://"+testserver.FreeAddr(t)
	healthy := func() error { return get("http://" + addr + "/health") }
	oneServer(t, b, addr, healthy, program, "--data-dir", "data", "--log-level", "error",
		"--listen-client-urls", "http://"+addr, "--advertise-client-urls", "http://"+addr,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	b.Shared, b.TTL = true, 2*time.Second
	finally(t, b, openEtcd, addr)
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
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(cache, "swanlock", "consul-1.14.11")
	if _, err := os.Stat(program); err != nil {
		testserver.Missing(t, "Consul", "make consul builds it, in ten minutes or so")
	}
	addr := testserver.FreeAddr(t)
	port := func() string { return testserver.Port(t, testserver.FreeAddr(t)) }
	leads := func() error { return get("http://" + addr + "/v1/kv/?keys&consistent") }
	oneServer(t, b, addr, leads, program, "agent", "-server", "-bootstrap-expect=1", "-data-dir=data", "-node=node", "-bind=127.0.0.1",
		"-client=127.0.0.1", "-log-level=error", "-http-port="+testserver.Port(t, addr), "-server-port="+port(), "-serf-lan-port="+port(),
		"-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
		"-hcl", `session_ttl_min = "1s", connect { enabled = false }, performance { raft_multiplier = 1 }`)
	b.TTL, b.Unordered = time.Second, "lockers race"
	finally(t, b, openConsul, addr)
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

// get returns nil if there is a server at url that is content.
func get(url string) error {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
