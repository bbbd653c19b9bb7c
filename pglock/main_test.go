package pglock_test

import (
	"context"
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

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(runChild(name))
	}
	flag.Set("test.parallel", "16") // most tests wait for a TTL; the command line may say otherwise
	goleak.VerifyTestMain(pgserver.Around(m))
}

// server is the PostgreSQL of all tests, migrated for the audit.
func server(t testing.TB) *pgserver.Server {
	t.Helper()
	if err := migrated(); err != nil {
		t.Fatal(err)
	}
	return pgserver.Default()
}

var migrated = sync.OnceValue(func() error {
	db, err := sql.Open("postgres", pgserver.Default().URL())
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = provider(db).Up(context.Background())
	return err
})

// provider is what the documentation of the package migrations shows.
func provider(db *sql.DB) *goose.Provider {
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName(migrations.Table))
	if err != nil {
		panic(fmt.Sprintf("the migrations do not suit goose: %v", err))
	}
	return p
}
