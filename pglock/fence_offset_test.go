package pglock_test

import (
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestFenceOffset: after a restore into a new cluster, whose transaction ids are low,
// the fences go on above those of the old one once the operator has raised them, in the
// audit's rows too, in every way to ask for one.
func TestFenceOffset(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		old, target := openDB(t, driver), newTarget(t)
		for range 300 { // as it has lived for longer
			run(t, old, "SELECT pg_current_xact_id()")
		}
		s, _ := newSession(t, driver)
		before := acquired(t, s, target, swanlock.WithFence())
		highest := before.Info().Fence
		must(t, before.Release(bg))
		highest += 1_000_000 // as it has lived for longer still

		srv := ownServer(t)
		admin := openURL(t, driver, srv.URL())
		fresh := acquired(t, pglock.NewSession(connOf(t, openURL(t, driver, srv.URL()))), target, swanlock.WithFence())
		if low := fresh.Info().Fence; low >= highest {
			t.Fatalf("the new cluster's fences are not low: %d", low)
		}
		must(t, fresh.Release(bg))
		run(t, admin, "ALTER DATABASE postgres SET swanlock.fence_offset = '2000000'")
		o := observer{t, admin}
		last := highest
		for _, audit := range []bool{false, true} {
			var opts []pglock.SessionOption
			if audit {
				opts = append(opts, pglock.WithAudit())
			}
			s := pglock.NewSession(connOf(t, openURL(t, driver, srv.URL())), opts...)
			for range 2 {
				held := acquired(t, s, target, swanlock.WithFence())
				if got := held.Info().Fence; got <= last {
					t.Errorf("audited %v: fence %d after %d", audit, got, last)
				}
				last = held.Info().Fence
				must(t, held.Release(bg))
			}
		}
		if rows := o.rows(target); len(rows) != 2 || uint64(rows[1].fence) != last {
			t.Errorf("the audit has %+v, want the fence %d", rows, last)
		}
	})
}

// TestFenceOffsetIsNoNumber: an acquire that wants a fence fails then, says
// why, and holds nothing; locks without a fence can still be taken.
func TestFenceOffsetIsNoNumber(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, c := range []struct {
			offset  string
			allowed bool
		}{
			{"", true}, {"0", true}, {"007", true}, {strings.Repeat("9", 18), true},
			{"-1", false}, {"x", false}, {" 1", false}, {"1e3", false}, {strings.Repeat("9", 19), false}, {"1\n", false},
		} {
			for _, audit := range []bool{false, true} {
				o, conn, target := observe(t), dial(t, driver), newTarget(t)
				one[string](t, conn, "SELECT set_config('swanlock.fence_offset', $1, false)", c.offset)
				plain := pglock.NewSession(conn)
				s := plain
				if audit {
					s = pglock.NewSession(conn, pglock.WithAudit())
				}
				held, err := s.TryAcquire(bg, target, swanlock.WithFence())
				if c.allowed {
					must(t, err)
					must(t, held.Release(bg))
					continue
				}
				if err == nil || !strings.Contains(err.Error(), "swanlock.fence_offset") {
					t.Errorf("offset %q, audited %v: got %v", c.offset, audit, err)
				}
				o.wantHeld(target)
				must(t, acquired(t, plain, target).Release(bg))
				must(t, acquired(t, s, target, swanlock.WithShared()).Release(bg))
			}
		}
	})
}
