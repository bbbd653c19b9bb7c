package locktest

import "github.com/swanlake-io/swanlock"

var fenceCases = []testCase{
	{
		name:  "FenceRises",
		why:   "storage refuses writes whose fence is lower than one it has seen; a fence that repeats or falls lets a late writer through, or refuses the right one",
		needs: []feature{fence},
		run: func(e *env) {
			lockers, target := []swanlock.Locker{e.locker(), e.locker(), e.locker()}, e.target()
			var last uint64
			next := func(how string, held swanlock.DistributedLock) {
				e.Helper()
				if got := held.Info().Fence; got <= last {
					e.Errorf("fence of a lock %s: got %d, want more than %d", how, got, last)
				} else {
					last = got
				}
			}
			for i := range 6 {
				held := e.mustTry(lockers[i%3], target, swanlock.WithFence())
				next("by try", held)
				wait := e.start(e.ctx, lockers[(i+1)%3], target, swanlock.WithFence())
				if i%2 == 0 {
					e.pause()
				}
				e.mustRelease(held)
				waited := e.mustGet(wait)
				next("by Acquire, asked for while it was held", waited)
				e.mustRelease(waited)
				unasked := e.mustTry(lockers[(i+2)%3], target)
				if unasked.Info().Fence != 0 {
					next("by a try that asked for none", unasked)
				}
				e.mustRelease(unasked)
			}
		},
	},
	{
		name: "UnsupportedIsRefused",
		why:  "a caller that asked for a TTL, a fence or a reader's lock and silently got none relies on a protection that is not there",
		run: func(e *env) {
			for f, opts := range map[feature][]swanlock.Option{
				ttl:         {swanlock.WithTTL(e.ttl)},
				autoRefresh: {swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh()},
				fence:       {swanlock.WithFence()},
				shared:      {swanlock.WithShared()},
			} {
				if !e.lacks(f) {
					continue
				}
				e.Logf("without %s: %s", f, e.without[f])
				a, b, target := e.locker(), e.locker(), e.target()
				e.unsupported(a, target, opts...)
				e.free("after an option was refused", b, target)
				held := e.mustTry(a, target)
				e.holds("acquired without the option", held, b)
				e.mustRelease(held)
			}
		},
	},
}
