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

// wantSound checks that in the whole audit no exclusive interval of a key overlaps
// another one, and that each key's fences rise.
func (o observer) wantSound() {
	o.t.Helper()
	if n := one[int](o.t, o.db, `SELECT count(*) FROM lock_audit a JOIN lock_audit b USING (key)
		WHERE a.id <> b.id AND 'exclusive' IN (a.mode, b.mode) AND a.acquired_at < b.acquired_at AND COALESCE(a.released_at, 'infinity') > b.acquired_at`); n != 0 {
		o.t.Errorf("%d pairs of intervals overlap", n)
	}
	if n := one[int](o.t, o.db, `SELECT count(*) FROM (SELECT fence, max(fence) OVER (PARTITION BY key ORDER BY acquired_at, id
		ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM lock_audit WHERE mode = 'exclusive') f WHERE fence <= before`); n != 0 {
		o.t.Errorf("%d fences do not rise", n)
	}
}

// Acquires of all kinds, and releases, share one statement, and each caller gets
// its own answer: with a fence, a row with its very texts, as a reader.
func TestPoolBatchOfAllKinds(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		for name, opts := range map[string][]pglock.PoolOption{"plain": nil, "audited": {pglock.WithAudit()}} {
			t.Run(name, func(t *testing.T) {
				o := o.in(t)
				p := newPool(t, openDB(t, driver, param), append(opts, pglock.WithHeartbeat(time.Hour))...)
				audited := opts != nil
				taken := acquired(t, pglock.NewSession(dial(t, driver, param)), newTarget(t))
				first := acquired(t, p, newTarget(t), swanlock.WithFence())
				leaving := []*pglock.PostgresLock{acquired(t, p, newTarget(t)), acquired(t, p, newTarget(t), swanlock.WithShared())}
				room := newTarget(t)
				reader := acquired(t, p, room, swanlock.WithShared())
				odd := newTarget(t) + ` "it's", {a\b}, NULL, žluť ` + "\n\t"
				calls := []struct {
					target, owner string
					opts          []swanlock.Option
				}{
					{odd, `o"\{}`, nil},
					{newTarget(t), "NULL", []swanlock.Option{swanlock.WithTTL(time.Minute)}},
					{newTarget(t), "fenced", []swanlock.Option{swanlock.WithFence()}},
					{newTarget(t), "reader", []swanlock.Option{swanlock.WithShared()}},
					{room, "joins", []swanlock.Option{swanlock.WithShared()}},
					{room, "joins too", []swanlock.Option{swanlock.WithShared()}},
					{taken.Info().Target, "late", nil},
				}
				together := newTarget(t)
				calls = append(calls, calls[3], calls[3])
				calls[7].target, calls[8].target = together, together

				batches := p.Stats().Batches
				give := pglock.HoldTurn(first)
				var wg sync.WaitGroup
				locks := make([]swanlock.DistributedLock, len(calls))
				for i, call := range calls {
					wg.Go(func() {
						l, err := p.TryAcquire(bg, call.target, append(call.opts, swanlock.WithOwner(call.owner))...)
						if call.owner == "late" {
							if !errors.Is(err, swanlock.ErrNotAcquired) {
								t.Errorf("a lock that another session holds: got %v", err)
							}
							return
						}
						if err != nil {
							t.Errorf("%q: %v", call.target, err)
							return
						}
						locks[i] = l
					})
				}
				for _, l := range leaving {
					wg.Go(func() {
						if err := l.Release(bg); err != nil {
							t.Error(err)
						}
					})
				}
				time.Sleep(200 * time.Millisecond)
				give()
				wg.Wait()
				if t.Failed() {
					return
				}
				// The one with a TTL has a session of its own, and one op may have been sent before the others came.
				if got := p.Stats().Batches - batches; got > 2 {
					t.Errorf("got %d batches for what came together, want one or two", got)
				}
				for i, l := range locks {
					if l == nil {
						continue
					}
					mode := map[bool]string{true: "ShareLock", false: "ExclusiveLock"}[l.Info().Shared]
					if got := o.locks(calls[i].target); len(got) != 1 || got[backendOf(l)] != mode {
						t.Errorf("%q, held by %d: the server says %v", calls[i].target, backendOf(l), got)
					}
					if want := calls[i].owner == "fenced" || audited && !l.Info().Shared; (l.Info().Fence > first.Info().Fence) != want {
						t.Errorf("%q: got the fence %d after %d", calls[i].target, l.Info().Fence, first.Info().Fence)
					}
					if !audited {
						continue
					}
					rows := o.rows(calls[i].target)
					found := false
					for _, r := range rows {
						found = found || r.owner == calls[i].owner && r.target == calls[i].target && r.reason == "" && r.pid == backendOf(l) &&
							r.ttlMs == l.Info().TTL.Milliseconds() && (r.fence == int64(l.Info().Fence) || r.mode == "shared" && r.fence == -1) &&
							(r.mode == "shared") == l.Info().Shared
					}
					if !found {
						t.Errorf("%q of %q: the audit says %+v", calls[i].target, calls[i].owner, rows)
					}
				}
				give = pglock.HoldTurn(first)
				for _, l := range append(locks, reader) {
					if l != nil {
						wg.Go(func() {
							if err := l.Release(bg); err != nil {
								t.Error(err)
							}
						})
					}
				}
				time.Sleep(100 * time.Millisecond)
				give()
				wg.Wait()
				must(t, first.Release(bg))
				must(t, taken.Release(bg))
				for _, call := range calls {
					o.wantHeld(call.target)
					if audited && call.owner != "late" {
						for _, r := range o.rows(call.target) {
							if r.reason != "released" || r.released.Before(r.acquired) {
								t.Errorf("%q: the audit says %+v", call.target, r)
							}
						}
					}
				}
				o.wantSound()
			})
		}
	})
}

// What the server refuses to write for one caller fails for that caller alone.
func TestPoolBatchRefusesOne(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		_, err := o.db.ExecContext(bg, "ALTER TABLE lock_audit ADD CHECK (owner <> 'nobody')")
		must(t, err)
		p := newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour))
		first, left := acquired(t, p, newTarget(t)), acquired(t, p, newTarget(t))
		give := pglock.HoldTurn(first)
		var wg sync.WaitGroup
		for i := range 8 {
			owner, target := fmt.Sprint(i), newTarget(t)
			if i == 3 {
				owner = "nobody"
			}
			wg.Go(func() {
				l, err := p.TryAcquire(bg, target, swanlock.WithOwner(owner))
				if i == 3 {
					if !errors.Is(err, pglock.ErrAudit) {
						t.Errorf("the one that the table refuses: got %v, want ErrAudit", err)
					}
					o.wantHeld(target)
					return
				}
				if err == nil {
					o.wantHeld(target, backendOf(l))
					err = l.Release(bg)
				}
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
				o.wantReasons(target, "released")
			})
		}
		wg.Go(func() {
			if err := left.Release(bg); err != nil {
				t.Error(err)
			}
			o.wantReasons(left.Info().Target, "released")
		})
		time.Sleep(100 * time.Millisecond)
		give()
		wg.Wait()
		must(t, first.Release(bg))
		o.wantSound()
	})
}

// Refreshes that come together are one statement, and each row says so.
func TestPoolRefreshesTogether(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		p := newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour))
		target := newTarget(t)
		locks := holdMany(t, p, target, 10)
		must(t, locks[0].Refresh(bg)) // It prepares the statement.
		trips := p.Stats().RoundTrips
		give := pglock.HoldTurn(locks[0])
		var wg sync.WaitGroup
		for _, l := range locks {
			wg.Go(func() {
				if err := l.Refresh(bg); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		give()
		wg.Wait()
		if got := p.Stats().RoundTrips - trips; got > 2 {
			t.Errorf("got %d round trips for ten refreshes, want one or two", got)
		}
		for i := range locks {
			if rows := o.rows(fmt.Sprintf("%s/%d", target, i)); len(rows) != 1 || !rows[0].refreshed.After(rows[0].acquired) {
				t.Errorf("lock %d: the audit says %+v", i, rows)
			}
		}
		must(t, pglock.Sabotage(locks[3])) // One that is lost fails alone.
		for i, l := range locks {
			if err := l.Refresh(bg); errors.Is(err, swanlock.ErrLost) != (i == 3) {
				t.Errorf("lock %d: got %v", i, err)
			}
		}
		for i, l := range locks {
			if err := l.Release(bg); errors.Is(err, swanlock.ErrLost) != (i == 3) {
				t.Errorf("release of lock %d: got %v", i, err)
			}
		}
		o.wantReasons(target+"/3", "lost")
	})
}

// Pools on several sessions contend for a few keys with large batches: each key's
// fences rise, and no two intervals overlap. The fences are compared by those who
// hold the locks.
func TestPoolFencesRiseInBatches(t *testing.T) {
	grants := 2000
	if testing.Short() {
		grants = 500
	}
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		for name, opts := range map[string][]pglock.PoolOption{"fenced": nil, "audited": {pglock.WithAudit()}} {
			t.Run(name, func(t *testing.T) {
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
				o.in(t).wantSound()
				if n := one[int](t, o.db, "SELECT count(*) FROM lock_audit WHERE end_reason <> 'released' OR released_at IS NULL"); n != 0 {
					t.Errorf("%d rows were not closed by their releases", n)
				}
			})
		}
	})
}

// The readers of a pool's session are one lock to the server, which the first
// takes and the last frees. A statement that fails, before or after it has done
// so, does no harm to the other readers, nor to the session's other locks.
func TestPoolReadersAreOneLock(t *testing.T) {
	for _, function := range []string{"pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"} {
		for _, moment := range []string{"before", "after"} {
			eachDriver(t, func(t *testing.T, driver string) {
				o := observe(t)
				schema := fmt.Sprintf("readers_%s_%s_%s", function, moment, driver)
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
			})
		}
	}
}

// A reader is not granted what its session has for other readers while a writer
// waits, with a ticket or in the server's queue, and readers that leave tell what
// the server says.
func TestPoolReadersAndWriters(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		for name, opts := range map[string][]pglock.PoolOption{"plain": nil, "audited": {pglock.WithAudit()}} {
			t.Run(name, func(t *testing.T) {
				o, target := o.in(t), newTarget(t)
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
		stop := make(chan struct{})
		var killer, wg sync.WaitGroup
		killer.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.IntN(40)) * time.Millisecond):
				}
				for _, pid := range o.holders(name(rand.IntN(targets))) {
					if rand.IntN(10) == 0 {
						kills.Add(1)
						o.kill(pid)
					} else {
						one[bool](t, o.db, "SELECT pg_cancel_backend($1::int)", pid)
					}
				}
			}
		})
		for range 16 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					i, p := rand.IntN(targets), pools[rand.IntN(len(pools))]
					ctx, cancel := context.WithTimeout(bg, time.Duration(rand.IntN(40_000))*time.Microsecond)
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
		close(stop)
		killer.Wait()
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
		if granted.Load() < 20 {
			t.Error("the storm was a breeze")
		}
	})
}
