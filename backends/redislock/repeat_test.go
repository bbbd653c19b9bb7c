package redislock

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// repeating returns a locker whose client repeats a command that gets no answer, on
// connections that wrap makes.
func repeating(t *testing.T, addr string, wrap func(net.Conn) net.Conn) *Locker {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: 200 * time.Millisecond,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return wrap(conn), err
		}})
	t.Cleanup(func() { client.Close() })
	l, err := New([]redis.Scripter{client})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A lostAnswer is a connection that is cut when the answer to what is sent next
// has come, before it is read.
type lostAnswer struct {
	net.Conn
	lose *atomic.Bool
}

func (c lostAnswer) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.lose.CompareAndSwap(true, false) {
		c.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

// The client repeats a command whose answer was lost. The server meets the token
// that it has let in itself.
func TestRepeatedCommand(t *testing.T) {
	_, addrs := several(t, 1)
	var lose atomic.Bool
	l := repeating(t, addrs[0], func(conn net.Conn) net.Conn { return lostAnswer{conn, &lose} })
	testserver.Release(t, testserver.Try(t, l, target))
	lose.Store(true)
	first := testserver.Try(t, l, target, swanlock.WithFence())
	if lose.Load() {
		t.Fatal("no answer was lost")
	}
	testserver.Release(t, first)
	second := testserver.Try(t, l, target, swanlock.WithFence())
	if second.Info().Fence <= first.Info().Fence {
		t.Errorf("fence: got %d after %d", second.Info().Fence, first.Info().Fence)
	}
	lose.Store(true)
	if err := second.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh whose first answer was lost: %v", err)
	}
	lose.Store(true)
	if err := second.Release(t.Context()); !errors.Is(err, lease.ErrRepeated) {
		t.Errorf("Release whose first answer was lost: got %v, want ErrLost that says why", err)
	}
}

// A lateConn keeps back what is sent on it next, also when the client has closed it,
// until arrive is closed.
type lateConn struct {
	net.Conn
	late   *atomic.Bool
	arrive chan struct{}
	sent   chan struct{} // closed when that has arrived
}

func (c lateConn) Write(b []byte) (int, error) {
	if !c.late.CompareAndSwap(true, false) {
		return c.Conn.Write(b)
	}
	b = bytes.Clone(b)
	go func() {
		defer close(c.sent)
		defer c.Conn.Close()
		<-c.arrive
		c.Conn.SetDeadline(time.Time{})
		c.Conn.Write(b)
		c.Conn.Read(make([]byte, 1))
	}()
	return len(b), nil
}

func (c lateConn) Close() error {
	select {
	case <-c.arrive:
		return c.Conn.Close()
	default: // It is kept open for what is late, as a network in between may do.
		return nil
	}
}

// The client repeats an acquire that gets no answer, and is answered. The first one
// arrives when the lock has been released, and takes nothing.
func TestRepeatedCommandArrivesLate(t *testing.T) {
	servers, addrs := several(t, 1)
	var late atomic.Bool
	arrive, sent := make(chan struct{}), make(chan struct{})
	l := repeating(t, addrs[0], func(conn net.Conn) net.Conn { return lateConn{conn, &late, arrive, sent} })
	testserver.Release(t, testserver.Try(t, l, target))
	late.Store(true)
	testserver.Release(t, testserver.Try(t, l, target, swanlock.WithTTL(l.maxTTL)))
	if late.Load() {
		t.Fatal("no command was late")
	}
	close(arrive)
	<-sent
	if n := holders(t, servers); n != 0 {
		t.Errorf("%d server holds the lock after its release, want 0", n)
	}
}
