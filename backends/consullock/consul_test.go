package consullock

import (
	"flag"
	"fmt"
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
	if _, err := testserver.ConsulPath(); err != nil {
		testserver.SkipExamples()
	}
	goleak.VerifyTestMain(m)
}

// Client gives an example its client, where a program has its own.
func Client() (c *api.Client, done func()) {
	t, done := testserver.Example()
	return client(t, testserver.Consul(t, "10s").Addr), done
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
	consul := testserver.Consul(t, "1s")
	observer := client(t, consul.Addr)
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return newLocker(t, consul.Addr) },
		locktest.WithoutShared("a key in Consul has one session"),
		locktest.Pooled("each lock has a session of its own"),
		locktest.ShortTTL(2*time.Second),
		locktest.KeptAlive("its session has a TTL"),
		locktest.FreesLate(2, "Consul ends a session after twice its TTL"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			destroyOf(t, observer, held.Info().Target)
		}))
}

// destroyOf ends the session that has target.
func destroyOf(t testing.TB, c *api.Client, target string) {
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
