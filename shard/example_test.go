package shard_test

import (
	"context"
	"fmt"

	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/shard"
)

func ExampleNew() {
	locks, err := shard.New(
		shard.Shard{Name: "eu-1", Locker: memlock.New()}, // a Pool on each server
		shard.Shard{Name: "us-1", Locker: memlock.New()},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	held, err := locks.Acquire(context.Background(), "/lake/t1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(locks.Of("/lake/t1").Name)
	fmt.Println(held.Release(context.Background()))
	// Output:
	// us-1
	// <nil>
}
