//go:build unix

package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestLineIsNotJumped: who has waited for a lock and wants it again goes to the
// end of the line, also when the lock is free just then because he who is next
// was not told yet: a poller, here.
func TestLineIsNotJumped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, kind := range []string{"session", "pool"} {
			t.Run(kind, func(t *testing.T) {
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				var again swanlock.Locker = pglock.NewSession(connOf(t, openDB(t, driver)))
				if kind == "pool" {
					p, err := pglock.NewPool(openDB(t, driver))
					must(t, err)
					t.Cleanup(func() { p.Close(bg) })
					again = p
				}
				ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
				defer cancel()
				if _, err := again.Acquire(ctx, target); err == nil {
					t.Fatal("the lock was held")
				}
				o.wantTickets(target, 0)
				next := waitsFor(t, o, shortly(t), pglock.NewSession(connOf(t, openDB(t, driver)), pglock.WithPolling()), target)
				time.Sleep(600 * time.Millisecond) // until it looks only four times a second
				must(t, held.Release(bg))
				after := make(chan outcome, 1)
				go func() {
					held, err := again.Acquire(shortly(t), target)
					after <- outcome{held, err}
				}()
				select {
				case out := <-next:
					must(t, out.get(t).Release(bg))
				case out := <-after:
					t.Error("who came last was served first")
					must(t, out.get(t).Release(bg))
					must(t, (<-next).get(t).Release(bg))
					return
				}
				must(t, (<-after).get(t).Release(bg))
			})
		}
	})
}
