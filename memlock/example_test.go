package memlock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

// What a service does when its lock is taken away.
func ExampleLocker_Lose() {
	locks := memlock.New()
	err := swanlock.Do(context.Background(), locks, "/reports/nightly", func(ctx context.Context, _ swanlock.DistributedLock) error {
		locks.Lose("/reports/nightly", errors.New("server restarted"))
		<-ctx.Done()
		return nil
	})
	fmt.Println(errors.Is(err, swanlock.ErrLost))
	fmt.Println(err)
	// Output:
	// true
	// memlock: "/reports/nightly": lock lost: server restarted
}

// Two copies of a service share one Locker, as two hosts share a server.
func ExampleNew() {
	locks := memlock.New()
	serve := func(ctx context.Context, l swanlock.Locker, name string) {
		held, err := l.TryAcquire(ctx, "/leader", swanlock.WithOwner(name))
		if err != nil {
			fmt.Printf("%s stands by: %v\n", name, err)
			return
		}
		fmt.Printf("%s leads\n", held.Info().Owner)
	}
	serve(context.Background(), locks, "blue")
	serve(context.Background(), locks, "green")
	// Output:
	// blue leads
	// green stands by: memlock: "/leader": not acquired: held by "blue"
}
