package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

var concurrencyCases = []testCase{
	{
		name: "Storm",
		why:  "whatever order of grants, cancels and releases the scheduler finds, two holders at once corrupt what the lock guards",
		run:  storm,
	},
	{
		name: "OneLockManyGoroutines",
		why:  "a lock is watched by one goroutine, refreshed by another and released by a third",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for e.ctx.Err() == nil {
						if err := held.Refresh(e.ctx); err != nil {
							e.is("Refresh beside Release", err, swanlock.ErrReleased)
							e.isNot("Refresh beside Release", err, swanlock.ErrLost)
							return
						}
						time.Sleep(time.Millisecond)
					}
				})
				wg.Go(func() {
					for held.Err() == nil && held.Info().Target == target {
						time.Sleep(time.Millisecond)
					}
				})
				wg.Go(func() {
					select {
					case <-held.Done():
					case <-e.ctx.Done():
					}
					e.is("Err beside Release", held.Err(), swanlock.ErrReleased)
				})
				wg.Go(func() {
					time.Sleep(30 * time.Millisecond)
					if err := held.Release(e.ctx); err != nil {
						e.Errorf("one of three Releases at once: got %v, want nil", err)
					}
				})
			}
			wg.Wait()
			e.free("after three Releases at once", b, target)
		},
	},
	{
		name: "OneLockerManyGoroutines",
		why:  "a program has one locker and many goroutines; calls that share a session must not get each other's answers",
		run: func(e *env) {
			a, b, one := e.locker(), e.locker(), e.target()
			const n = 8
			var mu sync.Mutex
			var won, own []swanlock.DistributedLock
			begin := make(chan struct{})
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					<-begin
					held, err := e.try(a, one)
					if err != nil {
						e.is("one of many tries at once", err, swanlock.ErrNotAcquired)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					won = append(won, held)
				})
				wg.Go(func() {
					<-begin
					held, err := e.try(a, e.target())
					if err != nil {
						e.Errorf("a target of one's own, many at once: %v", err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					own = append(own, held)
				})
			}
			close(begin)
			wg.Wait()
			if len(won) != 1 {
				e.Fatalf("%d goroutines tried the same target: %d got it, want 1", n, len(won))
			}
			for _, held := range append(own, won...) {
				e.holds("acquired among others", held, b)
			}
			for _, held := range append(own, won...) {
				wg.Go(func() {
					if err := held.Release(e.ctx); err != nil {
						e.Errorf("one of many Releases at once: %v", err)
					}
				})
			}
			wg.Wait()
			for _, held := range append(own, won...) {
				e.free("released among others", b, held.Info().Target)
			}
		},
	},
}

// storm lets several lockers fight for one target, giving up now and then. The
// goroutines share nothing else, not even a context: its mutex would order
// them for the race detector.
func storm(e *env) {
	const workers, rounds = 6, 40
	target, end := e.target(), time.Now().Add(3*time.Second)
	var counter, lastFence uint64 // guarded by the lock alone
	var grants [workers]uint64
	var wg sync.WaitGroup
	for w := range workers {
		l := e.locker()
		rng := rand.New(rand.NewPCG(uint64(w), rand.Uint64()))
		nap := func(most time.Duration) { time.Sleep(time.Duration(1 + rng.Int64N(int64(most)))) }
		wg.Go(func() {
			// On a slow backend the time may be over before anybody was granted the lock.
			for round := 0; round < rounds && (grants[w] == 0 || time.Now().Before(end)); round++ {
				nap(2 * time.Millisecond)
				limit := patience
				if rng.IntN(3) == 0 {
					limit = time.Duration(1 + rng.Int64N(int64(5*time.Millisecond)))
				}
				var opts []swanlock.Option
				reader := !e.lacks(shared) && rng.IntN(4) == 0
				if reader {
					opts = append(opts, swanlock.WithShared())
				} else if !e.lacks(fence) {
					opts = append(opts, swanlock.WithFence())
				}
				acquire := l.Acquire
				if rng.IntN(5) == 0 {
					acquire = l.TryAcquire
				}
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				held, err := acquire(ctx, target, opts...)
				switch {
				case err == nil && reader:
					before := counter
					nap(time.Millisecond)
					if counter != before {
						e.Errorf("a writer wrote while a reader held the lock")
					}
				case err == nil:
					if f := held.Info().Fence; !e.lacks(fence) {
						if f <= lastFence {
							e.Errorf("fence: got %d after %d, want a higher one", f, lastFence)
						}
						lastFence = f
					}
					before := counter
					nap(time.Millisecond)
					counter = before + 1
					grants[w]++
				case !errors.Is(err, swanlock.ErrNotAcquired) && !errors.Is(err, context.DeadlineExceeded):
					e.Errorf("in the storm: got %v, want a lock or ErrNotAcquired", err)
				case limit == patience && errors.Is(err, context.DeadlineExceeded):
					e.Errorf("in the storm: nothing was granted for %v", limit)
				}
				if err == nil {
					if rng.IntN(2) == 0 {
						cancel()
					}
					if err := held.Release(ctx); err != nil {
						e.Errorf("in the storm: Release: %v", err)
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	var want uint64
	for _, n := range grants {
		want += n
	}
	if counter != want {
		e.Errorf("%d increments under the lock left the counter at %d", want, counter)
	}
	if want == 0 {
		e.Errorf("nobody was granted the lock in the whole storm")
	}
	e.free("after the storm", e.locker(), target)
}
