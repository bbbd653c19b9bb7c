package pglock_test

import (
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestFenceRises with each exclusive grant, whichever session, driver and
// statement it comes from, and whether or not others asked for a fence. Fact 9.
func TestFenceRises(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	var lockers []swanlock.Locker
	for _, driver := range drivers {
		for _, by := range acquirers {
			lockers = append(lockers, by.with(dial(t, driver)))
		}
	}
	last := uint64(0)
	for i := range 60 {
		opts := []swanlock.Option{swanlock.WithFence()}
		if i%2 == 0 {
			opts = append(opts, swanlock.WithTTL(time.Minute))
		}
		l := lockers[(i*7+3)%len(lockers)]
		must(t, acquired(t, l, target).Release(bg))
		held := acquired(t, l, target, opts...)
		if fence := held.Info().Fence; fence <= last {
			t.Fatalf("fence %d came after %d", fence, last)
		}
		last = held.Info().Fence
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		if held.Info().Fence != last {
			t.Error("the fence changed after the grant")
		}
	}
}

// TestFenceInTransaction: the id of a transaction that has one is older than
// the grant, so a fence is refused there. Without an id yet, or without a fence,
// the lock is granted. Fact 9.
func TestFenceInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			for _, ttl := range []time.Duration{0, time.Minute} {
				t.Run(by.name+" "+ttl.String(), func(t *testing.T) {
					o, conn := observe(t), dial(t, driver)
					l, target := by.with(conn), newTarget(t)
					other := acquired(t, acquirers[0].with(dial(t, driver)), newTarget(t), swanlock.WithFence())

					run(t, conn, "BEGIN")
					held := acquired(t, l, target, swanlock.WithFence(), swanlock.WithTTL(ttl))
					if held.Info().Fence <= other.Info().Fence {
						t.Errorf("fence %d in a new transaction, after %d", held.Info().Fence, other.Info().Fence)
					}
					second := newTarget(t)
					_, err := l.TryAcquire(bg, second, swanlock.WithFence(), swanlock.WithTTL(ttl)) // the first fence was the id
					wantIs(t, err, pglock.ErrFenceInTransaction)
					if errors.Is(err, swanlock.ErrNotAcquired) {
						t.Errorf("got %v, which matches ErrNotAcquired: nobody holds the lock", err)
					}
					o.wantHeld(second)
					unfenced := acquired(t, l, second, swanlock.WithTTL(ttl))
					if unfenced.Info().Fence != 0 {
						t.Errorf("got fence %d, older than the grant", unfenced.Info().Fence)
					}
					must(t, unfenced.Release(bg))
					must(t, held.Release(bg))
					run(t, conn, "ROLLBACK")
					must(t, acquired(t, l, second, swanlock.WithFence(), swanlock.WithTTL(ttl)).Release(bg))
					o.wantHeld(second)
				})
			}
		}
	})
}

// TestFenceOfSharedIsRefused: a shared lock with a fence is refused with an
// error.
func TestFenceOfSharedIsRefused(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			l := by.with(dial(t, driver))
			_, err := l.TryAcquire(bg, newTarget(t), swanlock.WithShared(), swanlock.WithFence())
			wantIs(t, err, errors.ErrUnsupported)
			held := acquired(t, l, newTarget(t), swanlock.WithShared())
			if held.Info().Fence != 0 {
				t.Errorf("a shared lock has fence %d", held.Info().Fence)
			}
			must(t, held.Release(bg))
		}
	})
}

// TestLockShared: readers hold together, and no writer with them.
func TestLockShared(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			o, target := observe(t), newTarget(t)
			a, b := by.with(dial(t, driver)), by.with(dial(t, driver))
			first := acquired(t, a, target, swanlock.WithShared())
			second := acquired(t, b, target, swanlock.WithShared())
			o.wantHeld(target, first.BackendPID(), second.BackendPID())
			writer := by.with(dial(t, driver))
			_, err := writer.TryAcquire(bg, target)
			wantIs(t, err, swanlock.ErrNotAcquired)
			must(t, first.Release(bg))
			_, err = writer.TryAcquire(bg, target)
			wantIs(t, err, swanlock.ErrNotAcquired)
			must(t, second.Refresh(bg))
			must(t, second.Release(bg))
			held := acquired(t, writer, target)
			_, err = a.TryAcquire(bg, target, swanlock.WithShared())
			wantIs(t, err, swanlock.ErrNotAcquired)
			must(t, held.Release(bg))
			o.wantHeld(target)
		}
	})
}
