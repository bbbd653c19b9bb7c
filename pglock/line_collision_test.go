//go:build unix

package pglock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// waiters is each way to wait.
func waiters(t *testing.T, driver string) map[string]swanlock.Locker {
	all := map[string]swanlock.Locker{"pool": newPool(t, openDB(t, driver))}
	for _, by := range acquirers {
		all[by.name] = by.with(dial(t, driver))
	}
	return all
}

// TestLinesApart: targets whose keys are alike in 32 bits, as 117 pairs among a
// million are, have a line each. While a caller waits for one of the two, the
// other, which is free, is granted at once, also to the holder of the first.
func TestLinesApart(t *testing.T) {
	t.Parallel()
	const held, free = "tenant-82771", "tenant-134384" // alike in the 32 bits that were the hash once
	fold := func(target string) int32 { k := pglock.KeyOf(target); return int32(k ^ k>>32) }
	if fold(held) != fold(free) {
		t.Fatal("the targets are not alike")
	}
	if pglock.TicketSpace(held) == pglock.TicketSpace(free) {
		t.Fatal("the targets have one line")
	}
	for _, driver := range drivers { // one after the other: the targets are not the driver's own
		t.Run(driver, func(t *testing.T) {
			for name, l := range waiters(t, driver) {
				t.Run(name, func(t *testing.T) {
					o := observe(t)
					holder := waiters(t, driver)[name]
					h := acquired(t, holder, held)
					got := waitsFor(t, o, shortly(t), l, held)
					other := acquiredIn(t, waiters(t, driver)[name], free)
					must(t, other.Release(bg))
					again := acquiredIn(t, holder, free)
					must(t, again.Release(bg))
					must(t, h.Release(bg))
					must(t, (<-got).get(t).Release(bg))
					o.wantTickets(held, 0)
				})
			}
		})
	}
}

// acquiredIn waits for a lock that is free.
func acquiredIn(t *testing.T, l swanlock.Locker, target string) swanlock.DistributedLock {
	t.Helper()
	held, err := l.Acquire(shortly(t), target)
	must(t, err)
	return held
}

// TestLineShared: two targets whose keys are alike in the upper 46 bits share a
// line, as documented. Nothing but order and time is lost: a try gets a lock
// that is free, and a waiter gets it as soon as the other target's waiters are
// served.
func TestLineShared(t *testing.T) {
	t.Parallel()
	const held, free = "tenant-6072144", "tenant-9397561"
	if pglock.TicketSpace(held) != pglock.TicketSpace(free) || pglock.KeyOf(held) == pglock.KeyOf(free) {
		t.Fatal("the targets have no line in common")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			o := observe(t)
			holder, _ := newSession(t, driver)
			h := acquired(t, holder, held)
			waiter, _ := newSession(t, driver)
			got := waitsFor(t, o, shortly(t), waiter, held)
			other, _ := newSession(t, driver)
			must(t, acquired(t, other, free).Release(bg))
			blocker, _ := newSession(t, driver)
			b := acquired(t, blocker, free)
			behind := waitsFor(t, o, shortly(t), other, free)
			must(t, b.Release(bg)) // it is free, but somebody waits for the other
			select {
			case out := <-behind:
				t.Fatalf("the lines are apart after all: mend the documentation (%v)", out.err)
			case <-time.After(300 * time.Millisecond):
			}
			must(t, h.Release(bg))
			must(t, (<-got).get(t).Release(bg))
			must(t, (<-behind).get(t).Release(bg))
			o.wantTickets(held, 0)
		})
	}
}

// TestLineOutOfNumbers: a caller that comes when a line's last number is taken
// gives up its wait in time, leaves nothing, and does not overtake the line.
func TestLineOutOfNumbers(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, l := range waiters(t, driver) {
			t.Run(name, func(t *testing.T) {
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				last := dial(t, driver)
				class, slot := pglock.Slots(target, pglock.LastNumber-3) // the last that is given has three above it
				run(t, last, "SELECT pg_advisory_lock($1, $2), pg_advisory_lock_shared($1, $2 - $3::integer)", class, slot, pglock.LastNumber-3)
				ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
				defer cancel()
				if _, err := l.Acquire(ctx, target); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				o.wantTickets(target, 1)
				if got := o.numbers(target); got[0] != pglock.LastNumber-3 {
					t.Errorf("the number is %v", got)
				}
				run(t, last, "SELECT pg_advisory_unlock_all()")
				must(t, held.Release(bg))
				must(t, acquiredIn(t, l, target).Release(bg))
			})
		}
	})
}
