package locktest

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenDeadlines = []brokenLocker{
	{name: "no deadline", caughtBy: []string{"Deadline", "DeadlineMovesOn"}, backend: sessions(
		deadlines(func(swanlock.DistributedLock) (time.Time, bool) { return time.Time{}, false }))},
	{name: "a deadline without a TTL", caughtBy: []string{"DeadlineWithoutTTL"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) { d, _ := held.Deadline(); return d, true }))},
	{name: "a deadline that is later than the lock's end", caughtBy: []string{"Deadline"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) {
			d, ok := held.Deadline()
			return d.Add(held.Info().TTL / 16), ok
		}))},
	{name: "a deadline that is always a TTL away", caughtBy: []string{"Deadline"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) {
			ttl := held.Info().TTL
			return time.Now().Add(ttl), ttl > 0
		}))},
	{name: "a deadline that runs out before its time", caughtBy: []string{"Deadline", "DeadlineMovesOn"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) {
			d, ok := held.Deadline()
			return d.Add(-held.Info().TTL), ok
		}))},
	{name: "a deadline that no refresh moves", caughtBy: []string{"Deadline", "DeadlineMovesOn"}, backend: sessions(
		deadlines(func(held swanlock.DistributedLock) (time.Time, bool) {
			i := held.Info()
			return i.AcquiredAt.Add(i.TTL), i.TTL > 0
		}))},
	{name: "a deadline that only Refresh moves", caughtBy: []string{"DeadlineMovesOn"}, backend: sessions(refreshedBy(
		func(err error) bool { return err == nil }))},
	{name: "a deadline that a refresh cut short moves", caughtBy: []string{"Deadline"}, backend: sessions(refreshedBy(
		func(error) bool { return true }))},
}

// deadlines breaks what a lock says of its deadline.
func deadlines(change func(held swanlock.DistributedLock) (time.Time, bool)) breaker {
	return locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
		return brokenLock{deadline: func() (time.Time, bool) { return change(held) }}
	})
}

// refreshedBy has a deadline that goes by the last Refresh whose error counts.
func refreshedBy(counts func(error) bool) breaker {
	return locks(func(held swanlock.DistributedLock, _ *memlock.Locker) brokenLock {
		i := held.Info()
		start := i.AcquiredAt
		return brokenLock{
			refresh: func(ctx context.Context) error {
				err := held.Refresh(ctx)
				if counts(err) {
					start = time.Now()
				}
				return err
			},
			deadline: func() (time.Time, bool) { return start.Add(i.TTL), i.TTL > 0 },
		}
	})
}
