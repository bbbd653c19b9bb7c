package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

// kindsRow shows what a fence, a share and a row of the audit cost the callers of
// one Pool, beside the same callers without. Their targets are their own, and the
// Pools have one connection each.
func kindsRow(h *harness) {
	audit := h.open("pgx", "")
	defer audit.Close()
	h.migrate(audit)
	for _, n := range []int{32, 256} {
		got := h.kindsRace(n, audit)
		what := fmt.Sprintf("Pool, %d goroutines, 1 conn", n)
		h.against(what, got, "fenced", "plain", atLeast(0.7))
		h.against(what, got, "shared", "plain", atLeast(0.7))
		g, alone := orientation, orientation
		if n == 32 {
			g, alone = atLeast(0.4), atLeast(8)
		}
		h.against(what, got, "audited", "plain", g)
		h.against(what, got, "audited", "audited-session", alone)
	}
	h.flushedRow(audit)
}

// kindsRace sets n goroutines on a Pool of each kind. The audit's table is there.
func (h *harness) kindsRace(n int, audit *sql.DB) map[string]series {
	var ends []func()
	pool := func(opts ...pglock.PoolOption) []swanlock.Locker {
		db := h.open("pgx", "")
		p := must(pglock.NewPool(db, append(opts, pglock.WithMaxSessions(1))...))
		ends = append(ends, func() { check(p.Close(context.Background())); db.Close() })
		return shared(p, n)
	}
	conns := connect(audit, 1)
	session, closeSession := sessions(conns, pglock.WithAudit())
	got := h.race(fmt.Sprintf("Kinds/goroutines=%d", n), "pairs/s", h.round, []contender{
		{"plain", rate(tries(h.ctx, pool(), targets("plain", n)))},
		{"fenced", rate(tries(h.ctx, pool(), targets("fenced", n), swanlock.WithFence()))},
		{"shared", rate(tries(h.ctx, pool(), targets("shared", n), swanlock.WithShared()))},
		{"audited", rate(tries(h.ctx, pool(pglock.WithAudit()), targets("audited", n)))},
		{"audited-session", rate(tries(h.ctx, session, targets("session", 1)))},
	})
	closeSession()
	disconnect(conns)
	for _, end := range ends {
		end()
	}
	return got
}

// flushedRow is the audit of 32 callers on one connection where the server flushes
// what it commits, beside 32 connections that each INSERT and UPDATE such a row.
func (h *harness) flushedRow(db *sql.DB) {
	const n = 32
	h.setFsync(db, "on")
	defer h.setFsync(db, "off")
	one := h.open("pgx", "")
	defer one.Close()
	p := must(pglock.NewPool(one, pglock.WithAudit(), pglock.WithMaxSessions(1)))
	conns := connect(db, n)
	defer disconnect(conns)
	var inserts []acquirer
	for _, conn := range conns {
		inserts = append(inserts, inserter(h.ctx, conn))
	}
	got := h.race("Flushed/goroutines=32", "pairs/s", 4*h.round, []contender{
		{"audited", rate(tries(h.ctx, shared(p, n), targets("flushed", n)))},
		{"inserts", rate(inserts)},
	})
	check(p.Close(context.Background()))
	h.against("Pool, 32 goroutines, 1 conn, audited, fsync on", got, "audited", "inserts", atLeast(2))
}

// migrate makes the audit's table.
func (h *harness) migrate(db *sql.DB) {
	provider := must(goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName(migrations.Table)))
	must(provider.Up(h.ctx))
}
