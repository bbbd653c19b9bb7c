package redislock

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// A distant is a hook of a client that is far from its server.
type distant struct {
	hold // for the other methods
	d    time.Duration
}

func (h distant) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		time.Sleep(h.d)
		return next(ctx, cmd)
	}
}

func (h distant) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		time.Sleep(h.d)
		return next(ctx, cmds)
	}
}

// A server that always answers, but late, has a vote like any other, also where it is
// the one that decides: another is down, or keeps a vote for somebody that has died.
func TestDistantServerDecides(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, s *testserver.Node){
		"down": func(t *testing.T, s *testserver.Node) { s.Kill() },
		"voted": func(t *testing.T, s *testserver.Node) {
			if err := dial(t, s.Addr).Set(t.Context(), keyOf(target), "x dead", time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers, addrs := several(t, 3)
			far := dial(t, addrs[2])
			far.AddHook(&distant{d: 200 * time.Millisecond})
			l := lockerOn(t, addrs)
			l.servers[2] = newServer(far)
			spoil(t, servers[0])
			held := testserver.Try(t, l, target, swanlock.WithTTL(5*time.Second))
			if err := held.Refresh(t.Context()); err != nil {
				t.Errorf("Refresh: %v", err)
			}
			testserver.Release(t, held)
		})
	}
}
