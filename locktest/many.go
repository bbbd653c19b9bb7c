package locktest

import (
	"sync"

	"github.com/swanlake-io/swanlock"
)

var manyCases = []testCase{
	{
		name: "ManyPairs",
		why:  "a release that leaves something behind now and then, or returns before it has freed, keeps everybody out until a TTL ends, perhaps for ever",
		run: func(e *env) {
			lockers := []swanlock.Locker{e.locker(), e.locker(), e.locker()}
			target := e.target()
			for i := range 60 {
				held, err := e.try(lockers[i%len(lockers)], target)
				if err != nil {
					e.Fatalf("TryAcquire after %d pairs by %d lockers, each of which has released: %v", i, len(lockers), err)
				}
				e.mustRelease(held)
			}
		},
	},
	{
		name: "TriesAtOnce",
		why:  "many hosts try at the same second, by cron; if none gets the lock because each met another's half-made claim, the job does not run at all",
		run: func(e *env) {
			const n = 8
			var lockers []swanlock.Locker
			for range n {
				lockers = append(lockers, e.locker())
			}
			for range 5 {
				target, begin := e.target(), make(chan struct{})
				got := make([]swanlock.DistributedLock, n)
				var wg sync.WaitGroup
				for i, l := range lockers {
					wg.Go(func() {
						<-begin
						held, err := e.try(l, target)
						if err != nil {
							e.is("one of many tries at once", err, swanlock.ErrNotAcquired)
							return
						}
						got[i] = held
					})
				}
				close(begin)
				wg.Wait()
				winners := 0
				for _, held := range got {
					if held != nil {
						winners++
						e.mustRelease(held)
					}
				}
				if winners != 1 {
					e.Fatalf("%d lockers tried the same target at once: %d got it, want 1", n, winners)
				}
			}
		},
	},
}
