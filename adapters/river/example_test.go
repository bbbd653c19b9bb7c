package riverlock_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	riverlock "github.com/swanlake-io/swanlock/adapters/river"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

type SyncArgs struct {
	Customer string `json:"customer"`
}

func (SyncArgs) Kind() string { return "sync" }

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
	migrator, err := rivermigrate.New(riverdatabasesql.New(db), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		fmt.Println(err)
		return
	}

	done := make(chan string)
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[SyncArgs]) error {
		done <- job.Args.Customer // one job at a time
		return nil
	}))
	client, err := river.NewClient(riverdatabasesql.New(db), &river.Config{
		Logger:     slog.New(slog.DiscardHandler),
		Queues:     map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 10}},
		Workers:    workers,
		Middleware: []rivertype.Middleware{riverlock.OneAtATime(pool, func(job *rivertype.JobRow) string { return "/jobs/" + job.Kind })},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := client.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer client.Stop(ctx)
	if _, err := client.Insert(ctx, SyncArgs{"ducks"}, nil); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-done)
	// Output: ducks
}
