package pgtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// OwnServer starts a server that the test may break, migrated for the audit and
// gone with the test.
func OwnServer(t testing.TB, opts ...pgserver.Option) *pgserver.Server {
	t.Helper()
	srv, err := pgserver.Start(Background, opts...)
	Must(t, err)
	t.Cleanup(func() { srv.Stop() })
	_, err = Provider(OpenURL(t, "postgres", srv.URL())).Up(Background)
	Must(t, err)
	return srv
}

// StandbyOf makes a streaming standby of primary, which it restarts on the way.
func StandbyOf(t testing.TB, primary *pgserver.Server) *pgserver.Server {
	t.Helper()
	standby, err := primary.Standby(Background)
	Must(t, err)
	t.Cleanup(func() { standby.Stop() })
	return standby
}

// Signal sends a signal to the postmaster: SIGINT is pg_ctl's fast shutdown,
// SIGQUIT its immediate one.
func Signal(srv *pgserver.Server, sig os.Signal) error {
	p, err := os.FindProcess(srv.PID())
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// Admit rewrites which connections srv takes over TCP, and how, in the words of
// pg_hba.conf. Over the socket it takes everybody.
func Admit(t testing.TB, srv *pgserver.Server, rules string) {
	t.Helper()
	Must(t, os.WriteFile(filepath.Join(srv.Dir(), "data", "pg_hba.conf"), []byte("local all all trust\n"+rules), 0o600))
	Reload(t, srv)
}

// Reload has srv read its settings again, and returns when it has.
func Reload(t testing.TB, srv *pgserver.Server) {
	t.Helper()
	admin := OpenURL(t, "pgx", srv.SocketURL())
	before := One[time.Time](t, admin, "SELECT pg_conf_load_time()")
	One[bool](t, admin, "SELECT pg_reload_conf()")
	Eventually(t, "the settings are loaded", func() bool {
		return One[time.Time](t, admin, "SELECT pg_conf_load_time()").After(before)
	})
}
