package redislock

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// scripts returns how many scripts the server has run.
func scripts(t *testing.T, s *testserver.Node) (n int) {
	t.Helper()
	stats, err := dial(t, s.Addr).Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`cmdstat_eval(?:sha)?:calls=(\d+)`).FindAllStringSubmatch(stats, -1) {
		calls, _ := strconv.Atoi(m[1])
		n += calls
	}
	return n
}

// A release gives the lock to the next waiter, which does not ask again; a short
// lease, of which that would take too much, it asks for.
func TestPassedOn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ttl  time.Duration
		want int // scripts a hand-over: to wait, to release, and perhaps to ask once more
	}{{passable, 2}, {passable - time.Millisecond, 3}} {
		t.Run(fmt.Sprint(tt.ttl), func(t *testing.T) {
			t.Parallel()
			servers, addrs := several(t, 1)
			lockers := []*Locker{lockerOn(t, addrs), lockerOn(t, addrs)}
			ttl := swanlock.WithTTL(tt.ttl)
			// The clock of the next one is behind.
			lockers[0].clock.see(uint64(time.Now().Add(time.Minute).UnixMicro()))
			held := testserver.Try(t, lockers[0], target, ttl, swanlock.WithFence())
			next := testserver.Acquire(t, lockers[1], target, ttl, swanlock.WithFence()) // It subscribes.
			inLine(t, servers[0], 1)
			time.Sleep(100 * time.Millisecond)
			const n = 50
			before, begun := scripts(t, servers[0]), time.Now()
			for i := range n {
				testserver.Release(t, held)
				fence := held.Info().Fence
				held = next.MustGet()
				if held.Info().Fence <= fence {
					t.Errorf("the fence %d was followed by %d", fence, held.Info().Fence)
				}
				if err := held.Refresh(t.Context()); err != nil {
					t.Errorf("Refresh of a lock that was passed on: %v", err)
				}
				next = testserver.Acquire(t, lockers[i%2], target, ttl, swanlock.WithFence())
				inLine(t, servers[0], 1)
			}
			// A Refresh is one; a waiter asks once a second.
			got := scripts(t, servers[0]) - before - n
			if most := n*tt.want + n/2 + int(time.Since(begun)/report); got < n*tt.want || got > most {
				t.Errorf("%d hand-overs took %d scripts, want %d to %d", n, got, n*tt.want, most)
			}
			testserver.Release(t, held)
			testserver.Release(t, next.MustGet())
		})
	}
}

// News of a grant that is not the answer to a waiter's last question is old: the
// lease may be over, and another the holder.
func TestOldNews(t *testing.T) {
	servers, addrs := several(t, 1)
	holder, other := lockerOn(t, addrs), lockerOn(t, addrs)
	held := testserver.Try(t, holder, target)
	w := waiter(t, other, servers[0], 1, t.Context())
	client := dial(t, addrs[0])
	token, err := client.ZRange(t.Context(), keyOf(target)+":line", 0, 0).Result()
	if err != nil || len(token) != 1 {
		t.Fatal(token, err)
	}
	for _, news := range []string{" 0 7", " 7", " x 7", "  7", ""} {
		if n, err := client.Publish(t.Context(), wakeChannel+other.id, token[0]+news).Result(); n != 1 || err != nil {
			t.Fatalf("%d were told, %v", n, err)
		}
		w.MustWait(fmt.Sprintf("after the news %q", news))
	}
	testserver.Release(t, held)
	testserver.Release(t, w.MustGet())
	for _, tt := range []struct {
		news, question string
		fence          uint64
		ok             bool
	}{{"3 7", "3", 7, true}, {"2 7", "3", 0, false}, {"", "", 0, false}, {"3", "3", 0, false}, {"3 x", "3", 0, false}} {
		if fence, ok := granted(tt.news, tt.question); fence != tt.fence || ok != tt.ok {
			t.Errorf("granted(%q, %q): got %d, %t, want %d, %t", tt.news, tt.question, fence, ok, tt.fence, tt.ok)
		}
	}
}

// cluster starts a Redis Cluster of two, and returns a client.
func cluster(t *testing.T) *redis.ClusterClient {
	t.Helper()
	var addrs []string
	var bus string // the first one's
	for i, slots := range [][2]int{{0, 8191}, {8192, 16383}} {
		port, err := strconv.Atoi(testserver.Port(t, testserver.FreeAddr(t)))
		if err != nil {
			t.Fatal(err)
		}
		s := testserver.Redis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(port))
		client := dial(t, s.Addr)
		if err := client.ClusterAddSlotsRange(t.Context(), slots[0], slots[1]).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := client.Do(t.Context(), "cluster", "meet", "127.0.0.1", testserver.Port(t, addrs[0]), bus).Err(); err != nil {
				t.Fatal(err)
			}
		}
		bus, addrs = strconv.Itoa(port), append(addrs, s.Addr)
	}
	for _, addr := range addrs {
		eventually(t, "the cluster is whole", func() bool {
			return strings.Contains(dial(t, addr).ClusterInfo(t.Context()).Val(), "cluster_state:ok")
		})
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	t.Cleanup(func() { client.Close() })
	return client
}

// The waiters of a cluster hear of what is published on any of its nodes. They are
// told of a grant by the lock's own node alone, or else are woken.
func TestPassedOnInCluster(t *testing.T) {
	t.Parallel()
	client := cluster(t)
	newLocker := func() *Locker {
		l, err := New([]redis.Scripter{client}, WithoutQuarantine("a test"))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	// Some of the channels are on the node of their locks.
	for i := range 12 {
		one, two, target := newLocker(), newLocker(), fmt.Sprint("target ", i)
		if i == 0 {
			target = "/" // which has no letters
		}
		held := testserver.Try(t, one, target)
		next := testserver.Acquire(t, two, target, swanlock.WithTTL(30*time.Second))
		inLineOf(t, client, target, 1)
		time.Sleep(50 * time.Millisecond) // It listens.
		testserver.Release(t, held)
		held = next.MustGet()
		if got := client.Get(t.Context(), keyOf(target)).Val(); got == "" {
			t.Errorf("%s: the waiter has the lock, and the server has not", target)
		}
		testserver.Release(t, held)
	}
}

// A waiter that cannot be told is not given the lock, nor is any while the server
// does not know what it has forgotten.
func TestNotPassedOn(t *testing.T) {
	t.Parallel()
	t.Run("deaf", func(t *testing.T) {
		t.Parallel()
		_, addrs := several(t, 1)
		l := lockerOn(t, addrs)
		held := testserver.Try(t, l, target)
		a := l.attempt(target, swanlock.Options{})
		if _, err := a.acquire(t.Context(), ms(presence), "1"); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Fatal(err)
		}
		testserver.Release(t, held)
		if n := dial(t, addrs[0]).Exists(t.Context(), a.key).Val(); n != 0 {
			t.Error("it holds the lock")
		}
		if _, err := a.acquire(t.Context(), ms(presence), "2"); err != nil {
			t.Errorf("when it asks: %v", err)
		}
		a.Release(t.Context())
	})
	t.Run("quarantine", func(t *testing.T) {
		t.Parallel()
		s := known(t, testserver.Redis(t, "--appendonly", "yes", "--appendfsync", "always"))
		const ttl = passable
		l := lockerOn(t, []string{s.Addr}, WithMaxTTL(ttl))
		held := testserver.Try(t, l, target, swanlock.WithTTL(ttl))
		w := testserver.Acquire(t, l, target, swanlock.WithTTL(ttl))
		inLine(t, s, 1)
		s.Restart()
		client := dial(t, s.Addr)
		eventually(t, "the waiter listens again", func() bool {
			return len(client.PubSubChannels(t.Context(), wakeChannel+"*").Val()) == 1
		})
		testserver.Release(t, held)
		if n := client.Exists(t.Context(), keyOf(target)).Val(); n != 0 {
			t.Error("the waiter holds the lock of a server that may have forgotten its holder")
		}
		testserver.Release(t, w.MustGet())
	})
}
