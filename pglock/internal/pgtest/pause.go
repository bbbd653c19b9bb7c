package pgtest

import (
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// Pause stops a whole server, as pgserver.Server.Pause does. The server must be
// the test's own. It runs again when resume is called or the test ends.
func Pause(t testing.TB, srv *pgserver.Server) (resume func()) {
	t.Helper()
	if srv == pgserver.Default() {
		t.Fatal("the shared server must not be paused: use OwnServer")
	}
	resume, err := srv.Pause()
	Must(t, err)
	t.Cleanup(resume)
	return resume
}
