// Command service is a service of several hosts, as docs/README.md would have
// it: one host leads, a report is made once a night, and all hosts together make
// two calls at a time of a service that allows no more. Try it on a server of
// its own, in several terminals:
//
//	go run ./cmd/swanlock dev -- sh -c 'go run ./examples/service & go run ./examples/service & wait'
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/semaphore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dsn, err := pglock.DSNFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	say := func(what string, takes time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			log.Print(what)
			select {
			case <-time.After(takes):
			case <-ctx.Done():
			}
			return nil
		}
	}
	err = serve(ctx, db, work{
		lead: say("leads", time.Hour), report: say("makes the report", time.Second), call: say("calls", time.Second),
		night: 10 * time.Second, clocks: 2 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
}

// work is what a host does.
type work struct {
	lead, report, call func(ctx context.Context) error // each stops when its context ends
	night              time.Duration                   // from one report to the next
	clocks             time.Duration                   // more than the hosts' clocks differ
}

// lease has a lock freed within half a minute if its host hangs.
var lease = []swanlock.Option{swanlock.WithTTL(30 * time.Second), swanlock.WithAutoRefresh()}

// serve works until ctx ends.
func serve(ctx context.Context, db *sql.DB, w work) error {
	locks, err := pglock.NewPool(db)
	if err != nil {
		return err
	}
	defer locks.Close(context.WithoutCancel(ctx)) // ctx has ended by then
	calls := semaphore.New(locks, 2)
	nightly := swanlock.WithMinHold(locks, w.clocks)

	var all sync.WaitGroup
	all.Go(func() {
		election.Run(ctx, locks, "/example/leader", w.lead, election.OnError(func(err error) { log.Print("lead: ", err) }))
	})
	all.Go(func() {
		every(ctx, w.night, func() error { return once(ctx, nightly, "/example/report", w.report) })
	})
	all.Go(func() {
		every(ctx, 0, func() error {
			return swanlock.Do(ctx, calls, "/example/calls", func(ctx context.Context, _ swanlock.DistributedLock) error {
				return w.call(ctx)
			}, lease...)
		})
	})
	all.Wait()
	return nil
}

// once does the job, unless another host has it.
func once(ctx context.Context, locks swanlock.Locker, job string, do func(ctx context.Context) error) error {
	held, err := locks.TryAcquire(ctx, job, lease...)
	if errors.Is(err, swanlock.ErrNotAcquired) {
		return nil
	} else if err != nil {
		return err
	}
	defer held.Release(ctx)
	jctx, cancel := swanlock.WithLock(ctx, held)
	defer cancel()
	return do(jctx)
}

// every calls f at each multiple of d by the clock, until ctx ends. Errors are
// logged, and it goes on, after a second at least.
func every(ctx context.Context, d time.Duration, f func() error) {
	for failed := false; ; {
		var wait time.Duration
		if failed {
			wait = time.Second
		}
		if d > 0 {
			wait = max(wait, time.Until(time.Now().Truncate(d).Add(d)))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := f()
		if failed = err != nil; failed && ctx.Err() == nil {
			log.Print(err)
		}
	}
}
