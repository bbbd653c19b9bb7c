package redislock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// waiter starts an Acquire, and returns when it is in the line, as the nth.
func waiter(t *testing.T, l *Locker, s *testserver.Node, n int64, ctx context.Context) *testserver.Call {
	t.Helper()
	w := testserver.Go(t, func() (swanlock.DistributedLock, error) { return l.Acquire(ctx, target) })
	inLine(t, s, n)
	return w
}

func inLine(t *testing.T, s *testserver.Node, n int64) {
	t.Helper()
	inLineOf(t, dial(t, s.Addr), target, n)
}

// inLineOf waits until n wait for the target.
func inLineOf(t *testing.T, client redis.Cmdable, target string, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d wait in the line", n), func() bool {
		got, err := client.ZCard(t.Context(), keyOf(target)+":line").Result()
		return err == nil && got == n
	})
}

// Waiters are woken. One that only asked now and then would take a second a
// hand-over.
func TestWoken(t *testing.T) {
	servers, addrs := several(t, 1)
	one, two := lockerOn(t, addrs), lockerOn(t, addrs)
	held, start := testserver.Try(t, one, target), time.Now()
	for i := range 40 {
		next := waiter(t, []*Locker{two, one}[i%2], servers[0], 1, t.Context())
		testserver.Release(t, held)
		held = next.MustGet()
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("40 hand-overs took %v: the waiters are not woken", took)
	}
	testserver.Release(t, held)
}

// A client that cannot subscribe waits in the same line, and asks.
func TestNotWoken(t *testing.T) {
	servers, addrs := several(t, 1)
	l, err := New([]redis.Scripter{struct{ redis.Scripter }{dial(t, addrs[0])}})
	if err != nil {
		t.Fatal(err)
	}
	held := testserver.Try(t, l, target)
	first := waiter(t, l, servers[0], 1, t.Context())
	second := waiter(t, lockerOn(t, addrs), servers[0], 2, t.Context())
	testserver.Release(t, held)
	testserver.Release(t, first.MustGet())
	testserver.Release(t, second.MustGet())
}

// The first in line is cut off, and the second waits behind it until its place is
// no longer kept. It gets a new one, at the end.
func TestDeadWaiter(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 1)
	p := testserver.NewProxy(t, addrs[0])
	holder, cut, other := lockerOn(t, addrs), lockerOn(t, []string{p.Addr}), lockerOn(t, addrs)
	held := testserver.Try(t, holder, target)
	first := testserver.Acquire(t, cut, target, swanlock.WithTTL(time.Minute))
	inLine(t, servers[0], 1)
	second := waiter(t, other, servers[0], 2, t.Context())
	p.Cut()
	time.Sleep(fresh + 100*time.Millisecond)
	testserver.Release(t, held)
	next := second.MustGet()
	p.Heal()
	time.Sleep(500 * time.Millisecond)
	first.MustWait("the one that was cut off, while another holds the lock")
	testserver.Release(t, next)
	testserver.Release(t, first.MustGet())
}

// A waiter whose context ends leaves the line, and wakes the next.
func TestLeaves(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 1)
	one, two := lockerOn(t, addrs), lockerOn(t, addrs)
	held := testserver.Try(t, one, target)
	ctx, cancel := context.WithCancel(t.Context())
	first := waiter(t, one, servers[0], 1, ctx)
	second := waiter(t, two, servers[0], 2, t.Context())
	cancel()
	if _, err := first.Result(); !errors.Is(err, context.Canceled) || !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a waiter whose context ended: got %v, want Canceled and ErrNotAcquired", err)
	}
	if n, err := dial(t, addrs[0]).ZCard(t.Context(), keyOf(target)+":line").Result(); n != 1 || err != nil {
		t.Errorf("%d wait in the line after one has left, %v; want 1", n, err)
	}
	if _, err := one.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a try while another waits: got %v, want ErrNotAcquired", err)
	}
	testserver.Release(t, held)
	testserver.Release(t, second.MustGet())
	// A call that was slow leaves a tombstone for a while.
	for _, pattern := range []string{"swanlock:{*}", "swanlock:{*}:line*"} {
		if keys, err := dial(t, addrs[0]).Keys(t.Context(), pattern).Result(); err != nil || len(keys) > 0 {
			t.Errorf("keys that are left: %q, %v", keys, err)
		}
	}
}

// Waiters wait on while the server restarts.
func TestWaitersOutliveRestart(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 1)
	ttl := WithMaxTTL(time.Second)
	one, two := lockerOn(t, addrs, ttl), lockerOn(t, addrs, ttl)
	held := testserver.Try(t, one, target)
	next := waiter(t, two, servers[0], 1, t.Context())
	servers[0].RestartEmpty()
	got := next.MustGet()
	if held.Err() == nil {
		t.Errorf("a second holder after a restart")
	}
	_ = held.Release(t.Context())
	testserver.Release(t, got)
}

// A waiter waits also while the server takes no connection more, or writes nothing, for
// want of a replica.
func TestWaitsForServer(t *testing.T) {
	t.Parallel()
	for _, setting := range [][3]string{{"maxclients", "1", "100"}, {"min-replicas-to-write", "1", "0"}} {
		t.Run(setting[0], func(t *testing.T) {
			t.Parallel()
			servers, addrs := several(t, 1)
			admin := dial(t, servers[0].Addr)
			set := func(value string) {
				t.Helper()
				if err := admin.ConfigSet(t.Context(), setting[0], value).Err(); err != nil {
					t.Fatal(err)
				}
			}
			l := lockerOn(t, addrs)
			set(setting[1])
			w := testserver.Acquire(t, l, target)
			time.Sleep(200 * time.Millisecond)
			w.MustWait("while the server cannot be used")
			set(setting[2])
			testserver.Release(t, w.MustGet())
		})
	}
}

// A slowHook keeps back the answers to the next calls.
type slowHook struct {
	hold  // for the other methods
	calls atomic.Int32
	d     time.Duration
}

func (h *slowHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if h.calls.Add(-1) >= 0 {
			time.Sleep(h.d)
		}
		return err
	}
}

// A waiter whose grant comes when its lease is over waits on.
func TestGrantedTooLate(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 1)
	client := dial(t, addrs[0])
	h := &slowHook{d: 250 * time.Millisecond}
	client.AddHook(h)
	l, err := New([]redis.Scripter{client})
	if err != nil {
		t.Fatal(err)
	}
	testserver.Release(t, testserver.Try(t, l, target))
	h.calls.Store(2) // those of the acquire, and of the release of what came too late
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	held, err := l.Acquire(ctx, target, swanlock.WithTTL(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if h.calls.Load() >= 0 {
		t.Error("no answer was late")
	}
	testserver.Release(t, held)
	eventually(t, "nothing is left behind", func() bool { return holders(t, servers) == 0 })
}

// A question that arrives when its waiter has left does not join the line, however
// short the lease is: others would wait for nobody.
func TestLateQuestion(t *testing.T) {
	t.Parallel()
	_, addrs := several(t, 1)
	holder, slow := lockerOn(t, addrs), dial(t, addrs[0])
	held := testserver.Try(t, holder, target) // The server has the script.
	h := &hold{hash: acquireScript.Hash(), arrive: make(chan struct{}), sent: make(chan struct{})}
	slow.AddHook(h)
	l, err := New([]redis.Scripter{slow})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Acquire(ctx, target, swanlock.WithTTL(10*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire: got %v, want DeadlineExceeded", err)
	}
	time.Sleep(100 * time.Millisecond)
	close(h.arrive)
	<-h.sent
	testserver.Release(t, held)
	testserver.Release(t, testserver.Try(t, holder, target))
}

func TestKeyOf(t *testing.T) {
	for _, tt := range []struct{ target, want string }{
		{"a", "swanlock:{a}"}, {"/a/b", "swanlock:{a/b}"}, {"a//b/./c/", "swanlock:{a/b/c}"}, {"./a", "swanlock:{./a}"},
		{"/./a", "swanlock:{a}"}, {"../a", "swanlock:{../a}"}, {"}x", "swanlock:{%7Dx}"}, {"%7Dx", "swanlock:{%257Dx}"}, {".", "swanlock:{.}"},
		{"/", "swanlock:{/}"}, {"//", "swanlock:{/}"}, {"/.", "swanlock:{/}"},
	} {
		if got := keyOf(tt.target); got != tt.want {
			t.Errorf("keyOf(%q): got %q, want %q", tt.target, got, tt.want)
		}
	}
}

// TestPathsOfOneKey: other lockers take these for one target.
func TestPathsOfOneKey(t *testing.T) {
	const a, b = "a/bcdefg/h", "abcde/f/gh"
	if swanlock.KeyOf(a) != swanlock.KeyOf(b) || keyOf(a) == keyOf(b) {
		t.Errorf("%q and %q: got the keys %q and %q, want two of one swanlock.KeyOf", a, b, keyOf(a), keyOf(b))
	}
}

// FuzzKeyOf: targets that are one have one key. (That KeyOf has one for some that
// differ besides is a property of its hash.)
func FuzzKeyOf(f *testing.F) {
	f.Add("a/b", "a//b")
	f.Add("./a", "a/.")
	f.Fuzz(func(t *testing.T, a, b string) {
		if keyOf(a) == keyOf(b) && swanlock.KeyOf(a) != swanlock.KeyOf(b) {
			t.Errorf("%q and %q have one key, and are two targets", a, b)
		}
		for _, spelled := range []string{"/" + a, a + "/", a + "/.", strings.ReplaceAll(a, "/", "//")} {
			if swanlock.KeyOf(spelled) == swanlock.KeyOf(a) && keyOf(spelled) != keyOf(a) {
				t.Errorf("%q and %q are one target: got the keys %q and %q", spelled, a, keyOf(spelled), keyOf(a))
			}
		}
	})
}

func TestRefused(t *testing.T) {
	for name, newLocker := range map[string]func() (*Locker, error){
		"none":      func() (*Locker, error) { return New(nil) },
		"two":       func() (*Locker, error) { return New([]redis.Scripter{nil, nil}) },
		"nil":       func() (*Locker, error) { return New([]redis.Scripter{nil}) },
		"nil *":     func() (*Locker, error) { return New([]redis.Scripter{(*redis.Client)(nil)}) },
		"max TTL":   func() (*Locker, error) { return New([]redis.Scripter{dial(t, "x:1")}, WithMaxTTL(0)) },
		"endless":   func() (*Locker, error) { return New([]redis.Scripter{dial(t, "x:1")}, WithMaxTTL(math.MaxInt64)) },
		"no reason": func() (*Locker, error) { return New([]redis.Scripter{dial(t, "x:1")}, WithoutQuarantine("")) },
	} {
		if l, err := newLocker(); err == nil || l != nil {
			t.Errorf("%s: got %v, %v, want an error", name, l, err)
		}
	}
	l := lockerOn(t, []string{"127.0.0.1:1"}, WithoutQuarantine("a test"))
	for name, opt := range map[string]swanlock.Option{"fence": swanlock.WithFence(), "shared": swanlock.WithShared(), "long TTL": swanlock.WithTTL(time.Hour)} {
		if _, err := l.TryAcquire(t.Context(), target, opt); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: got %v, want ErrUnsupported", name, err)
		}
	}
}

// The value of the key says who holds the lock.
func TestErrorNamesHolder(t *testing.T) {
	_, addrs := several(t, 1)
	held := testserver.Try(t, lockerOn(t, addrs), target, swanlock.WithOwner("checkpoint 7"))
	_, err := lockerOn(t, addrs).TryAcquire(t.Context(), target)
	if got, want := fmt.Sprint(err), `redislock: acquire "jobs/nightly": not acquired: held by "checkpoint 7"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	testserver.Release(t, held)
}
