package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPretendedLocks: an engine whose advisory locks exclude nobody is refused before
// it is asked for one. PostgreSQL here answers as those engines do.
func TestPretendedLocks(t *testing.T) {
	t.Parallel()
	const crdb, yb = "pg_catalog.current_setting('crdb_version', true)", "pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true)"
	for _, c := range []struct {
		name    string
		change  []string
		refused string
	}{
		{"CockroachDB", []string{crdb, "'CockroachDB CCL v25.2.1'"}, "CockroachDB"},
		{"CockroachDB, which lacks a function", []string{"pg_catalog.pg_stat_get_activity(", "pg_catalog.no_such_function("}, "lacks"},
		{"YugabyteDB, silent", []string{yb, "'on'"}, "YugabyteDB"},
		{"YugabyteDB with locks", []string{yb, "'off'"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				o := observe(t)
				lockers := map[string]func(db *sql.DB) swanlock.Locker{
					"pool": func(db *sql.DB) swanlock.Locker { return newPool(t, db) },
				}
				for _, by := range acquirers {
					lockers[by.name] = func(db *sql.DB) swanlock.Locker { return by.with(connOf(t, db)) }
				}
				for name, locker := range lockers {
					l, target := locker(changedDB(t, driver, server(t).URL(), c.change...)), newTarget(t)
					ctx, cancel := context.WithTimeout(bg, 3*soon)
					defer cancel()
					for verb, acquire := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){"try": l.TryAcquire, "wait": l.Acquire} {
						held, err := acquire(ctx, target)
						if c.refused == "" {
							must(t, err)
							must(t, held.Release(bg))
							continue
						}
						if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), "leaselock") {
							t.Errorf("%s, %s: got %v, want an error that matches errors.ErrUnsupported and names %q and leaselock", name, verb, err, c.refused)
						}
						o.wantHeld(target)
						o.wantTickets(target, 0)
					}
				}
			})
		})
	}
}

// TestNoAdvisoryLocks: an engine that says that it has no advisory locks is
// refused.
func TestNoAdvisoryLocks(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		schema := evilSchema("no_locks", driver)
		db := evilDB(t, driver, schema, "CREATE FUNCTION "+schema+`.pg_try_advisory_lock(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'ADVISORY LOCKS are not yet implemented' USING ERRCODE = '0A000'; END $$`)
		_, err := pglock.NewSession(connOf(t, db), pglock.WithLogger(nil)).TryAcquire(bg, newTarget(t))
		wantIs(t, err, errors.ErrUnsupported)
	})
}
