package pgtest_test

import (
	"testing"

	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestDriverModes: each mode speaks with the server as its name says.
func TestDriverModes(t *testing.T) {
	want := map[string]int{"postgres": 2, "postgres-binary": 1, "pgx": 1, "pgx-exec": 1, "pgx-simple": 1, "pgx-cancel": 1}
	prepared := map[string]int{"pgx": 1, "pgx-cancel": 1} // by a query that nobody prepared
	for _, name := range pgtest.Modes {
		t.Run(name, func(t *testing.T) {
			p := pgtest.NewProxy(t)
			conn := pgtest.ConnOf(t, pgtest.OpenURL(t, name, p.URL))
			ask := func() { pgtest.One[int](t, conn, "SELECT $1::int", 1) }
			ask()
			if got := p.Trips(t, ask); got != want[name] {
				t.Errorf("a warm query with an argument took %d round trips, want %d", got, want[name])
			}
			if statements := pgtest.One[int](t, conn, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1::int'"); statements != prepared[name] {
				t.Errorf("%d statements are prepared, want %d", statements, prepared[name])
			}
		})
	}
}
