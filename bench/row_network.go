package main

import (
	"fmt"
	"slices"
)

// The numbers of goroutines: those of the Pool rows, and those between and beyond.
var (
	poolGoroutines = []int{1, 32, 256}
	moreGoroutines = []int{2, 8, 128, 1024}
)

// goroutinesRow runs the Pool rows' race with other numbers of goroutines. It is
// for the chart.
func goroutinesRow(h *harness) {
	for _, n := range moreGoroutines {
		h.poolRace(n, nil)
	}
}

// networkRow runs all races of a Pool with a network between.
func networkRow(h *harness) {
	h.overNetwork(func(far *harness) {
		for _, n := range slices.Concat(poolGoroutines, moreGoroutines) {
			far.farPoolRow(n)
		}
		audit := far.open("pgx", "")
		defer audit.Close()
		far.migrate(audit)
		for _, n := range []int{32, 256} {
			got := far.kindsRace(n, audit)
			what := fmt.Sprintf("Pool, %d goroutines, 1 conn, 1 ms of network", n)
			for _, kind := range []string{"fenced", "shared", "audited"} {
				far.against(what, got, kind, "plain", orientation)
			}
		}
	})
}

// farPoolRow has floors that waiting for the network does not hold up: as many
// connections as serve them best here, and one statement for all.
func (h *harness) farPoolRow(n int) {
	db := h.open("pgx", "")
	defer db.Close()
	conns := connect(db, min(n, 32))
	defer disconnect(conns)
	floors := []contender{{"prepared", rate(prepared(h.ctx, conns))}}
	if n == 256 {
		floors = append(floors, contender{"limit", inOneStatement(h.ctx, conns[0], n)})
		if h.redis != "" {
			client := h.dialRedisOn(n)
			defer client.Close()
			floors = append(floors, contender{"redislock-256-conns", rate(redislocks(h.ctx, client, targets("far", n), nil))})
		}
	}
	got := h.poolRace(n, floors)
	if !slices.Contains(poolGoroutines, n) {
		return
	}
	for _, driver := range drivers {
		what := fmt.Sprintf("Pool, %s, %d goroutines, 1 conn, 1 ms of network", driver, n)
		for _, floor := range []string{"prepared", "limit", "redislock", "redislock-256-conns", "redislock-autopipeline", "redsync", "etcd"} {
			g := orientation
			if n == 256 && floor == "redislock" {
				g = atLeast(5)
			}
			h.against(what, got, "swanlock-"+driver, floor, g)
		}
	}
}
