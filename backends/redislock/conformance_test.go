package redislock

import (
	"fmt"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/locktest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprintf("N=%d", n), func(t *testing.T) {
			t.Parallel()
			_, addrs := several(t, n)
			opts := []locktest.Option{
				locktest.WithoutShared("a vote has one holder"),
				locktest.KeptAlive("a server that has lost a lock's holder must free it some day"),
				locktest.Pooled("each lock has a token of its own"),
				locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
					for _, addr := range addrs {
						if err := dial(t, addr).Del(t.Context(), keyOf(held.Info().Target)).Err(); err != nil {
							t.Fatal(err)
						}
					}
				}),
			}
			if n == 1 {
				opts = append(opts, locktest.Fair())
			}
			// A machine that stands still for a second is no loss here. But a release that
			// is sent twice does not know whether the lock was held until the first.
			locktest.Run(t, func(t *testing.T) swanlock.Locker { return lockerFor(t, addrs, testserver.Patience) }, opts...)
		})
	}
}
