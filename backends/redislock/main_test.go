package redislock

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock/internal/testserver"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // most tests wait for a TTL; the command line may say otherwise
	end := func() {}
	if _, err := exec.LookPath("redis-server"); err != nil {
		testserver.SkipExamples()
	} else {
		t, done := testserver.Example()
		os.Setenv("REDIS_ADDR", known(t, testserver.Redis(t)).Addr)
		end = done
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		end()
		os.Exit(code)
	}))
}

// known marks a server as one that has never forgotten a lock: no lock was ever
// taken there.
func known(t testing.TB, s *testserver.Node) *testserver.Node {
	t.Helper()
	client := dial(t, s.Addr)
	info, err := client.InfoMap(context.Background(), "server", "replication").Result()
	if err != nil {
		t.Fatal(err)
	}
	replication := info["Replication"]
	born := info["Server"]["run_id"] + ":" + replication["master_replid2"] + ":" + replication["master_replid"]
	if err := client.Set(context.Background(), bornKey, born, 0).Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

// dial returns a client that waits for a second at most for a server that hangs,
// and does not try again: it is the caller's business what that costs.
func dial(t testing.TB, addr string) *redis.Client { return dialFor(t, addr, time.Second) }

// dialFor is dial with a client that waits for as long as it is told.
func dialFor(t testing.TB, addr string, timeout time.Duration) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: timeout, DialTimeout: timeout, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	return client
}

// lockerOn returns a locker on the addresses, with clients of its own.
func lockerOn(t *testing.T, addrs []string, opts ...Option) *Locker {
	t.Helper()
	return lockerFor(t, addrs, time.Second, opts...)
}

// lockerFor is lockerOn with clients of dialFor.
func lockerFor(t *testing.T, addrs []string, timeout time.Duration, opts ...Option) *Locker {
	t.Helper()
	var clients []redis.Scripter
	for _, addr := range addrs {
		clients = append(clients, dialFor(t, addr, timeout))
	}
	l, err := New(clients, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// several starts n servers, none of which has ever forgotten a lock.
func several(t *testing.T, n int) (servers []*testserver.Node, addrs []string) {
	t.Helper()
	for range n {
		s := known(t, testserver.Redis(t))
		servers, addrs = append(servers, s), append(addrs, s.Addr)
	}
	return servers, addrs
}
