package pglock_test

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// The readers of a pool's session are one lock to the server, which the first
// takes and the last frees. A statement that fails, before or after it has done
// so, does no harm to the other readers, nor to the session's other locks.
func TestPoolReadersAreOneLock(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"} {
		for _, moment := range []string{"before", "after"} {
			oneLock := func(t *testing.T, driver string) {
				o := observe(t)
				schema := evilSchema("readers_"+function+"_"+moment, driver)
				first, then := "RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';", "PERFORM pg_catalog."+function+"(k);"
				if moment == "after" {
					first, then = then, first
				}
				db := evilDB(t, driver, schema, `CREATE FUNCTION `+schema+`.`+function+`(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
					BEGIN
						IF nextval('`+schema+`.calls') = 1 THEN `+first+then+` END IF;
						RETURN pg_catalog.`+function+`(k);
					END $$`)
				p, target := newPool(t, db, pglock.WithHeartbeat(time.Hour)), newTarget(t)
				var others, readers []*pglock.PostgresLock
				for range 5 {
					others = append(others, acquired(t, p, newTarget(t)))
				}
				for range 5 {
					l, err := p.TryAcquire(bg, target, swanlock.WithShared())
					if err == nil {
						readers = append(readers, l.(*pglock.PostgresLock))
					}
				}
				want, calls := 5, 2 // The release is sent again, if the first was not done.
				if function == "pg_try_advisory_lock_shared" {
					want = 4
				}
				if len(readers) != want {
					t.Fatalf("%d readers were granted the lock, want %d", len(readers), want)
				}
				pid := backendOf(others[0])
				for i, l := range readers {
					o.wantHeld(target, pid)
					must(t, l.Err())
					if err := l.Release(bg); err != nil {
						t.Errorf("release of reader %d: %v", i, err)
					}
				}
				o.wantHeld(target)
				if got := one[int](t, o.db, "SELECT last_value FROM "+schema+".calls"); got != calls {
					t.Errorf("got %d calls of %s, want %d", got, function, calls)
				}
				for _, l := range others {
					o.wantHeld(l.Info().Target, pid)
					must(t, l.Release(bg))
				}
				must(t, acquired(t, p, target).Release(bg))
			}
			t.Run(function+" "+moment, func(t *testing.T) { eachDriver(t, oneLock) })
		}
	}
}

// A reader is not granted what its session has for other readers while a writer
// waits, with a ticket or in the server's queue, and readers that leave tell what
// the server says.
func TestPoolReadersAndWriters(t *testing.T) {
	eachAudit(t, func(t *testing.T, driver, param string, o observer, opts ...pglock.PoolOption) {
		target := newTarget(t)
		p := newPool(t, openDB(t, driver, param), append(opts, pglock.WithHeartbeat(time.Hour))...)
		first := acquired(t, p, target, swanlock.WithShared())
		second := acquired(t, p, target, swanlock.WithShared())
		writer := dial(t, driver, param)
		done := make(chan error, 1)
		go func() {
			_, err := writer.ExecContext(bg, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
			done <- err
		}()
		eventually(t, "a writer waits", func() bool {
			return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))")
		})
		_, err := p.TryAcquire(bg, target, swanlock.WithShared())
		wantIs(t, err, swanlock.ErrNotAcquired)
		must(t, first.Release(bg))
		o.wantHeld(target, backendOf(second))
		must(t, second.Release(bg))
		must(t, <-done)
		_, err = writer.ExecContext(bg, "SELECT pg_advisory_unlock_all()")
		must(t, err)

		lost := []*pglock.PostgresLock{acquired(t, p, target, swanlock.WithShared()), acquired(t, p, target, swanlock.WithShared())}
		must(t, pglock.SabotageShared(lost[0]))
		for _, l := range lost {
			wantIs(t, l.Release(bg), swanlock.ErrLost)
		}
		if opts != nil {
			o.wantReasons(target, "released", "released", "lost", "lost")
		}
	})
}

// A reader whose TTL ends does not end the lock of the session's other readers.
func TestPoolReaderExpiresAlone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour), pglock.WithMaxSessions(1), pglock.WithLogger(nil))
		lasting := acquired(t, p, target, swanlock.WithShared(), swanlock.WithTTL(time.Minute))
		brief := acquired(t, p, target, swanlock.WithShared(), swanlock.WithTTL(time.Minute))
		pglock.Expire(brief)
		wantIs(t, ended(t, brief), swanlock.ErrExpired)
		must(t, lasting.Refresh(bg)) // A statement later, what has expired is settled.
		eventually(t, "what has expired is given up", func() bool { return p.Reserved() == 1 })
		o.wantHeld(target, backendOf(lasting))
		wantIs(t, brief.Release(bg), swanlock.ErrExpired)
		must(t, lasting.Release(bg))
		o.wantHeld(target)
	})
}
