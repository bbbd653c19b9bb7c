package chain_test

import (
	"context"
	"fmt"

	"github.com/swanlake-io/swanlock/chain"
	"github.com/swanlake-io/swanlock/memlock"
)

func ExampleNew() {
	ctx := context.Background()
	older, newer := memlock.New(), memlock.New() // a Pool on each of two servers

	held, err := chain.New(older, newer).Acquire(ctx, "/lake")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release(ctx)

	_, errOld := older.TryAcquire(ctx, "/lake")
	_, errNew := newer.TryAcquire(ctx, "/lake")
	fmt.Println(errOld != nil, errNew != nil)
	// Output: true true
}
