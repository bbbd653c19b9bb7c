package pglock_test

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// slowWAL keeps what no commit waits for from the disk, so that a crash loses
// it. Otherwise only a crash within milliseconds would.
var slowWAL = []pgserver.Option{pgserver.WithSetting("wal_writer_delay", "10s"), pgserver.WithSetting("bgwriter_delay", "10s")}

// An each is what one driver does in one of the ways to acquire.
type each struct {
	name, driver string
	by           acquirer
	target       string
	held         *pglock.PostgresLock
}

// everyWay is all of them, those with an audit last: their commits take the fences that were given before to the disk.
func everyWay(t *testing.T) (ways []*each) {
	for _, by := range acquirers {
		for _, driver := range drivers {
			ways = append(ways, &each{name: driver + " " + by.name, driver: driver, by: by, target: newTarget(t)})
		}
	}
	return ways
}

// TestFenceAfterCrash: no fence is given twice, though the server crashes right after the grant.
func TestFenceAfterCrash(t *testing.T) {
	t.Parallel()
	srv, all := ownServer(t, slowWAL...), everyWay(t)
	unaudited := len(all) - len(drivers)
	for _, ways := range [][]*each{all[:unaudited], all[unaudited:]} {
		for range 3 {
			for _, way := range ways {
				held := acquired(t, way.by.with(connOf(t, openURL(t, way.driver, srv.URL()))), way.target, swanlock.WithFence())
				if way.held != nil && held.Info().Fence <= way.held.Info().Fence {
					t.Errorf("%s: fence %d after fence %d and a crash", way.name, held.Info().Fence, way.held.Info().Fence)
				}
				way.held = held
			}
			must(t, srv.Restart(bg, pgserver.Immediate))
			for _, way := range ways {
				wantIs(t, way.held.Refresh(bg), swanlock.ErrLost)
			}
		}
	}
}

// TestServerFailover: locks are not replicated. When the standby takes over, the old primary's holders learn that theirs are
// lost, and the next may have them at once. Fences go on rising if replication is synchronous; if the standby was behind,
// the new primary gives those again that it had not heard of, as the documentation says.
func TestServerFailover(t *testing.T) {
	t.Parallel()
	for _, replication := range []string{"synchronous", "behind"} {
		t.Run(replication, func(t *testing.T) {
			t.Parallel()
			primary := ownServer(t)
			standby := pgtest.StandbyOf(t, primary)
			old, promoted := openURL(t, "postgres", primary.URL()), openURL(t, "postgres", standby.URL())
			streams := func() bool {
				return one[int](t, old, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 1
			}
			eventually(t, "the standby streams", streams)
			if replication == "synchronous" {
				run(t, old, "ALTER SYSTEM SET synchronous_standby_names = '*'")
				one[bool](t, old, "SELECT pg_reload_conf()")
				eventually(t, "it is synchronous", func() bool {
					return one[int](t, old, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
				})
			} else {
				run(t, promoted, "ALTER SYSTEM SET primary_conninfo = ''")
				one[bool](t, promoted, "SELECT pg_reload_conf()")
				eventually(t, "the standby is cut off", func() bool { return !streams() })
			}

			ways := everyWay(t)
			for _, way := range slices.Backward(ways) {
				_, err := way.by.with(connOf(t, openURL(t, way.driver, standby.URL()))).TryAcquire(bg, way.target)
				if !errors.Is(err, pglock.ErrStandby) && !errors.Is(err, pglock.ErrAudit) {
					t.Errorf("%s: got %v on the standby, want ErrStandby", way.name, err)
				}
				way.held = acquired(t, way.by.with(connOf(t, openURL(t, way.driver, primary.URL()))), way.target,
					swanlock.WithFence(), swanlock.WithTTL(time.Minute))
			}
			must(t, pgtest.Signal(primary, syscall.SIGQUIT)) // immediate
			one[bool](t, promoted, "SELECT pg_promote()")

			rises := true
			for _, way := range ways {
				next := acquired(t, way.by.with(connOf(t, openURL(t, way.driver, standby.URL()))), way.target, swanlock.WithFence())
				if got, was := next.Info().Fence, way.held.Info().Fence; got <= was {
					rises = false
					t.Logf("%s: fence %d on the new primary, after %d on the old", way.name, got, was)
				}
				ctx, cancel := context.WithTimeout(bg, soon)
				wantIs(t, way.held.Refresh(ctx), swanlock.ErrLost)
				wantIs(t, way.held.Release(ctx), swanlock.ErrLost)
				cancel()
				wantIs(t, ended(t, way.held), swanlock.ErrLost)
			}
			if rises != (replication == "synchronous") {
				t.Errorf("fences rise: %t", rises)
			}
		})
	}
}
