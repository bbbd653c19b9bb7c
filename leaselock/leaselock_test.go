package leaselock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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
		locktest.ShortTTL(1500*time.Millisecond), locktest.Pooled("each lock has a token of its own"),
		locktest.WithoutShared("a row has one holder"),
		locktest.KeptAlive("a row without a lease would outlive its holder"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			_, err := direct.Exec("DELETE FROM lock_leases WHERE key = $1", int64(swanlock.KeyOf(held.Info().Target)))
			must(t, err)
		}))
}

func TestConformance(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

// TestClockDrift: a lock whose TTL ran out is free that much later, and its holder
// knows nothing of it.
func TestClockDrift(t *testing.T) {
	t.Parallel()
	const ttl, drift = 3 * time.Second, 3 * time.Second
	l := newLocker(t, open(t, "pq", server(t).URL(), nil), leaselock.WithClockDrift(drift))
	start := time.Now()
	held := mustTry(t, l, t.Name(), swanlock.WithTTL(ttl))
	if deadline, _ := held.Deadline(); deadline.Before(start.Add(ttl)) || deadline.After(time.Now().Add(ttl)) {
		t.Errorf("the deadline is %v after the request, want the TTL", deadline.Sub(start))
	}
	next, err := l.Acquire(bg, t.Name())
	must(t, err)
	if took := time.Since(start); took < ttl+drift {
		t.Errorf("free after %v, want it after the TTL and the drift", took)
	}
	is(t, held.Release(bg), swanlock.ErrExpired) // Until here it must not be found to be dropped.
	must(t, next.Release(bg))
}

// TestTryInVain: a try in vain writes nothing, so that waiters cost the server's
// disk nothing.
func TestTryInVain(t *testing.T) {
	db := open(t, "pq", server(t).URL(), nil)
	l := newLocker(t, db)
	held := mustTry(t, l, t.Name(), swanlock.WithTTL(time.Minute))
	row := func() string {
		return one[string](t, db, "SELECT format('%s %s %s', ctid, xmin, xmax) FROM lock_leases WHERE key = $1", int64(swanlock.KeyOf(t.Name())))
	}
	before := row()
	_, err := l.TryAcquire(bg, t.Name())
	is(t, err, swanlock.ErrNotAcquired)
	if after := row(); after != before {
		t.Errorf("ctid, xmin, xmax: %s before a try in vain, %s after", before, after)
	}
	must(t, held.Release(bg))
}

// TestPrune: rows of old locks go, those that are held stay, and fences go on
// rising.
func TestPrune(t *testing.T) {
	db := open(t, "pq", server(t).URL(), nil)
	_, err := db.Exec(`CREATE SCHEMA prune; CREATE TABLE prune.lock_leases (LIKE public.lock_leases INCLUDING ALL)`)
	must(t, err)
	l := newLocker(t, db, leaselock.WithSchema("prune"))
	held, old := mustTry(t, l, "held", swanlock.WithTTL(time.Minute)), mustTry(t, l, "old")
	must(t, old.Release(bg))
	_, err = db.Exec("UPDATE prune.lock_leases SET ends_at = now() - interval '1 s' WHERE target = 'old'")
	must(t, err)
	if n, err := l.Prune(bg, time.Minute); n != 0 || err != nil {
		t.Errorf("Prune of what is a minute old: %d, %v", n, err)
	}
	if n, err := l.Prune(bg, 0); n != 1 || err != nil {
		t.Errorf("Prune: %d, %v, want 1", n, err)
	}
	if _, err := l.Prune(bg, -time.Second); err == nil {
		t.Error("Prune of what ends in the future: no error")
	}
	must(t, held.Refresh(bg))
	must(t, held.Release(bg))
	again := mustTry(t, l, "old")
	if again.Info().Fence <= old.Info().Fence {
		t.Errorf("fence %d after %d and Prune", again.Info().Fence, old.Info().Fence)
	}
	must(t, again.Release(bg))
}

// TestClosedDB: nobody waits for a *sql.DB that is closed.
func TestClosedDB(t *testing.T) {
	t.Parallel()
	db := open(t, "pq", server(t).URL(), nil)
	held := mustTry(t, newLocker(t, db), t.Name())
	must(t, db.Close())
	for what, f := range map[string]func() error{
		"Release":    func() error { return held.Release(bg) },
		"TryAcquire": func() error { _, err := newLocker(t, db).TryAcquire(bg, t.Name()); return err },
	} {
		began := time.Now()
		if err := f(); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("%s after %v: %v", what, time.Since(began), err)
		}
	}
}

// TestSerializableStrangers: where all transactions are serializable, those of locks that
// have nothing in common may be taken back. Each is sent again, also a refresh and a
// release.
func TestSerializableStrangers(t *testing.T) {
	t.Parallel()
	srv := ownServer(t)
	direct := open(t, "pq", srv.URL(), nil)
	for _, d := range drivers {
		db := open(t, d, srv.URL("default_transaction_isolation=serializable"), nil)
		l := newLocker(t, db)
		for n := range 8 {
			must(t, mustTry(t, l, fmt.Sprint(t.Name(), n)).Release(bg))
		}
		_, err := direct.Exec("ANALYZE public.lock_leases") // A scan of so small a table reads all rows.
		must(t, err)
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				for range 50 {
					held, err := l.TryAcquire(bg, fmt.Sprint(t.Name(), n))
					if err != nil {
						t.Errorf("%s: TryAcquire of a target that nobody else uses: %v", d, err)
						continue
					}
					if err := held.Refresh(bg); err != nil {
						t.Errorf("%s: Refresh: %v", d, err)
					}
					if err := held.Release(bg); err != nil {
						t.Errorf("%s: Release: %v", d, err)
					}
				}
			})
		}
		all.Wait()
	}
}
