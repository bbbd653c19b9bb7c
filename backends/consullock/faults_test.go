package consullock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

const target = "/lake/checkpoint"

func try(t testing.TB, l swanlock.Locker, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	return testserver.Try(t, l, target, opts...)
}

func acquire(t testing.TB, l swanlock.Locker, opts ...swanlock.Option) *testserver.Call {
	return testserver.Acquire(t, l, target, opts...)
}

// held waits until somebody has target's key.
func held(t testing.TB, c *api.Client) *api.KVPair {
	t.Helper()
	var pair *api.KVPair
	testserver.Eventually(t, "the key is locked", func() (err error) {
		if pair, _, err = c.KV().Get(keyOf(target), nil); err == nil && (pair == nil || pair.Session == "") {
			err = errors.New("it is free")
		}
		return err
	})
	return pair
}

// TestHolderIsKilled kills a process that holds a lock without a TTL.
func TestHolderIsKilled(t *testing.T) {
	t.Parallel()
	if addr := os.Getenv("CONSULLOCK_HOLD"); addr != "" {
		try(t, newLocker(t, addr))
		testserver.Hold()
	}
	consul := testserver.Consul(t, "1s")
	kill := testserver.HeldByChild(t, "CONSULLOCK_HOLD", consul.Addr)
	l := newLocker(t, consul.Addr)
	if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Fatalf("TryAcquire while another process holds it: got %v, want ErrNotAcquired", err)
	}
	w := acquire(t, l)
	time.Sleep(15 * time.Second)
	w.MustWait("while a process that lives holds the lock")
	kill()
	testserver.Release(t, w.MustGet())
}

// TestServerStops stops the server for longer than the TTL. The holder must know
// before anybody else can hold it.
func TestServerStops(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	for _, opts := range [][]swanlock.Option{nil, {swanlock.WithTTL(4 * time.Second)}} {
		held := try(t, newLocker(t, consul.Addr), opts...)
		resume := consul.Stop()
		testserver.Told(t, held, swanlock.ErrExpired)
		resume()
		next := acquire(t, newLocker(t, consul.Addr)).MustGet()
		testserver.Superseded(t, held, next)
		testserver.Release(t, next)
	}
}

// TestTryIsCutShort gives up a try that the server has not answered yet. What it sent
// is answered later, and must not hold the lock.
func TestTryIsCutShort(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	l, other := newLocker(t, consul.Addr), newLocker(t, consul.Addr)
	resume := consul.Stop()
	defer resume()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if held, err := l.TryAcquire(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("TryAcquire of a server that stands still: got %v, %v, want DeadlineExceeded", held, err)
	}
	resume()
	testserver.Release(t, acquire(t, other).MustGet())
}

// TestAnswerIsLost loses the answer to the request that took the lock.
func TestAnswerIsLost(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	proxy := testserver.NewProxy(t, consul.Addr)
	l, observer := newLocker(t, proxy.Addr, WithSessionTTL(10*time.Second)), client(t, consul.Addr)
	h := l.newHold(must(l.request(target, []swanlock.Option{swanlock.WithFence()})))
	if err := h.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.CutAnswers()
	fence := make(chan uint64, 1)
	go func() {
		f, err := h.lock(t.Context())
		if err != nil {
			t.Errorf("lock: %v, want none, since it was carried out", err)
		}
		fence <- f
	}()
	pair := held(t, observer)
	proxy.Reset()
	proxy.Heal()
	if got := <-fence; got != pair.ModifyIndex {
		t.Errorf("fence: got %d, want %d", got, pair.ModifyIndex)
	}
	if held, err := h.Release(t.Context()); !held || err != nil {
		t.Errorf("Release: got %t, %v", held, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestCutOff cuts off a holder and a waiter, each on a network of its own.
func TestCutOff(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	holders, waiters := testserver.NewProxy(t, consul.Addr), testserver.NewProxy(t, consul.Addr)
	lost := try(t, newLocker(t, holders.Addr))
	first := acquire(t, newLocker(t, waiters.Addr))
	second := acquire(t, newLocker(t, consul.Addr))
	time.Sleep(time.Second)
	waiters.Cut()
	holders.Cut()
	next := second.MustGet()
	testserver.Told(t, lost, swanlock.ErrExpired)
	waiters.Reset()
	waiters.Heal()
	holders.Heal()
	testserver.Superseded(t, lost, next)
	first.MustWait("while another holds the lock")
	testserver.Release(t, next)
	testserver.Release(t, first.MustGet())
}

// TestServerRestarts kills the server and starts it again.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	ttl := WithSessionTTL(20 * time.Second)
	l, other := newLocker(t, consul.Addr, ttl), newLocker(t, consul.Addr, ttl)
	first := try(t, l, swanlock.WithFence())
	w := acquire(t, other, swanlock.WithFence())
	consul.Restart()
	testserver.Eventually(t, "Refresh after the restart", func() error { return first.Refresh(t.Context()) })
	w.MustWait("while another holds the lock")
	testserver.Release(t, first)
	next := w.MustGet()
	if was, is := first.Info().Fence, next.Info().Fence; is <= was {
		t.Errorf("fence after the restart: got %d, want over %d", is, was)
	}

	// Without its data it knows of no lock. The holder is told.
	consul.RestartEmpty()
	testserver.Told(t, next, swanlock.ErrLost)
	testserver.Release(t, try(t, l))
}

// TestLeastTTL asks for less than the server grants, which is 10 s by default.
func TestLeastTTL(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "10s")
	l := newLocker(t, consul.Addr, WithSessionTTL(10*time.Second))
	for what, call := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
		"TryAcquire": l.TryAcquire, "Acquire": l.Acquire,
	} {
		_, err := call(t.Context(), target, swanlock.WithTTL(9*time.Second))
		if !errors.Is(err, errors.ErrUnsupported) || errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(fmt.Sprint(err), "10s") {
			t.Errorf("%s with a TTL of 9 s: got %v, want ErrUnsupported and the least, 10s", what, err)
		}
	}
	testserver.Release(t, try(t, l, swanlock.WithTTL(10*time.Second)))
}

// TestSession looks at what lies behind a lock: a session that no health check ends,
// with a lock delay that is not Consul's default of 15 s, under a key that does not
// begin with a slash. The end of the session frees the lock.
func TestSession(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	l, c := newLocker(t, consul.Addr), client(t, consul.Addr)
	lost := try(t, l, swanlock.WithTTL(time.Hour))
	pair := held(t, c)
	session, _, err := c.Session().Info(pair.Session, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(session.NodeChecks)+len(session.ServiceChecks)+len(session.Checks) > 0 || session.LockDelay != time.Millisecond {
		t.Errorf("got the session %+v, want no checks and a lock delay of 1 ms", session)
	}
	// A write by somebody that does not ask for the lock leaves it as it is.
	if _, err := c.KV().Put(&api.KVPair{Key: pair.Key, Value: []byte("theirs")}, nil); err != nil {
		t.Fatal(err)
	}
	if err := lost.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh after a write to the key: %v", err)
	}
	start := time.Now()
	destroyOf(t, c, target)
	if err := lost.Refresh(t.Context()); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Refresh when the session has ended: got %v, want ErrLost", err)
	}
	testserver.Release(t, acquire(t, l).MustGet())
	if took := time.Since(start); took > 14*time.Second {
		t.Errorf("the lock was free %v after the end of its session: is the lock delay that of Consul?", took)
	}
	// So does the loss of the key alone, which its session does not know of.
	lost = try(t, l, swanlock.WithTTL(time.Hour))
	if _, err := c.KV().Delete(keyOf(target), nil); err != nil {
		t.Fatal(err)
	}
	if err := lost.Refresh(t.Context()); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Refresh when the key was deleted: got %v, want ErrLost", err)
	}
	_ = lost.Release(t.Context())
	// A lock that was refused leaves no session.
	kept := try(t, l)
	for range 3 {
		if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("TryAcquire: got %v, want ErrNotAcquired", err)
		}
	}
	if sessions, _, err := c.Session().List(nil); err != nil || len(sessions) != 1 {
		t.Errorf("got %d sessions, %v, want 1", len(sessions), err)
	}
	testserver.Release(t, kept)
}

// TestLockDelayOfAnother has a waiter refused for two seconds after the key became
// free, because of the lock delay of a session that is none of ours. Nothing tells of
// its end: a waiter that only waits for the key to change waits for half a minute.
func TestLockDelayOfAnother(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	c := client(t, consul.Addr)
	theirs, _, err := c.Session().CreateNoChecks(&api.SessionEntry{LockDelay: 2 * time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := c.KV().Acquire(&api.KVPair{Key: keyOf(target), Session: theirs}, nil); !ok || err != nil {
		t.Fatalf("Acquire of the key: got %t, %v", ok, err)
	}
	w := acquire(t, newLocker(t, consul.Addr))
	time.Sleep(time.Second)
	start := time.Now()
	destroyOf(t, c, target)
	testserver.Release(t, w.MustGet())
	if took := time.Since(start); took < 2*time.Second || took > 25*time.Second {
		t.Errorf("the lock was granted %v after the end of its session, want it after the lock delay of 2 s", took)
	}
}

// TestManyWaiters has more callers wait than an agent serves connections of one host.
func TestManyWaiters(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	l := newLocker(t, consul.Addr, WithSessionTTL(20*time.Second))
	first := try(t, l)
	var waits []*testserver.Call
	for range 250 {
		waits = append(waits, testserver.Go(t, func() (swanlock.DistributedLock, error) {
			held, err := l.Acquire(t.Context(), target)
			if err == nil {
				testserver.Release(t, held)
			}
			return held, err
		}))
	}
	time.Sleep(time.Second)
	testserver.Release(t, first)
	for _, w := range waits {
		w.MustGet()
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	if _, err := New(nil); err == nil {
		t.Error("New of a nil client: got nil, want an error")
	}
	c := client(t, "127.0.0.1:1")
	for ttl, ok := range map[time.Duration]bool{0: false, 999 * time.Millisecond: false, time.Second: true} {
		if _, err := New(c, nil, WithSessionTTL(ttl)); (err == nil) != ok {
			t.Errorf("WithSessionTTL(%v): got %v, want none: %t", ttl, err, ok)
		}
	}
}

// TestNodeLeaves takes the agent's node out of the catalog, as a client agent does that
// is stopped by SIGTERM. Its sessions end before the holders know.
func TestNodeLeaves(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	c := client(t, consul.Addr)
	lost := try(t, newLocker(t, consul.Addr), swanlock.WithTTL(time.Hour))
	session, _, err := c.Session().Info(held(t, c).Session, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: session.Node}, nil); err != nil {
		t.Fatal(err)
	}
	if err := lost.Refresh(t.Context()); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Refresh when the node has left: got %v, want ErrLost", err)
	}
	if pair, _, err := c.KV().Get(keyOf(target), nil); err != nil || pair != nil {
		t.Errorf("the key when the node has left: got %v, %v, want none", pair, err)
	}
}
