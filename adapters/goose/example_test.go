package gooselock_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing/fstest"

	"github.com/pressly/goose/v3"

	gooselock "github.com/swanlake-io/swanlock/adapters/goose"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

func Example() {
	ctx := context.Background()
	db, err := sql.Open("pgx", pgserver.Default().URL()) // your own database
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	pool, err := pglock.NewPool(db)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close(ctx)

	files := fstest.MapFS{"00001_ducks.sql": {Data: []byte("-- +goose Up\nCREATE TABLE ducks (name text);\n")}}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithLocker(gooselock.New(pool, "/app/migrations")))
	if err != nil {
		fmt.Println(err)
		return
	}
	done, err := p.Up(ctx)
	fmt.Println(len(done), err)
	// Output: 1 <nil>
}
