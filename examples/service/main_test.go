package main

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgserver.Around(m)) }

// TestService: of three hosts one leads, each report is made once although their
// clocks differ, and two calls are made at a time.
func TestService(t *testing.T) {
	var leading, calling, leaders, calls atomic.Int32
	var mu sync.Mutex
	reports := make(map[time.Time]int) // by the night
	const night = 5 * time.Second      // and a host that is late by four is not the test's
	counted := func(now *atomic.Int32, most int32, total *atomic.Int32, takes time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			if n := now.Add(1); n > most {
				t.Errorf("%d at a time, want %d", n, most)
			}
			defer now.Add(-1)
			total.Add(1)
			select {
			case <-time.After(takes):
			case <-ctx.Done():
			}
			return nil
		}
	}
	url := pgserver.Default().URL() // which takes its time to start
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for range 3 {
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		all.Go(func() {
			err := serve(ctx, db, work{
				lead: counted(&leading, 1, &leaders, time.Hour),
				call: counted(&calling, 2, &calls, 20*time.Millisecond),
				report: func(context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					reports[time.Now().Truncate(night)]++
					if len(reports) > 1 && leaders.Load() > 0 && calls.Load() > 5 {
						cancel() // enough was seen
					}
					return nil
				},
				night: night, clocks: night - time.Second,
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if leaders.Load() == 0 || calls.Load() < 5 || len(reports) < 2 {
		t.Errorf("%d terms, %d calls, %d reports: too few", leaders.Load(), calls.Load(), len(reports))
	}
	for at, n := range reports {
		if n != 1 {
			t.Errorf("%d reports at %v", n, at)
		}
	}
}
