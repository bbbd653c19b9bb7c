// Command leasetable makes leaselock's table on the server that the environment
// names: make verify has its statements checked there.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/swanlake-io/swanlock/leaselock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "leasetable:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dsn, err := pglock.DSNFromEnv()
	if err != nil {
		return err
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName(migrations.Table))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}
