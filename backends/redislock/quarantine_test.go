package redislock

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// quarantined checks that a try says that nobody knows.
func quarantined(t *testing.T, when string, l *Locker, target string) {
	t.Helper()
	_, err := l.TryAcquire(t.Context(), target)
	if !errors.Is(err, ErrQuarantined) || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("%s: got %v, want ErrQuarantined", when, err)
	}
}

// Three of five that restart without data have forgotten the lock. Nobody gets it
// before its holder knows.
func TestRestartWithoutData(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 5} {
		servers, addrs := several(t, n)
		ttl := WithMaxTTL(3 * time.Second)
		l, other := lockerOn(t, addrs, ttl), lockerOn(t, addrs, ttl)
		held := testserver.Try(t, l, target, swanlock.WithTTL(3*time.Second))
		for i := range n/2 + 1 {
			servers[i].RestartEmpty()
		}
		quarantined(t, "a try after the restart", other, target)
		quarantined(t, "a try for what nobody held", other, "other")
		next, err := other.Acquire(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if held.Err() == nil {
			t.Errorf("N=%d: a second holder after a restart without data", n)
		}
		testserver.Release(t, next)
		_ = held.Release(t.Context())
		if n == 1 {
			servers[0].RestartEmpty()
			l, err := New([]redis.Scripter{dial(t, addrs[0])}, WithoutQuarantine("a test"))
			if err != nil {
				t.Fatal(err)
			}
			testserver.Release(t, testserver.Try(t, l, target))
		}
	}
}

// A server that restarts with its data still knows the lock, and has the holder
// refresh it. It gives no vote to anybody else: it does not know what it lost.
func TestRestartWithData(t *testing.T) {
	t.Parallel()
	s := known(t, testserver.Redis(t, "--appendonly", "yes", "--appendfsync", "always"))
	addrs := []string{s.Addr}
	ttl := WithMaxTTL(3 * time.Second)
	l, other := lockerOn(t, addrs, ttl), lockerOn(t, addrs, ttl)
	held := testserver.Try(t, l, target, swanlock.WithTTL(3*time.Second))
	s.Restart()
	if err := held.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh after the restart: %v", err)
	}
	if dial(t, s.Addr).Exists(t.Context(), quarantineKey).Val() == 0 {
		t.Error("the quarantine does not begin with a Refresh")
	}
	_, err := other.TryAcquire(t.Context(), target)
	if !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a rival's try after the restart: got %v, want ErrNotAcquired", err)
	}
	testserver.Release(t, held)
	quarantined(t, "a try after the release", other, target)
	next, err := other.Acquire(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	testserver.Release(t, next)
}

// The first call after a restart is not one that finds out about it: it is for another
// database, or WithoutQuarantine, or fails. The next one does.
func TestRestartIsFoundLater(t *testing.T) {
	t.Parallel()
	ttl := WithMaxTTL(3 * time.Second)
	for name, first := range map[string]func(t *testing.T, admin *redis.Client){
		"another database": func(t *testing.T, admin *redis.Client) {
			quarantined(t, "a try in another database", lockerOn(t, []string{admin.Options().Addr}, ttl), target)
		},
		"WithoutQuarantine": func(t *testing.T, admin *redis.Client) {
			l := lockerIn(t, admin.Options().Addr, 1, WithoutQuarantine("a test"))
			testserver.Release(t, testserver.Try(t, l, "other"))
		},
		"NOREPLICAS": func(t *testing.T, admin *redis.Client) {
			l := lockerIn(t, admin.Options().Addr, 1, ttl)
			admin.ConfigSet(t.Context(), "min-replicas-to-write", "1")
			if _, err := l.TryAcquire(t.Context(), target); !redis.HasErrorPrefix(err, "NOREPLICAS") {
				t.Errorf("a try without replicas: got %v, want NOREPLICAS", err)
			}
			admin.ConfigSet(t.Context(), "min-replicas-to-write", "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testserver.Redis(t, "--dbfilename", "dump.rdb")
			known(t, s)
			admin := dial(t, s.Addr)
			if err := admin.Copy(t.Context(), bornKey, bornKey, 1, false).Err(); err != nil {
				t.Fatal(err)
			}
			l := lockerIn(t, s.Addr, 1, ttl)
			testserver.Release(t, testserver.Try(t, l, target))
			if err := admin.Save(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			lent(t, l) // The server forgets it.
			s.Restart()
			first(t, admin)
			quarantined(t, "a try after the restart", lockerIn(t, s.Addr, 1, ttl), target)
		})
	}
}

// SWAPDB with a database in which nobody locks is found out, as FLUSHALL is.
func TestSwapDB(t *testing.T) {
	t.Parallel()
	addr := known(t, testserver.Redis(t)).Addr
	ttl := WithMaxTTL(3 * time.Second)
	lent(t, lockerIn(t, addr, 0, ttl))
	if err := dial(t, addr).Do(t.Context(), "SWAPDB", "0", "1").Err(); err != nil {
		t.Fatal(err)
	}
	quarantined(t, "a try in what was the other database", lockerIn(t, addr, 0, ttl), target)
}

// lockerIn returns a locker on one of the databases of a server.
func lockerIn(t *testing.T, addr string, db int, opts ...Option) *Locker {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, DB: db, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	l, err := New([]redis.Scripter{client}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lent takes the target for a holder that counts on it until the test ends.
func lent(t *testing.T, l *Locker) {
	t.Helper()
	held := testserver.Try(t, l, target, swanlock.WithTTL(l.maxTTL))
	t.Cleanup(func() { _ = held.Release(t.Context()) })
}

// follow makes a server the replica of another, or a master if addr is empty.
func follow(t *testing.T, replica *redis.Client, addr string) {
	t.Helper()
	args := []any{"replicaof", "no", "one"}
	if addr != "" {
		args = []any{"replicaof", "127.0.0.1", testserver.Port(t, addr)}
	}
	if err := replica.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
}

// inStep waits until what the replica has of the master names that one's run.
func inStep(t *testing.T, replica, master *redis.Client) {
	t.Helper()
	eventually(t, "the replica is in step", func() bool {
		born := master.Get(t.Context(), bornKey).Val()
		return born != "" && replica.Get(t.Context(), bornKey).Val() == born
	})
}

// A replica that takes over may lack the last grants. What it has of the old
// server names another run, whether or not it was asked for locks while it was a
// replica.
func TestFailover(t *testing.T) {
	t.Parallel()
	ttl := WithMaxTTL(3 * time.Second)
	for name, asked := range map[string]bool{"asked before": true, "not asked before": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, replica := known(t, testserver.Redis(t)), testserver.Redis(t)
			proxy := testserver.NewProxy(t, old.Addr)
			to := dial(t, replica.Addr)
			follow(t, to, proxy.Addr)
			inStep(t, to, dial(t, old.Addr))
			l := lockerOn(t, []string{replica.Addr}, ttl)
			if asked {
				if _, err := l.TryAcquire(t.Context(), target); !redis.HasErrorPrefix(err, "READONLY") {
					t.Errorf("a try on the replica: got %v, want READONLY", err)
				}
			}
			proxy.Cut()
			lent(t, lockerOn(t, []string{old.Addr}, ttl))
			old.Kill()
			follow(t, to, "")
			quarantined(t, "a try after the failover", l, target)
			held, err := l.Acquire(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			testserver.Release(t, held)
		})
	}
}

// A server that was the master before is that again. It was a replica meanwhile, or
// was never in step, and so has no other data than its own.
func TestFailback(t *testing.T) {
	t.Parallel()
	ttl := WithMaxTTL(2 * time.Second)
	for name, synced := range map[string]bool{"synced": true, "not synced": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := known(t, testserver.Redis(t)), testserver.Redis(t)
			toA, toB := dial(t, a.Addr), dial(t, b.Addr)
			follow(t, toB, a.Addr)
			testserver.Release(t, testserver.Try(t, lockerOn(t, []string{a.Addr}, ttl), target))
			inStep(t, toB, toA)
			follow(t, toB, "")
			proxy := testserver.NewProxy(t, b.Addr)
			if !synced {
				proxy.Cut()
			}
			follow(t, toA, proxy.Addr)
			onB := lockerOn(t, []string{b.Addr}, ttl)
			held, err := onB.Acquire(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			testserver.Release(t, held)
			if synced {
				inStep(t, toA, toB)
				eventually(t, "the replica knows of the release", func() bool { return toA.Exists(t.Context(), keyOf(target)).Val() == 0 })
				proxy.Cut()
			}
			lent(t, onB)
			b.Kill()
			follow(t, toA, "")
			quarantined(t, "a try after the failback", lockerOn(t, []string{a.Addr}, ttl), target)
		})
	}
}

// The first lock of all is not replicated. The replica that takes over has run for
// long enough, and knows of no lock, but it is not unused.
func TestFailoverAtFirstUse(t *testing.T) {
	t.Parallel()
	ttl := WithMaxTTL(2 * time.Second)
	old, replica := testserver.Redis(t), testserver.Redis(t)
	proxy := testserver.NewProxy(t, old.Addr)
	to := dial(t, replica.Addr)
	follow(t, to, proxy.Addr)
	eventually(t, "the replica is in step", func() bool {
		return strings.Contains(to.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	time.Sleep(5 * time.Second)
	proxy.Cut()
	lent(t, lockerOn(t, []string{old.Addr}, ttl))
	old.Kill()
	follow(t, to, "")
	quarantined(t, "a try after the failover", lockerOn(t, []string{replica.Addr}, ttl), target)
}

// FLUSHALL forgets the locks. SCRIPT FLUSH forgets nothing that matters.
func TestFlush(t *testing.T) {
	t.Parallel()
	_, addrs := several(t, 1)
	ttl := WithMaxTTL(time.Second)
	l, other := lockerOn(t, addrs, ttl), lockerOn(t, addrs, ttl)
	held := testserver.Try(t, l, target, swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
	admin := dial(t, addrs[0])
	if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	testserver.Release(t, testserver.Try(t, other, "other"))
	if err := admin.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	quarantined(t, "a try after FLUSHALL", other, target)
	<-held.Done()
	if err := held.Err(); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Err after FLUSHALL: got %v, want ErrLost", err)
	}
	_ = held.Release(t.Context())
}

// FLUSHALL is found out although a release, or a refresh, is the first of its kind that
// the server is sent, and so comes before the next acquire.
func TestFlushBeforeOthers(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(swanlock.DistributedLock) error{
		"release": func(held swanlock.DistributedLock) error { return held.Release(t.Context()) },
		"refresh": func(held swanlock.DistributedLock) error { return held.Refresh(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addrs := several(t, 1)
			ttl := WithMaxTTL(2 * time.Second)
			time.Sleep(5 * time.Second) // A server that has run for less is never taken for unused.
			l := lockerOn(t, addrs, ttl)
			one, two := testserver.Try(t, l, "one"), testserver.Try(t, l, "two")
			if err := dial(t, addrs[0]).FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if err := first(one); !errors.Is(err, swanlock.ErrLost) {
				t.Errorf("%s after FLUSHALL: got %v, want ErrLost", name, err)
			}
			quarantined(t, "a try for what is held", lockerOn(t, addrs, ttl), "two")
			_ = two.Release(t.Context())
		})
	}
}

// A server that is used for the first time votes at once only if it has run for
// longer than any lock lasts.
func TestFirstUse(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	quarantined(t, "a try on a server that has just started", lockerOn(t, []string{s.Addr}, WithMaxTTL(time.Minute)), target)
	s = testserver.Redis(t)
	time.Sleep(5 * time.Second)
	testserver.Release(t, testserver.Try(t, lockerOn(t, []string{s.Addr}, WithMaxTTL(2*time.Second)), target))
}

// A server that must not be asked which run it is gives no lock.
func TestWithoutInfo(t *testing.T) {
	s := known(t, testserver.Redis(t))
	admin := dial(t, s.Addr)
	if err := admin.Do(t.Context(), "acl", "setuser", "app", "on", ">secret", "~*", "&*", "+@all", "-info").Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "app", Password: "secret"})
	defer client.Close()
	for _, tt := range []struct {
		opts []Option
		want error
	}{
		{nil, errors.ErrUnsupported},
		{[]Option{WithoutQuarantine("a test")}, nil},
	} {
		l, err := New([]redis.Scripter{client}, tt.opts...)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // The first one's script is in the cache now.
			held, err := l.Acquire(t.Context(), target)
			if !errors.Is(err, tt.want) {
				t.Errorf("Acquire: got %v, want %v", err, tt.want)
			}
			if err == nil {
				testserver.Release(t, held)
			}
		}
	}
}

// All servers restart without their data, one after the other. A lock that is
// refreshed outlives that, since a server that has lost it is given it again, once
// it votes.
func TestHealing(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 3)
	ttl := WithMaxTTL(time.Second)
	l, other := lockerOn(t, addrs, ttl), lockerOn(t, addrs, ttl)
	held := testserver.Try(t, l, target, swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh(), swanlock.WithFence())
	for i, s := range servers {
		eventually(t, "all servers hold the lock", func() bool { return holders(t, servers) == 3 })
		s.RestartEmpty()
		if err := held.Refresh(t.Context()); err != nil {
			t.Fatalf("Refresh after %d restarts: %v", i+1, err)
		}
		time.Sleep(200 * time.Millisecond)
		if got, want := holders(t, servers), 2; got != want {
			t.Errorf("%d servers hold the lock while one is in quarantine, want %d", got, want)
		}
		if _, err := other.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a rival's try after %d restarts: got %v, want ErrNotAcquired", i+1, err)
		}
	}
	testserver.Release(t, held)
	next, err := other.Acquire(t.Context(), target, swanlock.WithFence())
	if err != nil {
		t.Fatal(err)
	}
	other.clock.last.Store(0)
	if next.Info().Fence <= held.Info().Fence {
		t.Errorf("fence: got %d after %d", next.Info().Fence, held.Info().Fence)
	}
	testserver.Release(t, next)
}
