package pglock_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// admit rewrites who may connect to srv over TCP, and how. Over the socket everybody may.
func admit(t *testing.T, srv *pgserver.Server, rules string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(srv.Dir(), "data", "pg_hba.conf"), []byte("local all all trust\n"+rules), 0o600))
	reload(t, srv)
}

func reload(t *testing.T, srv *pgserver.Server) {
	t.Helper()
	admin := openURL(t, "pgx", srv.SocketURL())
	before := one[time.Time](t, admin, "SELECT pg_conf_load_time()")
	one[bool](t, admin, "SELECT pg_reload_conf()")
	eventually(t, "the settings are loaded", func() bool {
		return one[time.Time](t, admin, "SELECT pg_conf_load_time()").After(before)
	})
}

// lockByEnv takes a lock on the server that the environment names.
func lockByEnv(t *testing.T, driver string, env map[string]string) error {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "SWANLAKE_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	defer func() {
		for name := range env {
			os.Unsetenv(name)
		}
	}()
	dsn, err := pglock.DSNFromEnv()
	must(t, err)
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(shortly(t))
	if err != nil {
		return err
	}
	defer conn.Close()
	held, err := pglock.TryAcquire(bg, conn, newTarget(t))
	if err != nil {
		return err
	}
	return held.Release(bg)
}
