package swanlock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/multilock"
)

func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		is := func(ctx context.Context, target string, want error) {
			t.Helper()
			if err := swanlock.Held(ctx, target); !errors.Is(err, want) {
				t.Errorf("Held(%q): got %v, want %v", target, err, want)
			}
		}
		var inside context.Context
		is(t.Context(), "/a", swanlock.ErrNotAcquired)
		err := swanlock.Do(t.Context(), l, "/a", func(ctx context.Context, _ swanlock.DistributedLock) error {
			inside = ctx
			is(ctx, "/a", nil)
			is(ctx, "a/", nil) // another spelling
			is(ctx, "/b", swanlock.ErrNotAcquired)
			return swanlock.Do(ctx, l, "/b", func(ctx context.Context, b swanlock.DistributedLock) error {
				is(ctx, "/a", nil)
				is(ctx, "/b", nil)
				l.Lose("/a", errCause)
				is(ctx, "/a", errCause)
				is(ctx, "/a", swanlock.ErrLost)
				is(ctx, "/b", nil)
				return nil
			})
		})
		if !errors.Is(err, swanlock.ErrLost) {
			t.Error(err)
		}
		is(inside, "/a", swanlock.ErrLost)

		held := mustAcquire(t, l, swanlock.WithTTL(time.Minute))
		ctx, cancel := swanlock.WithLock(t.Context(), held)
		cancel()
		is(ctx, "t", nil) // the context has ended, and the lock is held
		time.Sleep(time.Minute)
		is(ctx, "t", swanlock.ErrExpired)

		// A lock taken anew inside the context of one that was lost.
		again := mustAcquire(t, l)
		ctx, cancel = swanlock.WithLock(ctx, again)
		defer cancel()
		is(ctx, "t", nil)
		if err := again.Release(ctx); err != nil {
			t.Error(err)
		}
		is(ctx, "t", swanlock.ErrReleased)
	})
}

// TestHeldOfSeveral: a multilock holds each of its targets, and no other, also
// through what wraps it.
func TestHeldOfSeveral(t *testing.T) {
	l := swanlock.WithMinHold(pairs{memlock.New()}, time.Nanosecond)
	err := swanlock.Do(t.Context(), l, "/a /b", func(ctx context.Context, held swanlock.DistributedLock) error {
		for target, want := range map[string]error{"/a": nil, "b/": nil, "/c": swanlock.ErrNotAcquired, held.Info().Target: swanlock.ErrNotAcquired} {
			if err := swanlock.Held(ctx, target); !errors.Is(err, want) {
				t.Errorf("Held(%q): got %v, want %v", target, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// pairs locks the words of its target, with multilock.
type pairs struct{ l swanlock.Locker }

func (p pairs) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return multilock.TryAcquire(ctx, p.l, strings.Fields(target), opts...)
}

func (p pairs) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return multilock.Acquire(ctx, p.l, strings.Fields(target), opts...)
}
