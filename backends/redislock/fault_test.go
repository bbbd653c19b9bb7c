package redislock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

const target = "jobs/nightly"

// holders returns how many of the servers hold the target, as redis-cli would see
// it.
func holders(t *testing.T, servers []*testserver.Node) (n int) {
	t.Helper()
	for _, s := range servers {
		found, err := dial(t, s.Addr).Exists(t.Context(), keyOf(target)).Result()
		if err != nil {
			t.Fatal(err)
		}
		n += int(found)
	}
	return n
}

// eventually waits until f returns true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for start := time.Now(); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// Votes that nobody has a quorum of are not held elsewhere: here two that died
// in the midst have left one each. The lock can be had when one of them is gone.
func TestSplitVotes(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 3)
	l := lockerOn(t, addrs)
	leave := func(server int, value string, d time.Duration) {
		if err := dial(t, servers[server].Addr).Set(t.Context(), keyOf(target), value, d).Err(); err != nil {
			t.Fatal(err)
		}
	}
	leave(0, "x one", 500*time.Millisecond)
	leave(1, "y two", time.Minute)
	held := testserver.Try(t, l, target)
	testserver.Release(t, held)
	leave(0, "y two", time.Minute)
	if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a try while another has a quorum: got %v, want ErrNotAcquired", err)
	}
	if n, err := dial(t, addrs[2]).Exists(t.Context(), keyOf(target)).Result(); n > 0 || err != nil {
		eventually(t, "the vote that it got is given back", func() bool {
			n, err := dial(t, addrs[2]).Exists(t.Context(), keyOf(target)).Result()
			return err == nil && n == 0
		})
	}
}

// Of eight that ask five servers at once, and split the votes perhaps, one gets
// the lock.
func TestEightAtOnce(t *testing.T) {
	_, addrs := several(t, 5)
	var lockers []*Locker
	for range 8 {
		lockers = append(lockers, lockerOn(t, addrs))
	}
	for range 10 {
		var won atomic.Int32
		var group sync.WaitGroup
		begin := make(chan struct{})
		locks := make([]swanlock.DistributedLock, len(lockers))
		for i, l := range lockers {
			group.Go(func() {
				<-begin
				held, err := l.TryAcquire(t.Context(), target)
				if err == nil {
					won.Add(1)
					locks[i] = held
				} else if !errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("one of eight tries at once: got %v, want a lock or ErrNotAcquired", err)
				}
			})
		}
		close(begin)
		group.Wait()
		if got := won.Load(); got != 1 {
			t.Fatalf("%d of eight tries at once got the lock, want 1", got)
		}
		for _, held := range locks {
			if held != nil {
				testserver.Release(t, held)
			}
		}
	}
}

// A hold is a hook of a client that keeps what a script is asked for until it is
// told to send it.
type hold struct {
	hash   string
	arrive chan struct{} // closed: send it
	sent   chan struct{} // closed when it has been answered
}

func (h *hold) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h *hold) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (h *hold) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if len(args) < 2 || args[0] != "evalsha" || args[1] != h.hash {
			return next(ctx, cmd)
		}
		<-h.arrive
		defer close(h.sent)
		return next(ctx, cmd)
	}
}

// An acquire or a refresh that arrives after the release takes nothing.
func TestReleaseOvertakes(t *testing.T) {
	for name, late := range map[string]script{"acquire": acquireScript, "refresh": refreshScript} {
		t.Run(name, func(t *testing.T) {
			servers, addrs := several(t, 3)
			slow := dial(t, addrs[2])
			h := &hold{hash: late.Hash(), arrive: make(chan struct{}), sent: make(chan struct{})}
			l := lockerOn(t, addrs)
			testserver.Release(t, testserver.Try(t, l, "warm")) // the servers have the scripts
			l.servers[2] = newServer(slow)
			slow.AddHook(h)
			held := testserver.Try(t, l, target)
			if name == "refresh" { // Together with the acquire it would not be late.
				eventually(t, "the third server holds the lock", func() bool { return holders(t, servers) == 3 })
			}
			if err := held.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			testserver.Release(t, held)
			eventually(t, "the release reaches the third server", func() bool {
				n, err := dial(t, addrs[2]).Exists(t.Context(), keyOf(target)).Result()
				return err == nil && n == 0
			})
			time.Sleep(100 * time.Millisecond)
			close(h.arrive)
			<-h.sent
			if got := holders(t, servers); got != 0 {
				t.Errorf("%d servers hold the lock after its release, want 0", got)
			}
		})
	}
}

// A releasing context releases a lock when it is asked for its error.
type releasing struct {
	context.Context
	t    *testing.T
	held swanlock.DistributedLock
}

func (c releasing) Err() error {
	testserver.Release(c.t, c.held)
	return nil
}

// A Refresh that has begun before the release, and goes on after it, does not heal the
// servers that have lost the lock.
func TestRefreshAfterRelease(t *testing.T) {
	servers, addrs := several(t, 3)
	l := lockerOn(t, addrs)
	for range 20 {
		held := testserver.Try(t, l, target, swanlock.WithTTL(l.maxTTL))
		eventually(t, "all servers hold the lock", func() bool { return holders(t, servers) == 3 })
		if err := held.Refresh(releasing{context.Background(), t, held}); !errors.Is(err, swanlock.ErrReleased) {
			t.Errorf("Refresh: got %v, want ErrReleased", err)
		}
		eventually(t, "the lock is free", func() bool { return holders(t, servers) == 0 })
	}
}

// One of five that hangs costs nobody anything, whatever the client's timeouts
// are: here it has none, so that a call that waits for that server waits for ever. Nor
// do calls pile up in front of it.
func TestHungServer(t *testing.T) {
	servers, addrs := several(t, 5)
	l := lockerOn(t, addrs)
	patient := redis.NewClient(&redis.Options{Addr: addrs[4], ReadTimeout: -1, MaxRetries: -1, PoolSize: 1000})
	defer patient.Close()
	l.servers[4] = newServer(patient)
	testserver.Release(t, testserver.Try(t, l, target))
	resume := servers[4].Stop()
	defer resume()
	pair := func() {
		held := testserver.Try(t, l, target, swanlock.WithFence())
		if err := held.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		testserver.Release(t, held)
	}
	pair()
	time.Sleep(maxSilence + 100*time.Millisecond)
	waiting := func() int {
		l.servers[4].mu.Lock()
		defer l.servers[4].mu.Unlock()
		return l.servers[4].waiting
	}
	before := waiting()
	for range 100 {
		pair()
	}
	// It is asked seldom whether it is there again: for the lock, which is then released.
	if got := waiting(); got > before+6 {
		t.Errorf("%d calls wait for the server that hangs, want few more than the %d of before", got, before)
	}
	resume()
	eventually(t, "the server is asked again", func() bool {
		held := testserver.Try(t, l, target)
		defer testserver.Release(t, held)
		n, err := dial(t, addrs[4]).Exists(t.Context(), keyOf(target)).Result()
		return err == nil && n == 1
	})
	eventually(t, "nothing is left behind", func() bool { return holders(t, servers) == 0 })
}

// A server that hangs may have the deciding vote: the others are asked again until
// they agree.
func TestHungServerDecides(t *testing.T) {
	servers, addrs := several(t, 5)
	l := lockerOn(t, addrs)
	l.servers[4] = newServer(redis.NewClient(&redis.Options{Addr: addrs[4], ReadTimeout: -1, MaxRetries: -1}))
	defer l.servers[4].client.(*redis.Client).Close()
	testserver.Release(t, testserver.Try(t, l, "warm"))
	defer servers[4].Stop()()
	for _, i := range []int{0, 1} {
		if err := dial(t, addrs[i]).Set(t.Context(), keyOf(target), "another", 300*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
	}
	testserver.Release(t, testserver.Try(t, l, target))
}

// The end of the context ends every call, also if the only server hangs and the
// client waits for it without end. What was sent is undone when the server goes
// on.
func TestHungAlone(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 1)
	client := redis.NewClient(&redis.Options{Addr: addrs[0], ReadTimeout: -1, MaxRetries: -1})
	l, err := New([]redis.Scripter{client})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	held := testserver.Try(t, l, "other", swanlock.WithTTL(30*time.Second))
	resume := servers[0].Stop()
	defer resume()
	for name, acquire := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
		"TryAcquire": l.TryAcquire, "Acquire": l.Acquire} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := acquire(ctx, target)
		cancel()
		if !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s on a server that hangs: got %v, want ErrNotAcquired and DeadlineExceeded", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := held.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Refresh on a server that hangs: got %v, want DeadlineExceeded", err)
	}
	if err := held.Release(ctx); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Release on a server that hangs: got %v, want ErrLost: it is not certain", err)
	}
	resume()
	eventually(t, "what was sent is undone", func() bool { return holders(t, servers) == 0 })
}

// The network falls silent between a holder and most servers: it knows at its
// deadline, and nobody has the lock before.
func TestCut(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		servers, addrs := several(t, n)
		via := append([]string(nil), addrs...)
		var proxies []*testserver.Proxy
		for i := range n/2 + 1 {
			p := testserver.NewProxy(t, addrs[i])
			proxies, via[i] = append(proxies, p), p.Addr
		}
		l, other := lockerOn(t, via), lockerOn(t, addrs)
		held := testserver.Try(t, l, target, swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
		for _, p := range proxies {
			p.Cut()
		}
		next, err := other.Acquire(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("N=%d: Err of a holder that is cut off when another holds the lock: got %v, want ErrExpired", n, err)
		}
		for _, p := range proxies {
			p.Heal()
		}
		if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("N=%d: Release after the cut: got %v, want ErrExpired", n, err)
		}
		if err := next.Refresh(t.Context()); err != nil {
			t.Errorf("N=%d: Refresh of the next holder: %v", n, err)
		}
		testserver.Release(t, next)
		eventually(t, "nothing is left behind", func() bool { return holders(t, servers) == 0 })
	}
}

// A majority is enough: two of five are killed.
func TestKilledMinority(t *testing.T) {
	t.Parallel()
	servers, addrs := several(t, 5)
	l, other := lockerOn(t, addrs), lockerOn(t, addrs)
	held := testserver.Try(t, l, target)
	servers[0].Kill()
	servers[3].Kill()
	if err := held.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh with three of five: %v", err)
	}
	if _, err := other.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a rival's try with three of five: got %v, want ErrNotAcquired", err)
	}
	testserver.Release(t, held)
	testserver.Release(t, testserver.Try(t, other, target))
	servers[1].Kill()
	_, err := other.TryAcquire(t.Context(), target)
	if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a try with two of five: got %v, want an error that is not ErrNotAcquired", err)
	}
}

// Fences rise although one holder's clock is an hour ahead, and although each
// reaches another majority: the fence that it got must be known to all of those, not
// to the one alone that had seen a higher one.
func TestFencesOfMajorities(t *testing.T) {
	_, addrs := several(t, 3)
	var last uint64
	for i, ahead := range []time.Duration{time.Hour, 0, 0, 0, 0, 0, 0} {
		reached := append([]string(nil), addrs...)
		reached[(2+i)%3] = "127.0.0.1:1"
		l := lockerOn(t, reached)
		l.clock.see(uint64(time.Now().Add(ahead).UnixMicro()))
		held := testserver.Try(t, l, target, swanlock.WithFence())
		if got := held.Info().Fence; got <= last {
			t.Errorf("grant %d: got the fence %d after %d", i, got, last)
		}
		last = held.Info().Fence
		testserver.Release(t, held)
	}
}
