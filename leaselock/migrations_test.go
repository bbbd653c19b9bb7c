package leaselock_test

import (
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/leaselock/migrations"
)

// TestDownLeavesOtherSchemas: down removes the table of the first schema alone.
// Where that is missing it fails, and does not remove a later schema's.
func TestDownLeavesOtherSchemas(t *testing.T) {
	admin := open(t, "pgx", server(t).URL(), nil)
	for _, s := range []string{"down_first", "down_second"} {
		_, err := admin.Exec("CREATE SCHEMA " + s)
		must(t, err)
		t.Cleanup(func() { admin.Exec("DROP SCHEMA " + s + " CASCADE") })
	}
	second := open(t, "pgx", pgserver.Default().URL()+"&search_path=down_second", nil)
	migrate(t, second)
	first := open(t, "pgx", pgserver.Default().URL()+"&search_path=down_first,down_second", nil)
	migrate(t, first)
	_, err := admin.Exec("DROP TABLE down_first.lock_leases")
	must(t, err)

	p, err := goose.NewProvider(goose.DialectPostgres, first, migrations.FS, goose.WithTableName(migrations.Table))
	must(t, err)
	if _, err := p.DownTo(bg, 0); err == nil {
		t.Error("down of a schema without the table succeeded")
	}
	if !one[bool](t, admin, "SELECT to_regclass('down_second.lock_leases') IS NOT NULL") {
		t.Error("down has removed the table of another schema")
	}

	p, err = goose.NewProvider(goose.DialectPostgres, second, migrations.FS, goose.WithTableName(migrations.Table))
	must(t, err)
	_, err = p.DownTo(bg, 0)
	must(t, err)
	if one[bool](t, admin, "SELECT to_regclass('down_second.lock_leases') IS NOT NULL") {
		t.Error("down has left the table")
	}
}
