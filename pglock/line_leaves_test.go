package pglock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestWaiterLeavesWhileItAsks: a caller leaves while its session is asked whether
// it holds the target itself, as it does by then. Its place in line goes, too.
func TestWaiterLeavesWhileItAsks(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target := newTarget(t)
		other, _ := newSession(t, driver)
		s, conn := newSession(t, driver, pglock.WithPolling())
		space := pglock.TicketSpace(target)
		o, pid := observe(t), pidOf(t, conn)
		tickets := func() int {
			return one[int](t, o.db, `SELECT count(*) FROM pg_locks k WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.mode = 'ExclusiveLock'
				AND ((k.classid::bigint << 32) | k.objid::bigint) & -262144 = $1::bigint AND k.pid = $2`, space, pid)
		}
		quicker := errors.New("the waiter has had the lock")
		for n := 0; ; n++ {
			if n == 20 {
				t.Fatal("the waiter was always quicker")
			}
			held := acquired(t, other, target)
			ctx, cancel := context.WithCancel(bg)
			waited := make(chan error, 1)
			go func() {
				l, err := s.Acquire(ctx, target)
				if err == nil {
					err = errors.Join(quicker, l.Release(bg))
				}
				waited <- err
			}()
			eventually(t, "it has its place", func() bool {
				select {
				case err := <-waited:
					t.Fatalf("it does not wait: %v", err)
				default:
				}
				return tickets() == 1
			})
			time.Sleep(time.Second) // By now it looks seldom.
			must(t, held.Release(bg))
			own, err := s.TryAcquire(bg, target)
			if err != nil { // The waiter has the lock.
				cancel()
				<-waited
				continue
			}
			slow := make(chan error, 1)
			go func() {
				_, err := conn.ExecContext(bg, "SELECT pg_sleep(1.2)")
				slow <- err
			}()
			time.Sleep(500 * time.Millisecond) // The waiter's question waits for the owner's statement.
			cancel()
			err = <-waited
			must(t, <-slow)
			must(t, own.Release(bg))
			if errors.Is(err, swanlock.ErrAlreadyHeld) || errors.Is(err, quicker) { // It has asked before.
				continue
			}
			wantIs(t, err, swanlock.ErrNotAcquired, context.Canceled)
			eventually(t, "the place is given up", func() bool { return tickets() == 0 })
			return
		}
	})
}

// TestWaiterLeavesBehindRows: a caller leaves while Rows are open on its connection,
// so that its place cannot be given up. The next call on the session does that.
func TestWaiterLeavesBehindRows(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				target := newTarget(t)
				param, o := auditDatabase(t)
				other := pglock.NewSession(dial(t, driver, param))
				conn := dial(t, driver, param)
				s := by.with(conn)
				tickets := func() int {
					return one[int](t, o.db, `SELECT count(*) FROM pg_locks k WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.mode = 'ExclusiveLock'
				AND ((k.classid::bigint << 32) | k.objid::bigint) & -262144 = $1::bigint`, pglock.TicketSpace(target))
				}
				busy := acquired(t, s, newTarget(t)) // So the waiter looks from time to time.
				held := acquired(t, other, target)
				ctx, cancel := context.WithCancel(bg)
				waited := make(chan error, 1)
				go func() {
					_, err := s.Acquire(ctx, target)
					waited <- err
				}()
				eventually(t, "it has its place", func() bool { return tickets() == 1 })
				rows, err := conn.QueryContext(bg, "SELECT generate_series(1, 1000000)")
				must(t, err)
				if !rows.Next() {
					t.Fatal(rows.Err())
				}
				cancel()
				wantIs(t, <-waited, swanlock.ErrNotAcquired, context.Canceled)
				rows.Close()
				must(t, busy.Refresh(bg))
				eventually(t, "the place is given up", func() bool { return tickets() == 0 })
				must(t, busy.Release(bg))
				must(t, held.Release(bg))
			})
		}
	})
}
