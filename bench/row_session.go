package main

import (
	"context"
	"fmt"
)

// sessionRow shows what a Session adds to its driver, on the same connections.
func sessionRow(h *harness) {
	for _, driver := range drivers {
		for _, n := range []int{1, 32} {
			h.sessionRace(driver, n)
		}
	}
}

func (h *harness) sessionRace(driver string, n int) {
	db := h.open(driver, "")
	defer db.Close()
	conns := connect(db, n)
	defer disconnect(conns)
	bg := context.Background()
	ours, closeAll := sessions(conns)
	got := h.race(fmt.Sprintf("Session/driver=%s/conns=%d", driver, n), "pairs/s", h.round, []contender{
		{"swanlock", rate(tries(h.ctx, ours, targets("session", n)))},
		{"prepared", rate(prepared(h.ctx, conns))},
		{"prepared-background", rate(prepared(bg, conns))},
		{"arguments", rate(arguments(h.ctx, conns))},
		{"arguments-background", rate(arguments(bg, conns))},
		{"goose", rate(gooses(h.ctx, conns))},
	})
	closeAll()

	what := fmt.Sprintf("Session, %s, %d conn", driver, n)
	h.against(what, got, "swanlock", "prepared", atLeast(0.95))
	h.against(what, got, "swanlock", "prepared-background", orientation)
	twice := orientation
	if driver == "pq" { // which takes two round trips then
		twice = atLeast(1.8)
	}
	h.against(what, got, "swanlock", "arguments", twice)
	h.against(what, got, "swanlock", "arguments-background", orientation)
	h.against(what, got, "swanlock", "goose", orientation)
}
