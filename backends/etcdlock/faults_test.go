package etcdlock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

const target = "/lake/checkpoint"

func try(t testing.TB, l swanlock.Locker, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	held, err := l.TryAcquire(t.Context(), target, opts...)
	if err != nil {
		t.Fatalf("TryAcquire: %v", err)
	}
	return held
}

// A wait is an Acquire under way.
type wait struct {
	t        testing.TB
	returned chan struct{}
	held     swanlock.DistributedLock
	err      error
}

func acquire(t testing.TB, l swanlock.Locker, opts ...swanlock.Option) *wait {
	w := &wait{t: t, returned: make(chan struct{})}
	go func() {
		defer close(w.returned)
		w.held, w.err = l.Acquire(t.Context(), target, opts...)
	}()
	return w
}

func (w *wait) result() (swanlock.DistributedLock, error) {
	w.t.Helper()
	select {
	case <-w.returned:
	case <-time.After(patience):
		w.t.Fatalf("Acquire did not return within %v", patience)
	}
	return w.held, w.err
}

func (w *wait) mustGet() swanlock.DistributedLock {
	w.t.Helper()
	held, err := w.result()
	if err != nil {
		w.t.Fatalf("Acquire: %v", err)
	}
	return held
}

func (w *wait) waits() bool {
	select {
	case <-w.returned:
		return false
	default:
		return true
	}
}

func release(t testing.TB, held swanlock.DistributedLock) {
	t.Helper()
	if err := held.Release(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// told waits until held is over, and checks that it is lost, or expired.
func told(t testing.TB, held swanlock.DistributedLock, want error) {
	t.Helper()
	select {
	case <-held.Done():
	case <-time.After(patience):
		t.Fatalf("Done was not closed within %v", patience)
	}
	if err := held.Err(); !errors.Is(err, want) {
		t.Errorf("Err: got %v, want one that matches %v", err, want)
	}
}

// inLine waits until target's line has n keys.
func inLine(t testing.TB, l *Locker, n int) {
	t.Helper()
	eventually(t, "the line", func() error {
		if got := keys(t, l.client, target); len(got) != n {
			return fmt.Errorf("got the keys %q, want %d", got, n)
		}
		return nil
	})
}

// TestHolderIsKilled kills a process that holds a lock without a TTL.
func TestHolderIsKilled(t *testing.T) {
	if addr := os.Getenv("ETCDLOCK_HOLD"); addr != "" {
		try(t, newLocker(t, connect(t, addr), WithSessionTTL(minTTL)))
		fmt.Println("held")
		select {}
	}
	etcd := startEtcd(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHolderIsKilled$")
	cmd.Env = append(os.Environ(), "ETCDLOCK_HOLD="+etcd.addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "held"; {
	}
	l := newLocker(t, connect(t, etcd.addr))
	if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Fatalf("TryAcquire while another process holds it: got %v, want ErrNotAcquired", err)
	}
	w := acquire(t, l)
	time.Sleep(2 * minTTL)
	if !w.waits() {
		t.Fatalf("a waiter got the lock of a process that lives: %v", w.err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	release(t, w.mustGet())
}

// TestServerStops stops the server for longer than the TTLs. The holders must know
// before anybody else can hold it.
func TestServerStops(t *testing.T) {
	for name, opts := range map[string][]swanlock.Option{
		"TTL":          {swanlock.WithTTL(minTTL)},
		"auto-refresh": {swanlock.WithTTL(minTTL), swanlock.WithAutoRefresh()},
		"no TTL":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			etcd := startEtcd(t)
			held := try(t, newLocker(t, connect(t, etcd.addr), WithSessionTTL(minTTL)), opts...)
			resume := etcd.Stop()
			defer resume()
			told(t, held, swanlock.ErrExpired)
			resume()
			next := acquire(t, newLocker(t, connect(t, etcd.addr))).mustGet()
			if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
				t.Errorf("Release of the late holder: got %v, want ErrExpired", err)
			}
			if err := next.Refresh(t.Context()); err != nil {
				t.Errorf("Refresh of the next holder: %v", err)
			}
			release(t, next)
		})
	}
}

// TestTryIsCutShort gives up a try that the server has not answered yet. What it sent
// is answered later; it must not hold the lock then, although other locks of the same
// Locker keep its lease alive.
func TestTryIsCutShort(t *testing.T) {
	for name, opts := range map[string][]swanlock.Option{"shared lease": nil, "own lease": {swanlock.WithTTL(time.Minute)}} {
		t.Run(name, func(t *testing.T) {
			etcd := startEtcd(t)
			l, other := newLocker(t, connect(t, etcd.addr), WithSessionTTL(3*time.Second)), newLocker(t, connect(t, etcd.addr))
			kept, err := l.TryAcquire(t.Context(), "another", opts...)
			if err != nil {
				t.Fatal(err)
			}
			release(t, try(t, l, opts...)) // The next one finds a lease.
			resume := etcd.Stop()
			defer resume()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if held, err := l.TryAcquire(ctx, target, opts...); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("TryAcquire of a server that stands still: got %v, %v, want DeadlineExceeded", held, err)
			}
			resume()
			release(t, acquire(t, other).mustGet())
			release(t, kept)
		})
	}
}

// TestAnswerIsLost loses the answers to requests that the server has carried out: an
// acquire finds out that it holds the lock, and holds it once.
func TestAnswerIsLost(t *testing.T) {
	etcd := startEtcd(t)
	proxy := testserver.NewProxy(t, etcd.addr)
	l, other := newLocker(t, connect(t, proxy.Addr)), newLocker(t, connect(t, etcd.addr))
	release(t, try(t, l))
	for name, call := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
		"TryAcquire": l.TryAcquire, "Acquire": l.Acquire,
	} {
		proxy.CutAnswers()
		w := &wait{t: t, returned: make(chan struct{})}
		go func() {
			defer close(w.returned)
			w.held, w.err = call(t.Context(), target)
		}()
		inLine(t, other, 1)
		first := keys(t, other.client, target)[0]
		proxy.Reset()
		proxy.Heal()
		held := w.mustGet()
		if got := keys(t, other.client, target); len(got) != 1 || got[0] != first {
			t.Errorf("%s: got the keys %q, want %q alone", name, got, first)
		}
		release(t, held)
	}
}

// TestCutOff cuts a holder and a waiter off, who each have a network of their own.
func TestCutOff(t *testing.T) {
	etcd := startEtcd(t)
	holders, waiters := testserver.NewProxy(t, etcd.addr), testserver.NewProxy(t, etcd.addr)
	held := try(t, newLocker(t, connect(t, holders.Addr), WithSessionTTL(minTTL)))
	first := acquire(t, newLocker(t, connect(t, waiters.Addr), WithSessionTTL(minTTL)))
	other := newLocker(t, connect(t, etcd.addr))
	inLine(t, other, 2)
	second := acquire(t, other)
	inLine(t, other, 3)

	waiters.Cut()
	if _, err := first.result(); !errors.Is(err, swanlock.ErrLost) || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("a waiter whose lease ended: got %v, want ErrLost", err)
	}
	if err := held.Err(); err != nil || !second.waits() {
		t.Fatalf("the holder: %v; the second waiter waits: %t", err, second.waits())
	}
	holders.Cut()
	next := second.mustGet()
	told(t, held, swanlock.ErrExpired)
	holders.Heal()
	if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
		t.Errorf("Release of the late holder: got %v, want ErrExpired", err)
	}
	if err := next.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh of the next holder: %v", err)
	}
	release(t, next)
}

// TestServerRestarts kills the server and starts it again.
func TestServerRestarts(t *testing.T) {
	etcd := startEtcd(t)
	l, other := newLocker(t, connect(t, etcd.addr)), newLocker(t, connect(t, etcd.addr))
	held := try(t, l, swanlock.WithFence())
	w := acquire(t, other, swanlock.WithFence())
	inLine(t, l, 2)
	etcd.Restart()
	eventually(t, "Refresh after the restart", func() error { return held.Refresh(t.Context()) })
	if !w.waits() {
		t.Fatalf("a waiter returned: %v, %v", w.held, w.err)
	}
	release(t, held)
	next := w.mustGet()
	if was, is := held.Info().Fence, next.Info().Fence; is <= was {
		t.Errorf("fence after the restart: got %d, want over %d", is, was)
	}

	// Without its data it knows of no lock. The holder is told.
	w = acquire(t, l)
	inLine(t, other, 2)
	etcd.RestartEmpty()
	told(t, next, swanlock.ErrLost)
	if held, err := w.result(); err == nil {
		release(t, held) // It gave up its place before it was in line, or came anew.
	} else if !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("a waiter whose server has lost its place: got %v, want ErrLost", err)
	}
	release(t, try(t, l))
}
