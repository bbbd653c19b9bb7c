package lockweb_test

import (
	"encoding/json"
	"testing"
	"time"
)

// TestServersClock: what is now is so by the server's clock, which the audit's rows
// have their times of, also while nothing is held. This host may be ahead.
func TestServersClock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		must(t, migrate(on))
		for _, statement := range []string{
			"CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$SELECT pg_catalog.statement_timestamp() OPERATOR(pg_catalog.-) interval '2 days'$$",
			"INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason) " +
				"SELECT 't', 1, 'o', 0, 'shared', 1, at, at, at, at, 'released' FROM (SELECT clock_timestamp() - interval '1 minute' AS at) x",
		} {
			_, err := on.Exec(statement)
			must(t, err)
		}
		s := serve(t, on)
		text := func(path string) string {
			_, body := s.get(path)
			return body
		}
		var history struct {
			Records []json.RawMessage `json:"records"`
		}
		must(t, json.Unmarshal([]byte(text("/api/history")), &history))
		want(t, "records of the last day", len(history.Records), 1)
		var state struct {
			Now int64                      `json:"now"`
			Set map[string]json.RawMessage `json:"set"`
		}
		must(t, json.Unmarshal([]byte(text("/api/state")), &state))
		if ago := time.Since(time.UnixMilli(state.Now)); ago < 47*time.Hour {
			t.Errorf("now is %v ago, want two days", ago)
		}
		want(t, "records of the last quarter of an hour", len(state.Set), 1)
	})
}
