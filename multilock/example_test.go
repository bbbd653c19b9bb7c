package multilock_test

import (
	"context"
	"fmt"

	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/multilock"
)

func Example() {
	ctx := context.Background()
	locks := memlock.New() // a *pglock.Pool in a program

	held, err := multilock.Acquire(ctx, locks, []string{"/accounts/9", "/accounts/7"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release(ctx)

	_, err = locks.TryAcquire(ctx, "/accounts/7")
	fmt.Println("both are held:", err != nil)
	// Output: both are held: true
}
