package main

import (
	"strings"
	"testing"
)

// TestAuditByTheServersClock: the rows have the server's times, so how old they are
// is by its clock, and how long a lock is held. This host may be ahead.
func TestAuditByTheServersClock(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	migrateSays(t, dsn, "up", "applied")
	const row = "INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason) " +
		"SELECT 't', 1, 'o', 0, 'shared', 1, at, at, at, at, 'released' FROM (SELECT clock_timestamp() - $1::interval AS at) x"
	db := openDB(t, dsn)
	if _, err := db.Exec("CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$SELECT pg_catalog.statement_timestamp() OPERATOR(pg_catalog.-) interval '2 days'$$"); err != nil {
		t.Fatal(err)
	}
	for _, age := range []string{"1 hour", "25 hours"} {
		if _, err := db.Exec(row, age); err != nil {
			t.Fatal(err)
		}
	}
	p := swanlockCommand(t, env(dsn), "audit", "--since", "2h", "--csv").start().want(0)
	if got := strings.Count(p.stdout.String(), "\n"); got != 2 {
		t.Errorf("of the last two hours there are %d lines, want 2:\n%s", got, &p.stdout)
	}
	holder, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.ExecContext(t.Context(), "SELECT pg_advisory_lock(7)"); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.ExecContext(t.Context(), "INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at) "+
		"SELECT 'held', 7, 'o', 0, 'exclusive', pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()), at, at FROM (SELECT clock_timestamp() AS at) x"); err != nil {
		t.Fatal(err)
	}
	p = swanlockCommand(t, env(dsn), "audit", "--target", "hel*").start().want(0)
	if text := p.stdout.String(); strings.Contains(text, "2d00h") || !strings.Contains(text, " held ") {
		t.Errorf("it is said to be held for two days:\n%s", text)
	}
	p = swanlockCommand(t, env(dsn), "audit", "prune", "--older-than", "24h").start().want(0)
	var left int
	if err := db.QueryRow("SELECT count(*) FROM lock_audit").Scan(&left); err != nil || left != 2 {
		t.Errorf("%d rows are left, %v; want that of an hour ago and that of the lock: %s", left, err, &p.stdout)
	}
}
