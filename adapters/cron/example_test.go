package cronlock_test

import (
	"context"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/swanlake-io/swanlock"
	cronlock "github.com/swanlake-io/swanlock/adapters/cron"
	"github.com/swanlake-io/swanlock/memlock"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	locks := memlock.New() // one for both hosts, as a database would be
	sent := make(chan struct{})

	for range 2 {
		once := cronlock.OneHost(swanlock.WithMinHold(locks, time.Minute), "/jobs/report", cronlock.WithContext(ctx))
		c := cron.New()
		_, err := c.AddJob("@every 1s", cron.NewChain(cron.Recover(cron.DefaultLogger), once).Then(cronlock.Job(func(ctx context.Context) {
			fmt.Println("the report is sent") // and stops if ctx ends
			close(sent)
		})))
		if err != nil {
			fmt.Println(err)
			return
		}
		c.Start()
		defer c.Stop()
	}
	<-sent
	cancel()
	// Output: the report is sent
}
