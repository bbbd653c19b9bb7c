package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// Pools on several sessions contend for a few keys with large batches: each key's
// fences rise, and no two intervals overlap. The fences are compared by those who
// hold the locks.
func TestPoolFencesRiseInBatches(t *testing.T) {
	grants := 2000
	if testing.Short() {
		grants = 500
	}
	eachAudit(t, func(t *testing.T, driver, param string, o observer, opts ...pglock.PoolOption) {
		target := newTarget(t)
		const keys = 24
		var seen [keys]atomic.Uint64
		var held [keys]atomic.Int32
		var granted atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			// Each unlock takes a moment, in which others take and release the keys that are asked for next.
			db := changedDB(t, driver, pgtest.WithParams(t, server(t).URL(), param), "ELSE pg_catalog.pg_advisory_unlock(k.key) END",
				"ELSE pg_catalog.pg_sleep(0.0003) IS NOT NULL AND pg_catalog.pg_advisory_unlock(k.key) END")
			p := newPool(t, db, opts...)
			for range 12 {
				wg.Go(func() {
					for int(granted.Load()) < grants && !t.Failed() {
						i := rand.IntN(keys)
						l, err := p.TryAcquire(bg, fmt.Sprintf("%s/%d", target, i), swanlock.WithFence())
						if errors.Is(err, swanlock.ErrNotAcquired) {
							continue
						}
						if err != nil {
							t.Error(err)
							return
						}
						granted.Add(1)
						if n := held[i].Add(1); n != 1 {
							t.Errorf("%d hold key %d", n, i)
						}
						if before := seen[i].Swap(l.Info().Fence); before >= l.Info().Fence {
							t.Errorf("key %d: the fence %d came after %d", i, l.Info().Fence, before)
						}
						held[i].Add(-1)
						if err := l.Release(bg); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		wg.Wait()
		o.wantSound()
		if n := one[int](t, o.db, "SELECT count(*) FROM lock_audit WHERE end_reason <> 'released' OR released_at IS NULL"); n != 0 {
			t.Errorf("%d rows were not closed by their releases", n)
		}
	})
}

// Acquires with rows and fences of all kinds, cancelled, expired and killed,
// leave a sound audit.
func TestPoolAuditedStorm(t *testing.T) {
	tries := 2000
	if testing.Short() {
		tries = 200
	}
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		pools := []*pglock.Pool{
			newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(100*time.Millisecond)),
			newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(100*time.Millisecond), pglock.WithMaxWaiters(1)),
		}
		target := newTarget(t)
		name := func(i int) string { return fmt.Sprintf("%s/%d", target, i) }
		const targets = 4
		var left, granted, kills atomic.Int32
		left.Store(int32(tries))
		breeze, start := func() bool { return granted.Load() < 20 }, time.Now()
		stop := o.harass(40*time.Millisecond, func() string { return name(rand.IntN(targets)) }, &kills)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for most := 40 * time.Millisecond; ; {
					if left.Add(-1) < 0 {
						if !breeze() || time.Since(start) > 3*soon {
							break
						}
						most = time.Second // on a busy machine less is too short for a grant
					}
					i, p := rand.IntN(targets), pools[rand.IntN(len(pools))]
					ctx, cancel := context.WithTimeout(bg, rand.N(most))
					var opts []swanlock.Option
					if rand.IntN(4) == 0 {
						opts = append(opts, swanlock.WithTTL(time.Duration(30+rand.IntN(50))*time.Millisecond))
					}
					if rand.IntN(4) == 0 {
						opts = append(opts, swanlock.WithShared())
					}
					acquire := p.Acquire
					if rand.IntN(3) == 0 {
						acquire = p.TryAcquire
					}
					l, err := acquire(ctx, name(i), opts...)
					cancel()
					if err != nil {
						if errors.Is(err, swanlock.ErrLost) || strings.Contains(err.Error(), "answered") {
							t.Errorf("an acquire: %v", err)
						}
						continue
					}
					granted.Add(1)
					switch rand.IntN(10) {
					case 0:
						time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
					case 1:
						l.Refresh(bg)
					}
					before := l.Err()
					holders := o.locks(name(i))
					if after := l.Err(); before == nil && after == nil && !l.Info().Shared && len(holders) > 1 {
						t.Errorf("%s: an exclusive lock has holders %v", name(i), holders)
					}
					l.Release(bg)
				}
			})
		}
		wg.Wait()
		stop()
		for i := range targets {
			o.wantSoonFree(name(i))
			o.wantTickets(name(i), 0)
			l, err := pools[0].Acquire(shortly(t), name(i)) // Its row closes those of the dead.
			must(t, err)
			must(t, l.Release(bg))
		}
		o.wantSound()
		if n := one[int](t, o.db, "SELECT count(*) FROM lock_audit WHERE released_at IS NULL"); n != 0 {
			t.Errorf("%d rows are still open", n)
		}
		t.Logf("%d tries, %d granted, %d sessions killed", tries, granted.Load(), kills.Load())
		if breeze() {
			t.Error("the storm was a breeze")
		}
	})
}
