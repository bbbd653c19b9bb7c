package redislock

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// A bomb is a hook that panics while it is armed.
type bomb struct {
	hold  // for the other methods
	armed atomic.Bool
}

func (b *bomb) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if b.armed.Load() {
			panic("a hook")
		}
		return next(ctx, cmd)
	}
}

func (b *bomb) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if b.armed.Load() {
			panic("a hook")
		}
		return next(ctx, cmds)
	}
}

// A hook of the client that panics fails the calls that it was to send, alone and
// together, and does not end the program.
func TestClientPanics(t *testing.T) {
	t.Parallel()
	client := dial(t, known(t, testserver.Redis(t)).Addr)
	b := &bomb{}
	client.AddHook(b)
	l, err := New([]redis.Scripter{client})
	if err != nil {
		t.Fatal(err)
	}
	held := testserver.Try(t, l, target)
	b.armed.Store(true)
	var calls sync.WaitGroup
	for range 40 {
		calls.Go(func() {
			_, err := l.TryAcquire(t.Context(), "another", swanlock.WithFence())
			if err == nil || !strings.Contains(err.Error(), "panicked: a hook") {
				t.Errorf("TryAcquire: got %v, want the panic", err)
			}
		})
	}
	calls.Wait()
	b.armed.Store(false)
	if err := held.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh: %v", err)
	}
	testserver.Release(t, held)
	testserver.Release(t, testserver.Try(t, l, "another"))
}
