package pglock_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestPoolLeaseOf(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		0:                        0,
		time.Microsecond:         time.Millisecond,
		time.Millisecond:         time.Millisecond,
		5 * time.Millisecond:     4 * time.Millisecond,
		7 * time.Millisecond:     6 * time.Millisecond,
		time.Second:              768 * time.Millisecond,
		1025 * time.Millisecond:  1024 * time.Millisecond,
		30 * time.Second:         24576 * time.Millisecond,
		pglock.MaxTTL:            3 << 29 * time.Millisecond,
		1999 * time.Microsecond:  time.Millisecond,
		time.Hour + time.Second:  3145728 * time.Millisecond,
		1536 * time.Millisecond:  1536 * time.Millisecond,
		1535 * time.Millisecond:  1024 * time.Millisecond,
		12 * time.Hour:           33554432 * time.Millisecond,
		2047 * time.Microsecond:  2 * time.Millisecond,
		100 * time.Millisecond:   96 * time.Millisecond,
		24 * 24 * time.Hour:      3 << 29 * time.Millisecond,
		10 * time.Second:         8192 * time.Millisecond,
		15 * time.Minute:         786432 * time.Millisecond,
		123456 * time.Nanosecond: time.Millisecond,
	} {
		if got := pglock.LeaseOf(ttl); got != want {
			t.Errorf("the lease for a TTL of %v is %v, want %v", ttl, got, want)
		}
	}
	for ttl := time.Millisecond; ttl < pglock.MaxTTL; ttl = ttl*5/4 + time.Microsecond {
		if got := pglock.LeaseOf(ttl); got > ttl || got < ttl.Truncate(time.Millisecond)*2/3 {
			t.Errorf("the lease for a TTL of %v is %v, want two thirds of it or more", ttl, got)
		}
	}
}

// Locks of every TTL, and those without, are on sessions whose lease is no longer.
func TestPoolLeases(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, target := newPool(t, openDB(t, driver)), newTarget(t)
		sessions := make(map[int]time.Duration)
		for i, ttl := range []time.Duration{0, 2 * time.Second, 2500 * time.Millisecond, time.Hour, 0, 65 * time.Minute, 3 * time.Second} {
			l := acquired(t, p, target+string(rune('a'+i)), swanlock.WithTTL(ttl))
			sessions[backendOf(l)] = pglock.LeaseOf(ttl)
			defer l.Release(bg)
		}
		if len(sessions) != 4 {
			t.Errorf("got %d sessions, want one for 0, for 2 and 2.5 s, for 3 s, and for an hour and 65 min", len(sessions))
		}
		for pid, lease := range sessions {
			if got := pglock.ServerLease(p, pid); got != lease {
				t.Errorf("session %d: the server's lease is %v, want %v", pid, got, lease)
			}
		}
	})
}

// A release that comes when the lock has expired, and another caller has it on
// the same session, frees nothing.
func TestPoolStaleRelease(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 50
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver)), newTarget(t)
		must(t, acquired(t, p, target+"/warm", swanlock.WithTTL(time.Hour)).Release(bg))
		seen := 0
		for range rounds {
			old, err := p.TryAcquire(bg, target, swanlock.WithTTL(time.Hour))
			must(t, err)
			var wg sync.WaitGroup
			for range 8 { // so that the release travels with others
				wg.Go(func() {
					if l, err := p.TryAcquire(bg, newTarget(t), swanlock.WithTTL(time.Hour)); err != nil {
						t.Error(err)
					} else if err := l.Release(bg); err != nil {
						t.Error(err)
					}
				})
			}
			pglock.Expire(old)
			wg.Go(func() {
				if err := old.Release(bg); !errors.Is(err, swanlock.ErrExpired) {
					t.Errorf("got %v, want ErrExpired", err)
				}
			})
			next, err := p.TryAcquire(bg, target, swanlock.WithTTL(time.Hour))
			for errors.Is(err, swanlock.ErrNotAcquired) {
				next, err = p.TryAcquire(bg, target, swanlock.WithTTL(time.Hour))
			}
			must(t, err)
			wg.Wait()
			if backendOf(next) == backendOf(old) {
				seen++
			}
			o.wantHeld(target, backendOf(next))
			must(t, next.Refresh(bg))
			must(t, next.Release(bg))
		}
		if seen == 0 {
			t.Error("the next holder was never on the same session")
		}
	})
}

// The same holds for a release that has found the lock held, and is then slow
// to join a batch.
func TestPoolStaleReleaseInABatch(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p, proxy := slowPool(t, driver)
		old := acquired(t, p, target, swanlock.WithTTL(time.Hour))
		release := pglock.QueueRelease(old)
		pglock.Expire(old)
		next, err := p.TryAcquire(bg, target, swanlock.WithTTL(time.Hour))
		for errors.Is(err, swanlock.ErrNotAcquired) {
			time.Sleep(time.Millisecond)
			next, err = p.TryAcquire(bg, target, swanlock.WithTTL(time.Hour))
		}
		must(t, err)
		if backendOf(next) != backendOf(old) {
			t.Fatal("the next holder is on another session")
		}
		proxy.delay.Store(int64(200 * time.Millisecond))
		call := func() { acquired(t, p, newTarget(t), swanlock.WithTTL(time.Hour)).Release(bg) }
		together(call, call, func() { wantIs(t, release(), swanlock.ErrExpired) })
		o.wantHeld(target, backendOf(next))
		must(t, next.Refresh(bg))
		must(t, next.Release(bg))
	})
}

// Readers of one pool share a session, and each has its own share of the lock:
// the last one to leave frees the lock, and no reader can release another's
// share.
func TestPoolReaders(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, opts := range [][]pglock.PoolOption{nil, {pglock.WithAudit()}} {
			o, p, target := observe(t), newPool(t, openDB(t, driver), opts...), newTarget(t)
			var readers []swanlock.DistributedLock
			for range 5 {
				readers = append(readers, acquired(t, p, target, swanlock.WithShared()))
			}
			for i, r := range readers {
				if backendOf(r) != backendOf(readers[0]) {
					t.Errorf("reader %d is on another session", i)
				}
				o.wantHeld(target, backendOf(r))
				must(t, readers[len(readers)-1].Refresh(bg))
				must(t, r.Release(bg))
			}
			o.wantHeld(target)
			w := acquired(t, p, target)
			if _, err := p.TryAcquire(bg, target, swanlock.WithShared()); !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("a reader beside a writer: got %v, want ErrNotAcquired", err)
			}
			must(t, w.Release(bg))
		}
	})
}

// A reader does not overtake a writer that waits in the server's queue, as
// SwanLake's servers do, though the session has the lock already.
func TestPoolReadersDoNotOvertake(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver)), newTarget(t)
		first := acquired(t, p, target, swanlock.WithShared())
		conn := dial(t, driver)
		pid := pidOf(t, conn)
		wrote := make(chan error, 1)
		go func() {
			_, err := conn.ExecContext(bg, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
			wrote <- err
		}()
		eventually(t, "the writer waits", func() bool {
			return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1::int AND NOT granted)", pid)
		})
		if _, err := p.TryAcquire(bg, target, swanlock.WithShared()); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, want ErrNotAcquired", err)
		}
		must(t, first.Release(bg))
		must(t, <-wrote)
	})
}

// An idle_session_timeout that the role has, or the server, ends no session of a
// pool: the heartbeat is quicker.
func TestPoolOutlivesIdleTimeout(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, target := newPool(t, openDB(t, driver, "idle_session_timeout=900ms")), newTarget(t)
		l := acquired(t, p, target)
		time.Sleep(2 * time.Second)
		must(t, l.Err())
		must(t, l.Refresh(bg))
		must(t, l.Release(bg))
	})
}

// A session that has held nothing for long is given back, as it was.
func TestPoolReturnsIdleConnections(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		p, target := newPool(t, db, pglock.WithHeartbeat(20*time.Millisecond)), newTarget(t)
		l := acquired(t, p, target)
		pglock.LongEmpty(p)
		time.Sleep(100 * time.Millisecond)
		if n := db.Stats().InUse; n != 1 {
			t.Fatalf("got %d connections in use with a lock, want 1", n)
		}
		must(t, l.Release(bg))
		time.Sleep(100 * time.Millisecond)
		if n := db.Stats().InUse; n != 1 {
			t.Fatalf("got %d connections in use a moment after a release, want 1", n)
		}
		pglock.LongEmpty(p)
		eventually(t, "the connection is given back", func() bool { return db.Stats().InUse == 0 })
		must(t, acquired(t, p, target).Release(bg))
	})
}

// A try does not overtake callers of the same pool that wait, also where none
// of them is in the server's queue.
func TestPoolTryDoesNotOvertake(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver), pglock.WithPolling()), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		got := waitsFor(t, o, shortly(t), p, target)
		time.Sleep(time.Second) // it looks every quarter of a second by now
		must(t, held.Release(bg))
		if _, err := p.TryAcquire(bg, target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, want ErrNotAcquired", err)
		}
		must(t, (<-got).get(t).Release(bg))
	})
}

// A lock with a TTL gives its session a lease where there was none, if there is no
// other connection to be had.
func TestPoolLeaseOnTheOnlySession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		db.SetMaxOpenConns(1)
		p := newPool(t, db)
		held := acquired(t, p, newTarget(t))
		leased := acquired(t, p, newTarget(t), swanlock.WithTTL(time.Minute))
		if got := pglock.ServerLease(p, backendOf(leased)); got == 0 || got > time.Minute {
			t.Errorf("the server's lease is %v, want at most a minute", got)
		}
		must(t, leased.Release(bg))
		must(t, held.Release(bg))
	})
}

// TestPoolLocksEndOneByOne: after one lock of a session has ended the next one ends in
// its own time, not with the last.
func TestPoolLocksEndOneByOne(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver), pglock.WithLogger(nil))
		var longest []swanlock.DistributedLock
		for range 20 { // so that it is unlikely that the next one is found by chance
			longest = append(longest, acquired(t, p, newTarget(t), swanlock.WithTTL(3050*time.Millisecond)))
		}
		next := acquired(t, p, newTarget(t), swanlock.WithTTL(2200*time.Millisecond))
		first := acquired(t, p, newTarget(t), swanlock.WithTTL(2100*time.Millisecond))
		if backendOf(first) != backendOf(longest[0]) {
			t.Fatal("the locks are on two sessions")
		}
		<-first.Done()
		<-next.Done()
		for _, l := range longest {
			must(t, l.Err())
			must(t, l.Release(bg))
		}
		wantIs(t, first.Release(bg), swanlock.ErrExpired)
		wantIs(t, next.Release(bg), swanlock.ErrExpired)
	})
}
