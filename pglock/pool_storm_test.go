package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// Many locks are spread over sessions, the server's table is never filled, and
// the error says so while new connections are still possible.
func TestPoolTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		srv, err := pgserver.Start(bg, pgserver.WithSetting("max_connections", "100"), pgserver.WithSetting("max_locks_per_transaction", "200"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { srv.Stop() })
		db := openURL(t, driver, srv.URL())
		p := newPool(t, db)
		target := newTarget(t)
		locks := holdMany(t, p, target, 10_000)
		pids := make(map[int]int)
		for _, l := range locks {
			pids[backendOf(l)]++
		}
		if len(pids) > 25 || db.Stats().InUse > 25 {
			t.Errorf("got 10,000 locks on %d sessions and %d connections, want 25 at most", len(pids), db.Stats().InUse)
		}
		if _, err := p.TryAcquire(bg, target+"/more"); !errors.Is(err, pglock.ErrPoolFull) {
			t.Errorf("one more: got %v, want ErrPoolFull", err)
		}
		if err := db.PingContext(bg); err != nil {
			t.Errorf("a new connection: %v", err)
		}
		releaseMany(t, locks)
		if l, err := p.TryAcquire(bg, target+"/more"); err != nil {
			t.Errorf("after the release: %v", err)
		} else {
			l.Release(bg)
		}
	})
}

// Cancellations, deadlines, short TTLs and killed sessions leave nothing held,
// and never give two holders; the holder is read from another session.
func TestPoolStorm(t *testing.T) {
	tries := 5000
	if testing.Short() {
		tries = 500
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		pools := []*pglock.Pool{
			newPool(t, openDB(t, driver), pglock.WithHeartbeat(100*time.Millisecond)),
			newPool(t, openDB(t, driver), pglock.WithHeartbeat(100*time.Millisecond), pglock.WithMaxWaiters(1)),
		}
		target := newTarget(t)
		name := func(i int) string { return fmt.Sprintf("%s/%d", target, i) }
		const targets = 4
		var granted, shared, left, expired, kills atomic.Int32
		left.Store(int32(tries))
		breeze := func() bool { return granted.Load() < 20 || shared.Load() == 0 || kills.Load() == 0 }
		stop := o.harass(20*time.Millisecond, func() string { return name(rand.IntN(targets)) }, &kills)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				start, most := time.Now(), 20*time.Millisecond
				for left.Add(-1) >= 0 || breeze() && time.Since(start) < 3*soon {
					if left.Load() < 0 {
						most = time.Second // on a busy machine less is too short for a grant
					}
					i, p := rand.IntN(targets), pools[rand.IntN(len(pools))]
					var ctx context.Context
					var cancel context.CancelFunc
					if rand.IntN(2) == 0 {
						ctx, cancel = context.WithTimeout(bg, rand.N(most))
					} else {
						ctx, cancel = context.WithCancel(bg)
						time.AfterFunc(rand.N(most), cancel)
					}
					var opts []swanlock.Option
					if rand.IntN(3) == 0 {
						opts = append(opts, swanlock.WithTTL(time.Duration(30+rand.IntN(50))*time.Millisecond))
					}
					reader := rand.IntN(4) == 0
					if reader {
						opts = append(opts, swanlock.WithShared())
					}
					acquire := p.Acquire
					if rand.IntN(3) == 0 {
						acquire = p.TryAcquire
					}
					l, err := acquire(ctx, name(i), opts...)
					cancel()
					if err != nil {
						if errors.Is(err, swanlock.ErrLost) {
							t.Errorf("an acquire was lost: %v", err)
						}
						continue
					}
					granted.Add(1)
					if reader {
						shared.Add(1)
					}
					if rand.IntN(10) == 0 {
						time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) // some expire
					}
					// The server's word counts only if the lock was held before and after.
					before := l.Err()
					holders := o.locks(name(i))
					if after := l.Err(); before == nil && after == nil {
						if mode, ok := holders[backendOf(l)]; !ok && kills.Load() == 0 || mode != "" && (mode == "ShareLock") != reader {
							t.Errorf("%s: held by %v, not by %d", name(i), holders, backendOf(l))
						}
						if !reader && len(holders) > 1 {
							t.Errorf("%s: an exclusive lock has holders %v", name(i), holders)
						}
					}
					if err := l.Release(bg); errors.Is(err, swanlock.ErrExpired) {
						expired.Add(1)
					}
				}
			})
		}
		wg.Wait()
		stop()
		for i := range targets {
			o.wantSoonFree(name(i))
			o.wantTickets(name(i), 0)
		}
		for i := range targets { // and both pools are as good as new
			for _, p := range pools {
				l, err := p.Acquire(shortly(t), name(i))
				must(t, err)
				must(t, l.Release(bg))
			}
		}
		t.Logf("%d tries, %d granted, %d to readers, %d expired, %d sessions killed", tries, granted.Load(), shared.Load(), expired.Load(), kills.Load())
		if breeze() {
			t.Error("the storm was a breeze")
		}
	})
}

// harass cancels, again and again, what the sessions that hold a target are doing,
// or ends them. It pauses for less than pause in between, until stop is called, and
// counts the sessions that it has ended.
func (o observer) harass(pause time.Duration, target func() string, kills *atomic.Int32) (stop func()) {
	stopped := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-stopped:
				return
			case <-time.After(rand.N(pause)):
			}
			for _, pid := range o.holders(target()) {
				if rand.IntN(10) == 0 {
					kills.Add(1)
					o.kill(pid)
				} else { // whatever it is doing fails, and may have been done
					one[bool](o.t, o.db, "SELECT pg_cancel_backend($1::int)", pid)
				}
			}
		}
	})
	return func() {
		close(stopped)
		done.Wait()
	}
}

func holdMany(t testing.TB, p *pglock.Pool, target string, n int) []swanlock.DistributedLock {
	t.Helper()
	locks := make([]swanlock.DistributedLock, n)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < n; i += 16 {
				l, err := p.TryAcquire(bg, fmt.Sprintf("%s/%d", target, i))
				if err != nil {
					t.Errorf("lock %d: %v", i, err)
					return
				}
				locks[i] = l
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return locks
}

func releaseMany(t testing.TB, locks []swanlock.DistributedLock) {
	t.Helper()
	for i, l := range locks {
		if err := l.Release(bg); err != nil {
			t.Errorf("lock %d: %v", i, err)
		}
	}
}
