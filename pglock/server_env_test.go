package pglock_test

import (
	"os"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

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
	db, closeDB, err := pgtest.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer closeDB()
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
