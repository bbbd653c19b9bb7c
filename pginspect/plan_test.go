package pginspect_test

import (
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/db"
)

// planOf is how the server executes a statement, as one line for each step.
func planOf(t testing.TB, on interface {
	execer
	querier
}, options, query string, args ...any) string {
	t.Helper()
	rows, err := on.QueryContext(bg, "EXPLAIN "+options+db.OneLine(query), args...)
	must(t, err)
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line string
		must(t, rows.Scan(&line))
		lines = append(lines, line)
	}
	must(t, rows.Err())
	return strings.Join(lines, "\n")
}

// manyRows fills the audit: n holds of a thousand targets, of a few seconds, one
// in a hundred of hours, one in fifty thousand not closed.
func manyRows(t testing.TB, on execer, n int) {
	t.Helper()
	exec(t, on, `
		INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, client_addr, acquired_at, refreshed_at, released_at, end_reason)
		SELECT '/lake/table-' || t, hashtextextended(t::text, 0), 'worker-' || i % 20 || '/4711', 30000, 'exclusive', 1000 + i, 100000 + i % 20, now() - interval '100 days', '10.0.0.7', at, at,
			CASE WHEN i % 50000 <> 0 THEN at + CASE WHEN i % 100 = 0 THEN interval '4 hours' ELSE (1 + i % 7) * interval '1 second' END END,
			CASE WHEN i % 50000 <> 0 THEN 'released' END
		FROM (SELECT i, i % 1000 AS t, now() - interval '90 days' * ($1::float8 - i) / $1 AS at FROM generate_series(1, $1::int) i) s`, n)
	exec(t, on, "VACUUM ANALYZE lock_audit")
}

// TestPlans: each statement of the history reads its index, also with a plan that
// is made for all values, as of a statement that is prepared.
func TestPlans(t *testing.T) {
	on := connect(t, "pgx", newDatabase(t))
	must(t, migrate(on))
	manyRows(t, on, 50_000)
	const day = 24 * 3600 * 1_000_000
	now := one[int64](t, on, "SELECT (extract(epoch FROM now()) * 1000000)::bigint")
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		c := conn(t, on)
		exec(t, c, "SET plan_cache_mode = "+mode)
		for _, tt := range []struct {
			name, query string
			args        []any
			want        []string
		}{
			{"History", db.History, []any{0, now, 0, "%", "%", 101}, []string{"Backward using lock_audit_time"}},
			{"HistoryOfKey", db.HistoryOfKey, []any{7, 0, now, 0, "%", 101}, []string{"lock_audit_key"}},
			{"HeldAt", db.HeldAt, []any{0, 10000, now - 40*day}, []string{"CTE h", "lock_audit_span", "lock_audit_time", "lock_audit_open"}},
			{"PruneBatch", db.PruneBatch, []any{now - 40*day, 0, 0, 1000}, []string{"using lock_audit_time"}},
			{"PruneCount", db.PruneCount, []any{now - 80*day}, []string{"lock_audit_time"}},
			{"InspectAudit", db.InspectAudit, nil, []string{"lock_audit_open", "lock_audit_key"}},
			{"LastSuccess", db.LastSuccess, []any{7}, []string{"lock_audit_key"}},
			{"Succeed", db.Succeed, []any{7}, []string{"lock_audit_open"}},
			{"KillRows", db.KillRows, []any{7, 0}, []string{"lock_audit_open"}},
		} {
			plan := planOf(t, c, "", tt.query, tt.args...)
			for _, want := range tt.want {
				if !strings.Contains(plan, want) {
					t.Errorf("%s, %s: no %q in\n%s", tt.name, mode, want, plan)
				}
			}
			if strings.Contains(plan, "Seq Scan on lock_audit") {
				t.Errorf("%s, %s: reads the whole table:\n%s", tt.name, mode, plan)
			}
		}
	}
}
