package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/etcdlock"
)

// Do holds the lock while a function runs, and ends its context if the lock is lost.
func Example() {
	client, done := etcdlock.Client() // yours: clientv3.New(clientv3.Config{Endpoints: …})
	defer done()

	run := func(ctx context.Context, client *clientv3.Client) error {
		locks, err := etcdlock.New(client)
		if err != nil {
			return err
		}
		return swanlock.Do(ctx, locks, "/lake/checkpoint", func(ctx context.Context, held swanlock.DistributedLock) error {
			fmt.Println("checkpoint, with a fence:", held.Info().Fence > 0)
			return ctx.Err()
		}, swanlock.WithTTL(10*time.Second), swanlock.WithAutoRefresh(), swanlock.WithFence())
	}
	fmt.Println(run(context.Background(), client))
	// Output:
	// checkpoint, with a fence: true
	// <nil>
}

// Readers hold a lock together, and keep out writers.
func ExampleLocker_TryAcquire() {
	client, done := etcdlock.Client()
	defer done()
	locks, err := etcdlock.New(client)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for range 2 {
		reader, err := locks.TryAcquire(ctx, "/lake", swanlock.WithShared())
		if err != nil {
			fmt.Println(err)
			return
		}
		defer reader.Release(ctx)
	}
	_, err = locks.TryAcquire(ctx, "/lake")
	fmt.Println(errors.Is(err, swanlock.ErrNotAcquired))
	// Output: true
}
