package pgtest

import (
	"database/sql"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/migrations"
)

// Main is the body of a TestMain. It runs the tests, looks for goroutines that
// they left behind, and exits. In a process that StartChild started it runs that
// child instead.
func Main(m *testing.M, children map[string]ChildFunc) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(runChild(children[name]))
	}
	flag.Set("test.parallel", "8") // most tests wait for something; the command line may say otherwise
	goleak.VerifyTestMain(pgserver.Around(withoutUsed{m}, pgserver.WithSetting("max_connections", "500")))
}

// Server returns the PostgreSQL that all tests of a process share, migrated for
// the audit.
func Server(t testing.TB) *pgserver.Server {
	t.Helper()
	srv, err := Migrated()
	Must(t, err)
	return srv
}

// Migrated is Server for an example, which has no testing.TB.
var Migrated = sync.OnceValues(func() (*pgserver.Server, error) {
	srv := pgserver.Default()
	db, err := sql.Open("postgres", srv.URL())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	_, err = Provider(db).Up(Background)
	return srv, err
})

// Provider returns the goose provider that the documentation of the package
// migrations shows.
func Provider(db *sql.DB) *goose.Provider {
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName(migrations.Table))
	if err != nil {
		panic(fmt.Sprintf("the migrations do not suit goose: %v", err))
	}
	return p
}
