package pglock_test

import (
	"context"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// The first call after the session's backend was killed.
func TestPoolTryAfterKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		for _, name := range []string{"TryAcquire", "Acquire", "fenced"} {
			t.Run(name, func(t *testing.T) {
				p := newPool(t, openDB(t, drv), pglock.WithHeartbeat(time.Hour))
				l := acquired(t, p, newTarget(t))
				pid := l.BackendPID()
				must(t, l.Release(bg))
				o.kill(pid)
				time.Sleep(20 * time.Millisecond)
				var err error
				var got swanlock.DistributedLock
				switch name {
				case "TryAcquire":
					got, err = p.TryAcquire(bg, newTarget(t))
				case "Acquire":
					got, err = p.Acquire(bg, newTarget(t))
				default:
					got, err = p.TryAcquire(bg, newTarget(t), swanlock.WithFence())
				}
				if err != nil {
					t.Fatalf("the first acquire after the session died: %v", err)
				}
				got.Release(bg)
			})
		}
	})
}

// After a restart every session is dead; there are more than two.
func TestPoolTryAfterKillOfAll(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		p := newPool(t, openDB(t, drv), pglock.WithHeartbeat(time.Hour))
		pids := map[int]bool{}
		locks := holdMany(t, p, newTarget(t), 1000)
		for _, l := range locks {
			pids[backendOf(l)] = true
		}
		releaseMany(t, locks)
		for pid := range pids {
			o.kill(pid)
		}
		if _, err := p.TryAcquire(bg, newTarget(t)); err != nil {
			t.Errorf("with %d dead sessions: %v", len(pids), err)
		}
		ctx, cancel := context.WithTimeout(bg, time.Millisecond)
		defer cancel()
		p.Close(ctx)
	})
}

// A waiter whose waiting session, or ticket's session, is killed.
func TestPoolWaiterSurvivesKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		db := openDB(t, drv)
		p := newPool(t, db, pglock.WithHeartbeat(time.Hour))
		target := newTarget(t)
		other := dial(t, drv)
		run(t, other, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
		got := make(chan error, 1)
		go func() {
			l, err := p.Acquire(shortly(t), target)
			if err == nil {
				l.Release(bg)
			}
			got <- err
		}()
		var pid int
		eventually(t, "it waits", func() bool {
			return o.db.QueryRow("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1 AND classid::bigint << 32 | objid::bigint = $1::bigint", int64(pglock.KeyOf(target))).Scan(&pid) == nil
		})
		o.kill(pid)
		time.Sleep(100 * time.Millisecond)
		run(t, other, "SELECT pg_advisory_unlock($1)", int64(pglock.KeyOf(target)))
		if err := <-got; err != nil {
			t.Errorf("the waiter: %v", err)
		}
	})
}

// A *sql.DB whose idle connection has just been killed.
func TestPoolOpenOnAKilledConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, drv string) {
		o := observe(t)
		db := openDB(t, drv)
		pid := one[int](t, db, "SELECT pg_backend_pid()")
		o.kill(pid)
		time.Sleep(20 * time.Millisecond)
		l, err := newPool(t, db).TryAcquire(bg, newTarget(t))
		if err != nil {
			t.Fatalf("an idle connection of the *sql.DB was dead: %v", err)
		}
		l.Release(bg)
	})
}
