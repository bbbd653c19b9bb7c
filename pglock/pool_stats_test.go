package pglock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolStats: the numbers are those of the server and of the network.
func TestPoolStats(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		proxy := newProxy(t)
		db := openURL(t, driver, proxy.url)
		db.SetMaxOpenConns(8)
		p := newPool(t, db, pglock.WithHeartbeat(time.Hour), pglock.WithMaxWaiters(1))
		if got, want := p.Stats(), (pglock.PoolStats{MaxSessions: 4, Limit: 1800}); got != want {
			t.Errorf("unused: got %+v, want %+v", got, want)
		}
		before := time.Now()
		first := acquired(t, p, newTarget(t))
		must(t, first.Refresh(bg))
		after := time.Now()
		second := acquired(t, p, newTarget(t))
		s := p.Stats()
		if s.Sessions != 1 || s.Locks != 2 || s.Used != 2 || s.Waiters != 0 || s.WaitingSessions != 0 || s.Oldest.Before(before) || s.Oldest.After(after) {
			t.Errorf("two locks since %v: got %+v", before, s)
		}
		if s.Heartbeats != 1 || s.HeartbeatTime <= 0 || s.HeartbeatTime > after.Sub(before) {
			t.Errorf("after one refresh: got %+v", s)
		}
		trips := p.Stats().RoundTrips
		n := proxy.trips(t, func() {
			must(t, second.Release(bg))
			second = acquired(t, p, newTarget(t))
		})
		if got := p.Stats().RoundTrips - trips; got != 2 || n < 2 {
			t.Errorf("got %d round trips for two statements, and the network %d", got, n)
		}

		other, _ := newSession(t, driver)
		theirs := acquired(t, other, newTarget(t))
		ctx, cancel := context.WithCancel(bg)
		var waiting sync.WaitGroup
		for i := range 3 {
			target := first.Info().Target
			if i == 0 {
				target = theirs.Info().Target
			}
			waiting.Go(func() {
				if _, err := p.Acquire(ctx, target); err == nil {
					t.Error("got a lock that is held")
				}
			})
		}
		eventually(t, "three callers wait, in the server only the one whose holder is elsewhere", func() bool {
			s := p.Stats()
			return s.Waiters == 3 && s.WaitingSessions == 1 && s.Locks == 2 && s.Used == 5
		})
		cancel()
		waiting.Wait()
		must(t, theirs.Release(bg))
		must(t, first.Release(bg))
		must(t, second.Release(bg))
		eventually(t, "nothing is left", func() bool {
			s := p.Stats()
			return s.Waiters == 0 && s.WaitingSessions == 0 && s.Locks == 0 && s.Used == 0 && s.Oldest.IsZero()
		})
	})
}

// TestPoolStatsBatches: what is sent together is counted.
func TestPoolStatsBatches(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour))
		held := acquired(t, p, newTarget(t))
		give := pglock.HoldTurn(held)
		const n = 20
		target := newTarget(t)
		var all sync.WaitGroup
		before := p.Stats()
		for i := range n {
			all.Go(func() {
				l, err := p.TryAcquire(bg, fmt.Sprint(target, i))
				if err == nil {
					err = l.Release(bg)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		eventually(t, "all are in the queue", func() bool { return p.Stats().Used == n+1 })
		time.Sleep(10 * time.Millisecond)
		give()
		all.Wait()
		s := p.Stats()
		if s.Batches == 0 || s.LargestBatch < n/2 || s.LargestBatch > s.Batched || s.Batched > 2*n || s.RoundTrips-before.RoundTrips > 2*n {
			t.Errorf("got %+v, want batches", s)
		}
		must(t, held.Release(bg))
	})
}

// TestPoolStatsExpired: a lock that has expired and is not unlocked yet is not held,
// and takes its room still.
func TestPoolStatsExpired(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour), pglock.WithLogger(nil))
		l := acquired(t, p, newTarget(t), swanlock.WithTTL(400*time.Millisecond))
		give := pglock.HoldTurn(l)
		ended(t, l)
		if s := p.Stats(); s.Locks != 0 || s.Used != 1 || !s.Oldest.IsZero() {
			t.Errorf("got %+v, want no lock, and one that is in use", s)
		}
		give()
		eventually(t, "it is unlocked", func() bool { return p.Stats().Used == 0 })
	})
}

// TestPoolStatsRace: Stats may be called at any time, also while sessions die.
func TestPoolStatsRace(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		p := newPool(t, openDB(t, driver), pglock.WithLogger(nil), pglock.WithHeartbeat(10*time.Millisecond))
		stop := make(chan struct{})
		var polling, working sync.WaitGroup
		polling.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					if s := p.Stats(); s.Locks < 0 || s.Used < 0 || s.Waiters < 0 || s.WaitingSessions < 0 || s.Sessions > s.MaxSessions+1 {
						t.Errorf("got %+v", s)
					}
				}
			}
		})
		target := newTarget(t)
		for i := range 4 {
			working.Go(func() {
				for n := range 20 {
					l, err := p.Acquire(bg, target, swanlock.WithTTL(time.Minute))
					if err != nil {
						continue
					}
					if i == 0 && n%10 == 0 {
						o.kill(backendOf(l))
					}
					l.Release(bg)
				}
			})
		}
		working.Wait()
		close(stop)
		polling.Wait()
		must(t, p.Close(bg))
		if s := p.Stats(); s.Sessions != 0 || s.Used != 0 || s.RoundTrips == 0 {
			t.Errorf("after Close: got %+v", s)
		}
	})
}
