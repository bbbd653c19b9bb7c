package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/shard"
)

// shardsRow sets three PostgreSQL servers beside one. Eight processes, which are
// Pools here, hand a lock around on each of the three, or three on the one.
func shardsRow(h *harness) {
	const n, contenders = 3, 8
	var dbs []*sql.DB
	for i := range n {
		server := h.postgres
		if i > 0 {
			server = must(pgserver.Start(context.Background()))
			defer func() { check(server.Stop()) }()
		}
		db := must(sql.Open("pgx", server.URL()))
		defer db.Close()
		dbs = append(dbs, db)
	}
	var one, three []swanlock.Locker // those of a process
	for range contenders {
		var shards []shard.Shard
		for i, db := range dbs {
			p := must(pglock.NewPool(db))
			defer p.Close(context.Background())
			shards = append(shards, shard.Shard{Name: fmt.Sprint("server-", i), Locker: p})
		}
		one, three = append(one, shards[0].Locker), append(three, must(shard.New(shards...)))
	}

	const goroutines = 256
	got := h.race(fmt.Sprintf("Shards/goroutines=%d", goroutines), "pairs/s", h.round, []contender{
		{"three", rate(tries(h.ctx, shared(three[0], goroutines), targets("three", goroutines)))},
		{"one", rate(tries(h.ctx, shared(one[0], goroutines), targets("one", goroutines)))},
	})
	h.against(fmt.Sprintf("three servers, %d goroutines", goroutines), got, "three", "one", orientation)

	names := slices.Repeat(onEach(three[0].(*shard.Locker), n), contenders)
	each := func(lockers []swanlock.Locker) (all []swanlock.Locker) {
		for _, l := range lockers {
			all = append(all, shared(l, n)...)
		}
		return all
	}
	got = h.race(fmt.Sprintf("Shards/contenders=%d", contenders), "handovers/s", 5*h.round, []contender{
		{"three", rate(waits(h.ctx, each(three), names))},
		{"one", rate(waits(h.ctx, each(one), names))},
	})
	h.against(fmt.Sprintf("three servers, hand-overs of a lock on each, %d Pools", contenders), got, "three", "one", orientation)
}

// onEach returns a target on each of n shards.
func onEach(l *shard.Locker, n int) (names []string) {
	taken := make(map[string]bool)
	for _, name := range targets("shard", 100) {
		if on := l.Of(name).Name; !taken[on] {
			taken[on] = true
			names = append(names, name)
		}
	}
	return names[:n]
}
