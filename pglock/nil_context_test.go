package pglock_test

import (
	"context"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestNilContext: a nil context is the caller's mistake, and panics. If the caller
// recovers, as net/http does, nothing has changed by it.
func TestNilContext(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		panics := func(what string, f func(ctx context.Context)) {
			t.Helper()
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic", what)
				}
			}()
			f(nil)
		}
		o, pool := observe(t), newPool(t, openDB(t, driver))
		session, _ := newSession(t, driver)
		other, _ := newSession(t, driver)
		for name, l := range map[string]swanlock.Locker{"Pool": pool, "Session": session} {
			target := newTarget(t)
			held := acquired(t, l, target)
			panics(name+".TryAcquire", func(ctx context.Context) { l.TryAcquire(ctx, newTarget(t)) })
			panics(name+".Acquire", func(ctx context.Context) { l.Acquire(ctx, newTarget(t)) })
			panics(name+".Refresh", func(ctx context.Context) { held.Refresh(ctx) })
			panics(name+".Release", func(ctx context.Context) { held.Release(ctx) })
			must(t, held.Err())
			must(t, held.Release(bg))
			o.wantSoonFree(target)
		}

		target := newTarget(t)
		held := acquired(t, other, target)
		ctx, cancel := context.WithCancel(bg)
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			pool.Acquire(ctx, target)
		}()
		o.wantTickets(target, 1)
		panics("Acquire in line", func(ctx context.Context) { pool.Acquire(ctx, target) })
		cancel()
		<-waited
		must(t, held.Release(bg))
		eventually(t, "the pool holds nothing", func() bool { return pool.Stats().Used == 0 && pool.Stats().Waiters == 0 })

		held = acquired(t, session, target)
		panics("Session.Close", func(ctx context.Context) { session.Close(ctx) })
		must(t, held.Err())
		must(t, session.Close(bg))
		o.wantSoonFree(target)
		panics("Pool.Close", func(ctx context.Context) { pool.Close(ctx) })
		_, err := pglock.AcquireTx(bg, nil, target)
		if err == nil {
			t.Error("a lock of no transaction")
		}
	})
}
