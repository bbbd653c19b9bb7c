package leaselock_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/leaselock"
	"github.com/swanlake-io/swanlock/leaselock/migrations"
)

// The address of a PostgreSQL, or of a pooler in front of it.
func address() string { return pgserver.Default().URL("binary_parameters=yes") }

func Example() {
	ctx := context.Background()
	db, err := sql.Open("postgres", address())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName(migrations.Table))
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := p.Up(ctx); err != nil {
		fmt.Println(err)
		return
	}

	locker, err := leaselock.New(db)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = swanlock.Do(ctx, locker, "/lake/checkpoint", func(ctx context.Context, held swanlock.DistributedLock) error {
		fmt.Println("held:", held.Info().Target, held.Info().Fence > 0)
		return nil
	}, swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
	fmt.Println(err)
	// Output:
	// held: /lake/checkpoint true
	// <nil>
}
