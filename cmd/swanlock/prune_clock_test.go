package main

import "testing"

// TestPruneByTheServersClock: the rows have the server's times, so how old they are
// is by its clock. This host may be ahead.
func TestPruneByTheServersClock(t *testing.T) {
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
	p := swanlockCommand(t, env(dsn), "audit", "prune", "--older-than", "24h").start().want(0)
	var left int
	if err := db.QueryRow("SELECT count(*) FROM lock_audit").Scan(&left); err != nil || left != 1 {
		t.Errorf("%d rows are left, %v; want that of an hour ago: %s", left, err, &p.stdout)
	}
}
