package locktest

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/memlock"
)

// Lockers on a server that lends each lock for a time of its own.
var (
	keptAlive = sessions(lent(func(ttl time.Duration) time.Duration { return ttl }), KeptAlive("no lock without a lease"))
	late      = pools(lent(func(ttl time.Duration) time.Duration { return 2 * ttl }),
		KeptAlive("no lock without a lease"), ShortTTL(10*time.Second), FreesLate(2, "twice the TTL"))
)

var brokenLeases = []brokenLocker{
	{name: "no deadline of what is kept alive", caughtBy: []string{"DeadlineWithoutTTL"}, backend: sessions(nil, KeptAlive("it is not"))},
	{name: "rounds TTLs down", caughtBy: []string{"DeadlineOfAnOddTTL"}, backend: sessions(
		lent(func(ttl time.Duration) time.Duration { return ttl.Truncate(100 * time.Millisecond) }), KeptAlive("no lock without a lease"))},
	{name: "frees at twice the TTL", caughtBy: []string{"Deadline"}, backend: sessions(
		lent(func(ttl time.Duration) time.Duration { return 2 * ttl }), KeptAlive("no lock without a lease"), ShortTTL(10*time.Second))},
	{name: "an auto-refresh that does not look at its answers", caughtBy: []string{"AutoRefreshSeesLoss"}, backend: sessions(acquires(blindly))},
}

// blindly has locks that count as held while they are refreshed in the background,
// whatever comes of that.
func blindly(next funcLocker, _ *memlock.Locker) funcLocker {
	return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
		held, err := next(ctx, wait, target, opts)
		o, _ := swanlock.NewOptions(target, opts...)
		if err != nil || !o.AutoRefresh {
			return held, err
		}
		released, over := context.WithCancel(context.Background())
		return brokenLock{
			DistributedLock: held,
			done:            released.Done,
			deadline:        func() (time.Time, bool) { return time.Now().Add(o.TTL), true },
			err: func() error {
				if released.Err() == nil {
					return nil
				}
				return swanlock.ErrReleased
			},
			release: func(ctx context.Context) error {
				defer over()
				return held.Release(ctx)
			},
		}, nil
	}
}

// lent has a server that keeps a lock for what keeps makes of its TTL.
func lent(keeps func(ttl time.Duration) time.Duration) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			o, err := swanlock.NewOptions(target, opts...)
			if err != nil {
				return nil, err
			}
			ttl := o.TTL
			if ttl == 0 {
				ttl = time.Minute
			}
			held, err := next(ctx, wait, target, append(opts[:len(opts):len(opts)],
				func(o *swanlock.Options) { o.TTL, o.AutoRefresh = keeps(ttl), false }))
			if err != nil {
				return nil, err
			}
			r := lease.Request{Package: "lent", Target: target, Options: o, Backend: onServer{held}, Lease: ttl}
			l, err := lease.Granted(ctx, r, held.Info().AcquiredAt, held.Info().Fence)
			if err != nil {
				return nil, err
			}
			return l, nil
		}
	})
}

type onServer struct{ swanlock.DistributedLock }

func (s onServer) Release(ctx context.Context) (held bool, err error) {
	return s.DistributedLock.Release(ctx) == nil, nil
}
