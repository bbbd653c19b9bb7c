package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// auditRow shows what an acquire with an audit costs beside an INSERT of the
// same row, which takes no lock. Both flush it, if the server flushes: once as a
// server does by default, once without, where nothing hides what else is done.
func auditRow(h *harness) {
	db := h.open("pgx", "")
	defer db.Close()
	h.migrate(db)
	conns := connect(db, 2)
	defer disconnect(conns)
	session, closeSession := sessions(conns[:1], pglock.WithAudit())
	pool := must(pglock.NewPool(db, pglock.WithAudit()))
	insert := inserter(h.ctx, conns[1])
	for _, flush := range []struct {
		fsync string
		goal  goal
	}{{"on", atMost(1.1)}, {"off", orientation}} {
		h.setFsync(db, flush.fsync)
		got := h.race("Audit/fsync="+flush.fsync, "µs/acquire", h.round, []contender{
			{"swanlock-session", cost(inTurn(h.ctx, session[0]))},
			{"swanlock-pool", cost(inTurn(h.ctx, pool))},
			{"insert", cost(insert)},
		})
		for _, ours := range []string{"swanlock-session", "swanlock-pool"} {
			h.against("acquire with audit, fsync "+flush.fsync, got, ours, "insert", flush.goal)
		}
	}
	closeSession()
	check(pool.Close(context.Background()))
}

// setFsync has the server flush what it commits, or not (it starts without).
func (h *harness) setFsync(db *sql.DB, value string) {
	must(db.ExecContext(h.ctx, "ALTER SYSTEM SET fsync = "+value))
	must(db.ExecContext(h.ctx, "SELECT pg_reload_conf()"))
	for start, now := time.Now(), ""; now != value; time.Sleep(10 * time.Millisecond) {
		check(db.QueryRowContext(h.ctx, "SHOW fsync").Scan(&now))
		if time.Since(start) > 10*time.Second {
			check(fmt.Errorf("fsync stays %s", now))
		}
	}
}

// audited is how many targets take turns.
const audited = 1000

// inTurn acquires one target after another.
func inTurn(ctx context.Context, l swanlock.Locker) acquirer {
	acquirers := tries(ctx, shared(l, audited), targets("audit", audited))
	i := 0
	return func() (func() error, error) {
		i++
		return acquirers[i%audited]()
	}
}

// inserter inserts the rows that inTurn's acquires do, and closes them.
func inserter(ctx context.Context, conn *sql.Conn) acquirer {
	var pid int
	var start time.Time
	check(conn.QueryRowContext(ctx, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&pid, &start))
	insert := must(conn.PrepareContext(ctx, `
		INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, client_addr, acquired_at, refreshed_at)
		VALUES ($1, $2, $3, $4, $5, pg_current_xact_id()::text::bigint, $6, $7, inet_client_addr(), clock_timestamp(), clock_timestamp())
		RETURNING id, fence`))
	update := must(conn.PrepareContext(ctx, "UPDATE lock_audit SET released_at = clock_timestamp(), end_reason = 'released' WHERE id = $1"))
	names := targets("insert", audited)
	i := 0
	return func() (func() error, error) {
		i++
		target := names[i%audited]
		var id, fence int64
		err := insert.QueryRowContext(ctx, target, int64(pglock.KeyOf(target)), "bench", 0, "exclusive", pid, start).Scan(&id, &fence)
		return func() error {
			_, err := update.ExecContext(ctx, id)
			return err
		}, err
	}
}
