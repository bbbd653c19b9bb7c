package gocronlock_test

import (
	"fmt"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"

	"github.com/swanlake-io/swanlock"
	gocronlock "github.com/swanlake-io/swanlock/adapters/gocron"
	"github.com/swanlake-io/swanlock/memlock"
)

func Example() {
	locks := memlock.New() // one for both hosts, as a database would be
	sent, skipped := make(chan struct{}), make(chan struct{})

	for range 2 {
		locker := gocronlock.NewLocker(swanlock.WithMinHold(locks, time.Minute))
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
			gocron.WithName("report"), gocron.WithStartAt(gocron.WithStartImmediately()),
			gocron.WithEventListeners(gocron.AfterLockError(func(uuid.UUID, string, error) { close(skipped) })))
		if err != nil {
			fmt.Println(err)
			return
		}
		s.Start()
		defer s.Shutdown()
	}
	<-sent
	<-skipped // by the other host
	// Output: the report is sent
}
