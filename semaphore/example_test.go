package semaphore_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/semaphore"
)

func Example() {
	ctx := context.Background()
	locks := memlock.New() // a *pglock.Pool in a program

	reports := semaphore.New(locks, 2)
	for i := range 3 {
		held, err := reports.TryAcquire(ctx, "/reports")
		if errors.Is(err, swanlock.ErrNotAcquired) {
			fmt.Println(i, "there is no place")
			continue
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		defer held.Release(ctx)
		fmt.Println(i, "has a place")
	}
	// Output:
	// 0 has a place
	// 1 has a place
	// 2 there is no place
}
