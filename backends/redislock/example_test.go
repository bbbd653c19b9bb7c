package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/backends/redislock"
)

func Example() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")}) // your own
	defer client.Close()
	locker, err := redislock.New([]redis.Scripter{client})
	if err != nil {
		fmt.Println(err)
		return
	}
	held, err := locker.Acquire(ctx, "jobs/nightly", swanlock.WithTTL(30*time.Second), swanlock.WithFence())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release(ctx)
	_, err = locker.TryAcquire(ctx, "/jobs//nightly")
	fmt.Println(held.Info().Fence > 0, errors.Is(err, swanlock.ErrNotAcquired))
	// Output: true true
}
