package gocronlock_test

import (
	"context"
	"fmt"
	"time"

	"github.com/go-co-op/gocron/v2"

	gocronlock "github.com/swanlake-io/swanlock/adapters/gocron"
	"github.com/swanlake-io/swanlock/memlock"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	locks := memlock.New() // one for both hosts, as a database would be
	sent := make(chan struct{})

	for range 2 {
		locker := gocronlock.NewLocker(locks, gocronlock.WithHoldAtLeast(time.Minute))
		s, err := gocron.NewScheduler(gocron.WithDistributedLocker(locker))
		if err != nil {
			fmt.Println(err)
			return
		}
		_, err = s.NewJob(gocron.DailyJob(1, gocron.NewAtTimes(gocron.NewAtTime(3, 0, 0))),
			gocron.NewTask(func() {
				fmt.Println("the report is sent")
				close(sent)
			}),
			gocron.WithName("report"), gocron.WithStartAt(gocron.WithStartImmediately()))
		if err != nil {
			fmt.Println(err)
			return
		}
		s.Start()
		defer locker.Close(ctx)
		defer s.Shutdown()
	}
	<-sent
	cancel()
	// Output: the report is sent
}
