package main

import (
	"fmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/etcdlock"
)

// etcdRow sets etcdlock beside etcd's own concurrency.Mutex: pairs, of locks without
// and with a TTL, and hand-overs.
func etcdRow(h *harness) {
	if h.etcd == "" {
		return
	}
	client := h.dialEtcd()
	defer client.Close()
	locker := func() swanlock.Locker { return must(etcdlock.New(client)) }
	for _, n := range []int{1, 32} {
		row := fmt.Sprintf("Etcd/goroutines=%d", n)
		got := h.race(row, "pairs/s", h.round, []contender{
			{"swanlock", rate(tries(h.ctx, shared(locker(), n), targets("etcd", n)))},
			{"swanlock-ttl", rate(tries(h.ctx, shared(locker(), n), targets("etcd-ttl", n), swanlock.WithTTL(ttl)))},
			{"mutex", rate(etcds(h.ctx, etcdSessions(client, n), targets("etcd-mutex", n)))},
		})
		what := fmt.Sprintf("etcd, %d goroutines", n)
		h.against(what, got, "swanlock", "mutex", atLeast(0.9))
		h.against(what+", with a TTL", got, "swanlock-ttl", "mutex", atLeast(0.9))
	}

	const n = 8
	var lockers []swanlock.Locker
	for range n {
		lockers = append(lockers, locker())
	}
	lines := []*contest{
		{name: "swanlock", acquirers: waits(h.ctx, shared(locker(), n), oneTarget("etcd-one", n))},
		{name: "swanlock-8", acquirers: waits(h.ctx, lockers, oneTarget("etcd-eight", n))},
		{name: "mutex", acquirers: etcds(h.ctx, etcdSessions(client, n), oneTarget("etcd-line", n))},
	}
	got := h.race("Etcd/contenders=8", "handovers/s", 5*h.round, contenders(lines))
	h.against("etcd, hand-overs, 8 contenders on one Locker", got, "swanlock", "mutex", atLeast(5))
	h.against("etcd, hand-overs, 8 Lockers", got, "swanlock-8", "mutex", orientation)
}
