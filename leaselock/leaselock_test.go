package leaselock_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/leaselock"
	"github.com/swanlake-io/swanlock/locktest"
)

// conforms runs the suite that every locker passes. The lockers use pool, and
// direct is for the suite alone.
func conforms(t *testing.T, pool, direct *sql.DB) {
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return newLocker(t, pool) },
		locktest.ShortTTL(600*time.Millisecond), locktest.Pooled("each lock has a token of its own"),
		locktest.WithoutShared("a row has one holder"),
		locktest.KeptAlive("a row without a lease would outlive its holder"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			_, err := direct.Exec("DELETE FROM lock_leases WHERE key = $1", int64(swanlock.KeyOf(held.Info().Target)))
			must(t, err)
		}))
}

func TestConformance(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			db := open(t, driver, server(t).URL(), nil)
			conforms(t, db, db)
		})
	}
}

// TestIsolation: where a statement fails because the row has changed since it
// began, it is sent again.
func TestIsolation(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		for _, driver := range drivers {
			t.Run(level+" "+driver, func(t *testing.T) {
				t.Parallel()
				db, target := open(t, driver, server(t).URL("default_transaction_isolation="+level), nil), t.Name()
				var inside, fence atomic.Int64
				var wg sync.WaitGroup
				for range 6 {
					wg.Go(func() {
						l := newLocker(t, db)
						for range 10 {
							err := swanlock.Do(bg, l, target, func(_ context.Context, held swanlock.DistributedLock) error {
								if inside.Add(1) != 1 {
									t.Error("two holders")
								}
								if f := int64(held.Info().Fence); f <= fence.Swap(f) {
									t.Error("a fence did not rise")
								}
								inside.Add(-1)
								return nil
							})
							if err != nil {
								t.Error(err)
							}
							if held, err := l.TryAcquire(bg, target); err == nil {
								fence.Store(int64(held.Info().Fence))
								if err := held.Release(bg); err != nil {
									t.Error(err)
								}
							} else if !errors.Is(err, swanlock.ErrNotAcquired) {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// TestNew: what cannot work is refused, and a table that is not there is named.
func TestNew(t *testing.T) {
	db := open(t, "pq", server(t).URL(), nil)
	for name, c := range map[string]struct {
		db   *sql.DB
		opts []leaselock.Option
	}{
		"nil":      {nil, nil},
		"schema":   {db, []leaselock.Option{leaselock.WithSchema("")}},
		"negative": {db, []leaselock.Option{leaselock.WithClockDrift(-time.Second)}},
	} {
		if l, err := leaselock.New(c.db, c.opts...); err == nil || l != nil {
			t.Errorf("%s: got %v, %v", name, l, err)
		}
	}
	start := time.Now()
	_, err := newLocker(t, db, nil, leaselock.WithSchema(`no "such`)).Acquire(bg, "x")
	if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("without a table: got %v", err)
	}
	if time.Since(start) > 10*time.Second {
		t.Error("without a table, Acquire waits")
	}
}

// TestSchema: the table may be in another schema, whatever its name.
func TestSchema(t *testing.T) {
	db := open(t, "pq", server(t).URL(), nil)
	_, err := db.Exec(`CREATE SCHEMA "a ""schema"; CREATE TABLE "a ""schema".lock_leases (LIKE public.lock_leases INCLUDING ALL)`)
	must(t, err)
	l := newLocker(t, db, leaselock.WithSchema(`a "schema`))
	held := mustTry(t, l, "x")
	must(t, mustTry(t, newLocker(t, db), "x").Release(bg)) // another table
	must(t, held.Refresh(bg))
	must(t, held.Release(bg))
}
