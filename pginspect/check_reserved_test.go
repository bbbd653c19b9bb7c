package pginspect_test

import (
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pginspect"
)

// TestCheckReserved: the sessions that PostgreSQL 16 keeps for some roles are no room
// for the others, which can connect no more when the rest is in use.
func TestCheckReserved(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a server")
	}
	if one[int](t, connect(t, "pgx", ""), "SELECT current_setting('server_version_num')::int") < 160000 {
		t.Skip("PostgreSQL 16 and later have reserved_connections")
	}
	server, err := pgserver.Start(bg, pgserver.WithSetting("max_connections", "30"), pgserver.WithSetting("superuser_reserved_connections", "3"),
		pgserver.WithSetting("reserved_connections", "20"), pgserver.WithSetting("max_wal_senders", "0"))
	must(t, err)
	defer server.Stop()
	on := openURL(t, "pgx", server.URL())
	for range 5 {
		conn(t, on)
	}
	r, err := pginspect.Check(bg, on) // with two of its own
	must(t, err)
	if f := finding(r, "sessions"); f.Level != pginspect.Warning || !strings.HasPrefix(f.Is, "7 of 7 ") {
		t.Errorf("got %+v, want a warning that 7 of 7 sessions are in use", f)
	}
}
