package migratelock_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing/fstest"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database/postgres"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	migratelock "github.com/swanlake-io/swanlock/adapters/migrate"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

func Example() {
	url := pgserver.Default().URL() // your own database
	db, err := sql.Open("postgres", url)
	if err != nil {
		fmt.Println(err)
		return
	}
	locks, err := sql.Open("postgres", url) // migrate closes its own
	if err != nil {
		fmt.Println(err)
		return
	}
	defer locks.Close()
	pool, err := pglock.NewPool(locks)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close(context.Background())

	driver, err := postgres.WithInstance(db, &postgres.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := iofs.New(fstest.MapFS{"1_ducks.up.sql": {Data: []byte("CREATE TABLE ducks (name text)")}}, ".")
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := migrate.NewWithInstance("iofs", source, "postgres", migratelock.Wrap(driver, pool, "/app/migrations"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	fmt.Println(m.Up())
	// Output: <nil>
}
