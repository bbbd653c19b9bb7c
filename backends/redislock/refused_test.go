package redislock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// A redisError is an answer of a server.
type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

// Of three servers one refuses for ever, and another starts: a waiter waits for that,
// whichever has answered first.
func TestOneOfSeveralPasses(t *testing.T) {
	const refuses, starts = redisError("NOAUTH Authentication required."), redisError("LOADING Redis is loading the dataset in memory")
	for _, errs := range [][]error{{refuses, starts}, {starts, refuses}} {
		if err := fmt.Errorf("acquire: %w", errors.Join(errs...)); !passes(err) {
			t.Errorf("passes(%q): got false, want true", err)
		}
	}
	if err := errors.Join(refuses, refuses); passes(err) {
		t.Errorf("passes(%q): got true, want false", err)
	}
}

// A counting is a hook of a client that counts the scripts that it is asked for.
type counting struct {
	hold  // for the other methods
	calls atomic.Int32
}

func (c *counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			c.calls.Add(1)
		}
		return next(ctx, cmd)
	}
}

// A server that refuses what it is asked for is not asked again and again to undo it.
func TestDenied(t *testing.T) {
	t.Parallel()
	s := known(t, testserver.Redis(t))
	if err := dial(t, s.Addr).Do(t.Context(), "acl", "setuser", "app", "on", ">secret", "~other*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]string{"wrong": "WRONGPASS", "secret": "NOPERM"} {
		client := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "app", Password: password})
		defer client.Close()
		counted := new(counting)
		client.AddHook(counted)
		l, err := New([]redis.Scripter{client})
		if err != nil {
			t.Fatal(err)
		}
		for name, acquire := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
			"TryAcquire": l.TryAcquire, "Acquire": l.Acquire} {
			counted.calls.Store(0)
			if _, err := acquire(t.Context(), target); !redis.HasErrorPrefix(err, want) || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
			if n := counted.calls.Load(); n != 2 {
				t.Errorf("%s, which is refused with %s: %d calls, want 2: to take the lock, and to free it", name, want, n)
			}
		}
	}
}

// On a server that is full, locks that are held are refreshed, and released.
func TestFull(t *testing.T) {
	t.Parallel()
	_, addrs := several(t, 1)
	l := lockerOn(t, addrs)
	one, two := testserver.Try(t, l, "one"), testserver.Try(t, l, "two", swanlock.WithFence())
	if err := dial(t, addrs[0]).ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.TryAcquire(t.Context(), target); !redis.HasErrorPrefix(err, "OOM") {
		t.Errorf("TryAcquire: got %v, want OOM", err)
	}
	for _, held := range []swanlock.DistributedLock{one, two} {
		if err := held.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		testserver.Release(t, held)
	}
}
