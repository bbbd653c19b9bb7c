package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	bsm "github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	syncredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/redislock"
)

// redisRow sets redislock beside its peers on one Redis: pairs and hand-overs. Then
// one of five servers hangs.
func redisRow(h *harness) {
	if h.redis == "" {
		return
	}
	for _, n := range []int{1, 32} {
		client := h.dialRedis(n)
		rueidis := h.rueidis()
		got := h.race(fmt.Sprintf("Redis/goroutines=%d", n), "pairs/s", h.round, []contender{
			{"swanlock", rate(tries(h.ctx, shared(oneRedis(client), n), targets("redis", n), swanlock.WithTTL(ttl)))},
			{"redislock", rate(redislocks(h.ctx, client, targets("redis-bsm", n), nil))},
			{"redsync", rate(redsyncs(h.ctx, client, targets("redis-redsync", n)))},
			{"rueidislock", rate(rueidislocks(h.ctx, rueidis, targets("redis-rueidis", n)))},
		})
		what := fmt.Sprintf("Redis, %d goroutines", n)
		h.against(what, got, "swanlock", "redislock", atLeast(0.9))
		for _, peer := range []string{"redsync", "rueidislock"} {
			h.against(what, got, "swanlock", peer, orientation)
		}
		client.Close()
		rueidis.Close()
	}
	redisHandOvers(h)
	redisHangs(h)
}

// redisHandOvers sets 8 contenders on one lock.
func redisHandOvers(h *harness) {
	const n = 8
	client := h.dialRedis(n)
	defer client.Close()
	var lockers []swanlock.Locker
	var apart []acquirer
	for i := range n {
		lockers = append(lockers, oneRedis(client))
		r := h.rueidis()
		defer r.Close()
		apart = append(apart, rueidislocks(h.ctx, r, oneTarget("redis-line-rueidis", n))[i])
	}
	everyMs := redsync.WithRetryDelay(time.Millisecond)
	patient := redsync.WithTries(1_000_000) // it has no other way to wait
	lines := []*contest{
		{name: "swanlock", acquirers: waits(h.ctx, shared(oneRedis(client), n), oneTarget("redis-line", n))},
		{name: "swanlock-8", acquirers: waits(h.ctx, lockers, oneTarget("redis-line-8", n))},
		{name: "redislock-1ms", acquirers: redislocks(h.ctx, client, oneTarget("redis-line-bsm", n), &bsm.Options{RetryStrategy: bsm.LinearBackoff(time.Millisecond)})},
		{name: "redsync-1ms", acquirers: redsyncs(h.ctx, client, oneTarget("redis-line-redsync", n), patient, everyMs)},
		{name: "rueidislock-8", acquirers: apart},
	}
	got := h.race("Redis/contenders=8", "handovers/s", 5*h.round, contenders(lines))
	for _, ours := range lines[:2] {
		h.against("Redis, hand-overs, "+ours.name, got, ours.name, "redislock-1ms", atLeast(3))
		for _, peer := range lines[3:] {
			h.against("Redis, hand-overs, "+ours.name, got, ours.name, peer.name, orientation)
		}
		h.alone("Redis, fairness", series{ours.name, "max/min", ours.spreads()}, atMost(1.05))
	}
}

// redisHangs measures a pair on five servers, one of which accepts connections and
// answers nothing, as when it is stopped.
func redisHangs(h *harness) {
	hung := must(net.Listen("tcp", "127.0.0.1:0"))
	defer hung.Close()
	addrs := []string{h.redis, h.redis, h.redis, h.redis}
	var whole, clients []*redis.Client
	for i, addr := range append(addrs, hung.Addr().String()) {
		// More servers would share the same two cores.
		client := redis.NewClient(&redis.Options{Addr: addr, DB: i})
		defer client.Close()
		clients = append(clients, client)
		if i == 4 {
			client = redis.NewClient(&redis.Options{Addr: h.redis, DB: i})
			defer client.Close()
		}
		whole = append(whole, client)
	}
	lock := func(clients []*redis.Client, name string) func(time.Duration) float64 {
		var all []redis.Scripter
		for _, c := range clients {
			all = append(all, c)
		}
		l := must(redislock.New(all, redislock.WithoutQuarantine("a benchmark")))
		return slowPair(tries(h.ctx, []swanlock.Locker{l}, targets(name, 1), swanlock.WithTTL(ttl))[0])
	}
	syncs := func(name string, opts ...redsync.Option) acquirer {
		var pools []syncredis.Pool
		for _, c := range clients {
			pools = append(pools, goredis.NewPool(c))
		}
		m := redsync.New(pools...).NewMutex(name, append(opts, redsync.WithExpiry(ttl))...)
		return func() (func() error, error) {
			if err := m.LockContext(h.ctx); err != nil {
				return nil, err
			}
			return func() error {
				_, _ = m.UnlockContext(h.ctx) // Its error is the one server's that hangs.
				return nil
			}, nil
		}
	}
	got := h.race("Redis/hung=1of5", "ms/pair", h.round, []contender{
		{"swanlock", lock(clients, "redis-hung")},
		{"swanlock-none-hung", lock(whole, "redis-whole")},
	})
	h.alone("Redis, a pair while one of five hangs", got["swanlock"], atMost(10))
	h.alone("Redis, a pair while none of five hangs", got["swanlock-none-hung"], orientation)
	for name, opts := range map[string][]redsync.Option{"redsync": nil, "redsync-failfast": {redsync.WithFailFast(true)}} {
		h.figure("Redis, a pair while one of five hangs", "Redis/hung=1of5", name, "ms/pair", slowPair(syncs(name, opts...))(0), orientation)
	}
}

// slowPair is a turn that measures the milliseconds of a pair, and does one at least.
func slowPair(acquire acquirer) func(time.Duration) float64 {
	return func(d time.Duration) float64 {
		start, n := time.Now(), 0
		for n == 0 || time.Since(start) < d {
			check(pair(acquire))
			n++
		}
		return time.Since(start).Seconds() * 1e3 / float64(n)
	}
}

// oneRedis is a locker on one server that has never lost a lock: it was started for
// this, so it needs no quarantine, whose cost is paid all the same.
func oneRedis(client *redis.Client) swanlock.Locker {
	info := must(client.InfoMap(context.Background(), "server", "replication").Result())
	replication := info["Replication"]
	born := info["Server"]["run_id"] + ":" + replication["master_replid2"] + ":" + replication["master_replid"]
	check(client.Set(context.Background(), "swanlock:born", born, 0).Err())
	return must(redislock.New([]redis.Scripter{client}))
}

func (h *harness) rueidis() rueidislock.Locker {
	return must(rueidislock.NewLocker(rueidislock.LockerOption{KeyMajority: 1,
		ClientOption: rueidis.ClientOption{InitAddress: []string{h.redis}}}))
}

// rueidislocks take the targets from one locker. Its release is sent by a goroutine
// of its own, and not waited for. A waiter may miss that the lock is free (seen with
// eight lockers: all slept, and no key was there), so it asks again after a second.
func rueidislocks(ctx context.Context, l rueidislock.Locker, targets []string) []acquirer {
	acquirers := make([]acquirer, len(targets))
	for i, target := range targets {
		acquirers[i] = func() (func() error, error) {
			for {
				short, stop := context.WithTimeout(ctx, time.Second)
				_, cancel, err := l.WithContext(short, target)
				if err == nil {
					return func() error { cancel(); stop(); return nil }, nil
				}
				stop()
				if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
					return nil, err
				}
			}
		}
	}
	return acquirers
}
