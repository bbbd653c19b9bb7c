package consullock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/consullock"
)

// Do holds the lock while a function runs, and ends its context if the lock is lost.
func Example() {
	client, done := consullock.Client() // yours: api.NewClient(api.DefaultConfig())
	defer done()

	run := func(ctx context.Context, client *api.Client) error {
		locks, err := consullock.New(client)
		if err != nil {
			return err
		}
		return swanlock.Do(ctx, locks, "/lake/checkpoint", func(ctx context.Context, held swanlock.DistributedLock) error {
			fmt.Println("checkpoint, with a fence:", held.Info().Fence > 0)
			return ctx.Err()
		}, swanlock.WithTTL(15*time.Second), swanlock.WithAutoRefresh(), swanlock.WithFence())
	}
	fmt.Println(run(context.Background(), client))
	// Output:
	// checkpoint, with a fence: true
	// <nil>
}

// A TTL that is too short for the server is refused.
func ExampleLocker_TryAcquire() {
	client, done := consullock.Client()
	defer done()
	locks, err := consullock.New(client)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = locks.TryAcquire(context.Background(), "/lake/checkpoint", swanlock.WithTTL(5*time.Second))
	fmt.Println(errors.Is(err, errors.ErrUnsupported))
	// Output: true
}
