package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

// pool1Row shows what a Pool adds to its driver for a lone caller.
func pool1Row(h *harness) {
	var contenders []contender
	for _, driver := range drivers {
		db := h.open(driver, "")
		defer db.Close()
		conns := connect(db, 1)
		defer disconnect(conns)
		contenders = append(contenders,
			contender{"prepared-" + driver, rate(prepared(h.ctx, conns))},
			contender{"prepared-background-" + driver, rate(prepared(context.Background(), conns))})
	}
	got := h.poolRace(1, slices.Concat(contenders, h.pgbench(1)))
	for _, driver := range drivers {
		what, ours := "Pool, "+driver+", 1 goroutine", "swanlock-"+driver
		h.against(what, got, ours, "prepared-"+driver, atLeast(0.85))
		h.against(what, got, ours, "prepared-background-"+driver, orientation)
		for _, floor := range []string{"pgbench", "redislock", "redsync", "etcd"} {
			h.against(what, got, ours, floor, orientation)
		}
	}
}

// pool32Row shows what comes of travelling together.
func pool32Row(h *harness) {
	got := h.poolRace(32, h.pgbench(32))
	for _, driver := range drivers {
		what, ours := "Pool, "+driver+", 32 goroutines, 1 conn", "swanlock-"+driver
		h.against(what, got, ours, "pgbench", atLeast(1.5))
		h.against(what, got, ours, "redislock", atLeast(1.5))
		h.against(what, got, ours, "redislock-autopipeline", atLeast(1.5))
		for _, floor := range []string{"redsync", "etcd"} {
			h.against(what, got, ours, floor, orientation)
		}
	}
}

func pool256Row(h *harness) {
	const n = 256
	db := h.open("pgx", "")
	defer db.Close()
	conns := connect(db, 1)
	defer disconnect(conns)
	got := h.poolRace(n, []contender{{"limit", inOneStatement(h.ctx, conns[0], n)}})
	for _, driver := range drivers {
		what, ours := "Pool, "+driver+", 256 goroutines, 1 conn", "swanlock-"+driver
		h.against(what, got, ours, "redislock", atLeast(4))
		h.against(what, got, ours, "redislock-autopipeline", atLeast(2))
		h.against(what, got, ours, "limit", atLeast(0.7))
		for _, floor := range []string{"redsync", "etcd"} {
			h.against(what, got, ours, floor, orientation)
		}
	}
}

// inOneStatement is a turn that takes n locks in one prepared statement, and
// frees them in another, over and over: what the server can do at most.
func inOneStatement(ctx context.Context, conn *sql.Conn, n int) func(time.Duration) float64 {
	keys := make([]int64, n)
	for i := range keys {
		keys[i] = -1000 - int64(i)
	}
	lock := must(conn.PrepareContext(ctx, "SELECT count(*) FROM unnest($1::bigint[]) k WHERE pg_try_advisory_lock(k)"))
	unlock := must(conn.PrepareContext(ctx, "SELECT count(*) FROM unnest($1::bigint[]) k WHERE pg_advisory_unlock(k)"))
	return func(d time.Duration) float64 {
		start, pairs := time.Now(), 0
		for ; time.Since(start) < d; pairs += n {
			for _, stmt := range []*sql.Stmt{lock, unlock} {
				var done int
				check(stmt.QueryRowContext(ctx, keys).Scan(&done))
				if done != n {
					check(fmt.Errorf("%d of %d locks", done, n))
				}
			}
		}
		return float64(pairs) / time.Since(start).Seconds()
	}
}

// poolRace sets n goroutines, each with a target of its own, on a Pool with one
// connection, or three for 1,024, and on the peers, besides the floors.
func (h *harness) poolRace(n int, floors []contender) map[string]series {
	var contenders []contender
	for _, driver := range drivers {
		db := h.open(driver, "")
		defer db.Close()
		sessions := 1 + n/450            // Each has 450 locks at most.
		db.SetMaxOpenConns(sessions + 1) // A Pool that has all of them gives back what holds nothing.
		db.SetMaxIdleConns(sessions)
		disconnect(connect(db, sessions)) // A Pool asks for no more after one that came late.
		p := must(pglock.NewPool(db, pglock.WithMaxSessions(sessions)))
		defer p.Close(context.Background())
		contenders = append(contenders, contender{"swanlock-" + driver, rate(tries(h.ctx, shared(p, n), targets("pool", n)))})
	}
	contenders = append(contenders, floors...)
	if h.redis != "" {
		client := h.dialRedis(n)
		defer client.Close()
		contenders = append(contenders,
			contender{"redislock", rate(redislocks(h.ctx, client, targets("redislock", n), nil))},
			contender{"redsync", rate(redsyncs(h.ctx, client, targets("redsync", n)))})
		if n > 1 {
			pipeline := must(client.AutoPipeline())
			defer pipeline.Close()
			contenders = append(contenders, contender{"redislock-autopipeline", rate(redislocks(h.ctx, pipeline, targets("autopipeline", n), nil))})
		}
	}
	if h.etcd != "" {
		client := h.dialEtcd()
		defer client.Close()
		sessions := slices.Repeat(etcdSessions(client, 1), n)
		contenders = append(contenders, contender{"etcd", rate(etcds(h.ctx, sessions, targets("pool", n)))})
	}
	return h.race(fmt.Sprintf("Pool/goroutines=%d", n), "pairs/s", h.round, contenders)
}
