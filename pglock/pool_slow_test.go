package pglock_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// keepsAll checks from another session that the locks are held, and that their
// holders believe it.
func keepsAll(t *testing.T, o observer, locks []swanlock.DistributedLock) {
	t.Helper()
	for _, l := range locks {
		if err := l.Err(); err != nil {
			t.Fatalf("a lock that was in no danger is lost: %v", err)
		}
		o.wantHeld(l.Info().Target, backendOf(l))
	}
}

// TestPoolBehindALockedTable: while another session locks the audit's table,
// audited calls fail after a second, and no lock is lost; the locks are still
// proven and refreshed.
func TestPoolBehindALockedTable(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		p := newPool(t, openDB(t, driver, dbname), pglock.WithAudit(), pglock.WithLogger(nil))
		locks := holdMany(t, p, newTarget(t), 10)
		short := acquired(t, p, newTarget(t), swanlock.WithTTL(6*time.Second), swanlock.WithAutoRefresh())

		tx, err := o.db.BeginTx(bg, nil)
		must(t, err)
		_, err = tx.ExecContext(bg, "LOCK TABLE lock_audit IN ACCESS EXCLUSIVE MODE")
		must(t, err)
		until := time.Now().Add(9 * time.Second)
		var group sync.WaitGroup
		for i := range 4 {
			target := newTarget(t)
			group.Go(func() {
				for time.Now().Before(until) {
					if i == 0 {
						if err := locks[1].Refresh(bg); !errors.Is(err, pglock.ErrAudit) {
							t.Errorf("Refresh: %v, want ErrAudit", err)
						}
						continue
					}
					if _, err := p.TryAcquire(bg, target); !errors.Is(err, pglock.ErrAudit) {
						t.Errorf("TryAcquire: %v, want ErrAudit", err)
					}
				}
			})
		}
		if err := locks[0].Release(bg); !errors.Is(err, pglock.ErrAudit) {
			t.Errorf("Release: %v, want ErrAudit", err)
		}
		o.wantHeld(locks[0].Info().Target)
		group.Wait()
		keepsAll(t, o, append(locks[1:], short))
		must(t, tx.Rollback())
		releaseMany(t, append(locks[1:], short))
	})
}

// TestPoolOfManyBehindALockedTable: many callers at once wait for the locked table no
// longer than one does, so that the session's other locks are refreshed.
func TestPoolOfManyBehindALockedTable(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		p := newPool(t, openDB(t, driver, dbname), pglock.WithAudit(), pglock.WithLogger(nil), pglock.WithMaxSessions(1))
		var kept, freed []swanlock.DistributedLock
		for range 12 {
			kept = append(kept, acquired(t, p, newTarget(t), swanlock.WithTTL(8*time.Second), swanlock.WithAutoRefresh()))
			freed = append(freed, acquired(t, p, newTarget(t), swanlock.WithTTL(8*time.Second)))
			acquired(t, p, newTarget(t), swanlock.WithTTL(8*time.Second)) // It expires.
		}
		tx, err := o.db.BeginTx(bg, nil)
		must(t, err)
		run(t, tx, "LOCK TABLE lock_audit IN ACCESS EXCLUSIVE MODE")
		began := time.Now()
		var calls sync.WaitGroup
		for i := range 12 {
			calls.Go(func() { wantErr(t, "Release", freed[i].Release(bg), pglock.ErrAudit) })
			calls.Go(func() {
				_, err := p.TryAcquire(bg, newTarget(t))
				wantErr(t, "TryAcquire", err, pglock.ErrAudit)
			})
		}
		calls.Wait()
		time.Sleep(time.Until(began.Add(12 * time.Second)))
		keepsAll(t, o, kept)
		for _, l := range freed {
			o.wantHeld(l.Info().Target)
		}
		must(t, tx.Rollback())
		releaseMany(t, kept)
	})
}

// wantErr is wantIs for a goroutine of the test's.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// locksOnOwnServer returns a pool that holds 20 locks without a TTL and one with, on
// a server that is the test's alone.
func locksOnOwnServer(t *testing.T, driver string) (*pgserver.Server, observer, *pglock.Pool, []swanlock.DistributedLock) {
	t.Helper()
	srv := ownServer(t)
	p := newPool(t, openURL(t, driver, srv.URL()), pglock.WithLogger(nil))
	locks := append(holdMany(t, p, newTarget(t), 20), acquired(t, p, newTarget(t), swanlock.WithTTL(20*time.Second)))
	return srv, observer{t, openURL(t, driver, srv.URL())}, p, locks
}

// TestPoolWithoutItsStandby: an acquire whose fence is not confirmed by the
// synchronous standby fails, and says so; no other lock of the session is lost.
func TestPoolWithoutItsStandby(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		_, o, p, locks := locksOnOwnServer(t, driver)
		db := o.db
		run(t, db, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
		run(t, db, "SELECT pg_reload_conf()")
		eventually(t, "a commit waits for the standby", func() bool {
			ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			db.ExecContext(ctx, "SELECT pg_logical_emit_message(true, 'test', '')")
			return time.Since(began) > 250*time.Millisecond
		})

		fenced := newTarget(t)
		if _, err := p.TryAcquire(bg, fenced, swanlock.WithFence()); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a fence that is nowhere but here: %v, want an error that says so", err)
		}
		eventually(t, "what it was for is free", func() bool { return len(o.holders(fenced)) == 0 })
		keepsAll(t, o, locks)
		must(t, acquired(t, p, newTarget(t)).Release(bg)) // without one all is as before
		releaseMany(t, locks)
	})
}

// TestPoolThroughAPause: no lock is lost when the server stands still for 6 s.
func TestPoolThroughAPause(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		srv, o, _, locks := locksOnOwnServer(t, driver)
		resume := pgtest.Pause(t, srv)
		time.Sleep(6 * time.Second)
		resume()
		keepsAll(t, o, locks)
		// A refresh fails, and loses nothing, until the server has answered what it was
		// asked before.
		eventually(t, "the server answers", func() bool { return locks[0].Refresh(bg) == nil })
		for _, l := range locks {
			must(t, l.Refresh(bg))
		}
		releaseMany(t, locks)
	})
}

// TestPoolSettings: a connection that a Pool gives back has the settings that
// it had before, also those that the application itself has made.
func TestPoolSettings(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		settings := func() []string {
			return column[string](t, db, `SELECT name || '=' || setting FROM pg_settings
				WHERE name LIKE 'tcp_keep%' OR name LIKE '%timeout' OR name IN ('client_encoding', 'default_transaction_isolation') ORDER BY name`)
		}
		for _, set := range []string{"lock_timeout = '7s'", "tcp_keepalives_idle = 60", "default_transaction_isolation = 'repeatable read'",
			"idle_session_timeout = '25h'", "idle_in_transaction_session_timeout = '11min'"} {
			run(t, db, "SET "+set)
		}
		before := settings()
		p := newPool(t, db)
		held := acquired(t, p, newTarget(t), swanlock.WithTTL(time.Minute))
		if got := pglock.Setting(held, "tcp_keepalives_idle"); got != "15" {
			t.Errorf("the server looks for a peer that is silent after %q, want 15 s", got)
		}
		must(t, held.Release(bg))
		must(t, p.Close(bg))
		if after := settings(); !slices.Equal(before, after) {
			t.Errorf("the settings were\n%v\nand are after Close\n%v", before, after)
		}
	})
}
