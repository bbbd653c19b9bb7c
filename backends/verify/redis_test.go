package verify

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/redislock"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/internal/verify"
)

// redisTTL is the longest, so that quarantines are short.
const redisTTL = 1200 * time.Millisecond

// startRedis starts one server, which writes down what it does.
func startRedis(t *testing.T, b *verify.Backend) {
	startRedises(t, b, 1, "--appendonly", "yes", "--appendfsync", "always")
	// A dead waiter keeps its place for 3 s, and a server that has restarted grants
	// nothing for 2.3 s.
	b.MostFree = 15 * time.Second
}

// startRedlock starts three, which write down nothing.
func startRedlock(t *testing.T, b *verify.Backend) {
	startRedises(t, b, 3)
	b.Unordered = "several servers have no line"
	b.MostFree = 15 * time.Second
}

func startRedises(t *testing.T, b *verify.Backend, n int, args ...string) {
	var servers []*testserver.Server
	var proxies []*testserver.Proxy
	var direct, via []string
	for range n {
		s := testserver.Redis(t, args...)
		p := testserver.NewProxy(t, s.Addr)
		servers, proxies = append(servers, s.Server), append(proxies, p)
		direct, via = append(direct, s.Addr), append(via, p.Addr)
	}
	b.Open = strings.Join(via, " ")
	finally(t, b, openRedis, strings.Join(direct, " "))
	b.Faults = serverFaults(servers, proxies)
}

// serverFaults are what is done to one of several servers, or to the only one.
func serverFaults(servers []*testserver.Server, proxies []*testserver.Proxy) map[string]func(context.Context) {
	server := func() *testserver.Server { return servers[rand.IntN(len(servers))] }
	proxy := func() *testserver.Proxy { return proxies[rand.IntN(len(proxies))] }
	faults := networkFaults(proxy)
	faults["server-restart"] = func(context.Context) { server().Restart() }
	faults["server-forgets"] = func(context.Context) { server().RestartEmpty() }
	faults["server-stop"] = func(ctx context.Context) {
		defer server().Stop()()
		sleep(ctx, 3*time.Second)
	}
	return faults
}

// networkFaults are what is done to a network. Proxy chooses which.
func networkFaults(proxy func() *testserver.Proxy) map[string]func(context.Context) {
	return map[string]func(context.Context){
		"network-silent": func(ctx context.Context) {
			p := proxy()
			p.Cut()
			defer p.Heal()
			sleep(ctx, 3*time.Second)
		},
		// What the server answers comes late: a lease must not count from then.
		"network-late": func(ctx context.Context) {
			p := proxy()
			for range 3 {
				p.CutAnswers()
				sleep(ctx, time.Second)
				p.Heal()
				sleep(ctx, time.Second)
			}
		},
		// What the server has answered meanwhile is lost, though it has been done.
		"network-reset": func(ctx context.Context) {
			p := proxy()
			defer p.Heal()
			p.CutAnswers()
			sleep(ctx, 500*time.Millisecond)
			p.Reset()
		},
	}
}

// sleep sleeps for a while, up to most.
func sleep(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(time.Duration(rand.Int64N(int64(most)))):
	case <-ctx.Done():
	}
}

func openRedis(_ context.Context, where string) (swanlock.Locker, func(), error) {
	var clients []redis.Scripter
	var all []*redis.Client
	for addr := range strings.FieldsSeq(where) {
		client := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: time.Second, DialTimeout: time.Second})
		clients, all = append(clients, client), append(all, client)
	}
	closeAll := func() {
		for _, client := range all {
			client.Close()
		}
	}
	l, err := redislock.New(clients, redislock.WithMaxTTL(redisTTL))
	if err != nil {
		closeAll()
		return nil, func() {}, err
	}
	return l, closeAll, nil
}
