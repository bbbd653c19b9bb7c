package etcdlock

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

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
	return connect(t, startEtcd(t).addr), done
}

// A member is one etcd.
type member struct {
	*testserver.Server
	addr string
}

// startEtcd starts etcd with one member.
func startEtcd(t testing.TB) *member { return startCluster(t, 1)[0] }

// startCluster starts etcd with n members.
func startCluster(t testing.TB, n int) []*member {
	t.Helper()
	program := testserver.Find(t, "etcd", "apt-get install etcd-server")
	var members []*member
	var peers []string
	cluster := ""
	for i := range n {
		members = append(members, &member{addr: testserver.FreeAddr(t)})
		peers = append(peers, "http://"+testserver.FreeAddr(t))
		cluster += fmt.Sprintf("m%d=%s,", i, peers[i])
	}
	for i, m := range members {
		ready := m.healthy
		if n > 1 {
			ready = m.listens // It is healthy when the others run too.
		}
		m.Server = testserver.Start(t, ready, program,
			"--name", fmt.Sprintf("m%d", i), "--data-dir", "data", "--log-level", "error",
			"--listen-client-urls", "http://"+m.addr, "--advertise-client-urls", "http://"+m.addr,
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", cluster[:len(cluster)-1])
	}
	for _, m := range members {
		testserver.Eventually(t, "etcd is healthy", m.healthy)
	}
	return members
}

func (m *member) listens() error {
	conn, err := net.Dial("tcp", m.addr)
	if err == nil {
		conn.Close()
	}
	return err
}

// healthy returns nil if m has a leader.
func (m *member) healthy() error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.addr + "/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// connect returns a client, which is closed when t ends.
func connect(t testing.TB, addrs ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: addrs, Logger: zap.NewNop(), DialTimeout: testserver.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
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
	observer := connect(t, etcd.addr)
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return newLocker(t, connect(t, etcd.addr)) },
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
