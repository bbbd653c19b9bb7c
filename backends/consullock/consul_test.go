package consullock

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/locktest"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // most tests wait for a TTL; the command line may say otherwise
	if _, err := find(); err != nil {
		testserver.SkipExamples()
	}
	goleak.VerifyTestMain(m)
}

// find returns the path of the Consul that make consul has built.
func find() (program string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	program = filepath.Join(cache, "swanlock", "consul-1.14.11")
	_, err = os.Stat(program)
	return program, err
}

// Client gives an example its client, where a program has its own.
func Client() (c *api.Client, done func()) {
	t, done := testserver.Example()
	return client(t, startConsul(t, "10s").addr), done
}

// A server is a Consul of one node, which keeps its data.
type server struct {
	*testserver.Server
	addr string
}

// startConsul starts the Consul that make consul has built. Its least TTL is a second,
// unless min says otherwise.
func startConsul(t testing.TB, min string) *server {
	t.Helper()
	program, err := find()
	if err != nil {
		testserver.Missing(t, "Consul", "make consul builds it, in ten minutes or so")
	}
	s := &server{addr: testserver.FreeAddr(t)}
	port := func() string { return testserver.Port(t, testserver.FreeAddr(t)) }
	c := client(t, s.addr)
	s.Server = testserver.Start(t, func() error { return leads(c) }, program,
		"agent", "-server", "-bootstrap-expect=1", "-data-dir=data", "-node=node", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-log-level=error", "-http-port="+testserver.Port(t, s.addr), "-server-port="+port(), "-serf-lan-port="+port(),
		"-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
		// As with -dev, elections take no longer than they must.
		"-hcl", fmt.Sprintf(`session_ttl_min = %q, connect { enabled = false }, performance { raft_multiplier = 1 }`, min))
	return s
}

// leads returns nil once the server has a leader, which has registered its node.
func leads(c *api.Client) error {
	id, _, err := c.Session().CreateNoChecks(&api.SessionEntry{TTL: "24h"}, nil)
	if err == nil {
		_, err = c.Session().Destroy(id, nil)
	}
	return err
}

func client(t testing.TB, addr string) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	config.Address = addr
	c, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(config.Transport.CloseIdleConnections)
	return c
}

func newLocker(t testing.TB, addr string, opts ...Option) *Locker {
	t.Helper()
	l, err := New(client(t, addr), append([]Option{WithSessionTTL(6 * time.Second)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestConformance(t *testing.T) {
	t.Parallel()
	consul := startConsul(t, "1s")
	observer := client(t, consul.addr)
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return newLocker(t, consul.addr) },
		locktest.WithoutShared("a key in Consul has one session"),
		locktest.Pooled("each lock has a session of its own"),
		locktest.ShortTTL(2*time.Second),
		locktest.KeptAlive("its session has a TTL"),
		locktest.FreesLate(2, "Consul ends a session after twice its TTL"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			destroy(t, observer, held.Info().Target)
		}))
}

// destroy ends the session that has target.
func destroy(t testing.TB, c *api.Client, target string) {
	t.Helper()
	pair, _, err := c.KV().Get(keyOf(target), nil)
	if err != nil || pair == nil {
		t.Fatalf("the key of %q: %v, %v", target, pair, err)
	}
	if _, err := c.Session().Destroy(pair.Session, nil); err != nil {
		t.Fatal(err)
	}
}

func keyOf(target string) string { return fmt.Sprintf("swanlock/%d", int64(swanlock.KeyOf(target))) }
