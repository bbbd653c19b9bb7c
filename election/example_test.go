package election_test

import (
	"context"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/memlock"
)

func ExampleRun() {
	locks := memlock.New() // a *pglock.Pool in a program

	err := election.Run(context.Background(), locks, "/scheduler", func(ctx context.Context) error {
		held, _ := election.Lock(ctx)
		fmt.Println("this process leads, as", held.Info().Owner)
		return election.ErrResign // most would work until ctx ends
	}, election.WithLockOptions(swanlock.WithOwner("host-1"), swanlock.WithTTL(10*time.Second)))
	fmt.Println(err)
	// Output:
	// this process leads, as host-1
	// <nil>
}
