package verify

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echoed is a link through a proxy to a server that sends back what it gets.
func echoed(t *testing.T) (client net.Conn, l *link) {
	t.Helper()
	client, l, _ = echoedBy(t)
	return client, l
}

func echoedBy(t *testing.T) (client net.Conn, l *link, p *proxy) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	p, err = newProxy(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Addr().String())
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err = net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		p.close()
		server.Close()
	})
	say(t, client, "a")
	hear(t, client, "a")
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		return client, l, p
	}
	t.Fatal("the proxy has no link")
	return nil, nil, nil
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes, %v, want none and a deadline", n, err)
	}
}

// TestProxyHalfOpen: what is held up arrives when the link is whole again, in
// order, and nothing before.
func TestProxyHalfOpen(t *testing.T) {
	for _, name := range []string{"to the server", "to the client"} {
		t.Run(name, func(t *testing.T) {
			client, l := echoed(t)
			g := l.up
			if name == "to the client" {
				g = l.down
			}
			g.set(true, 0)
			say(t, client, "b")
			silent(t, client)
			say(t, client, "c")
			silent(t, client)
			g.set(false, 0)
			hear(t, client, "bc")
		})
	}
}

func TestProxyDelay(t *testing.T) {
	client, l := echoed(t)
	l.up.set(false, 300*time.Millisecond)
	say(t, client, "b")
	silent(t, client)
	hear(t, client, "b")
}

// TestProxyClose: a cut reaches both ends, also while the link is held up.
func TestProxyClose(t *testing.T) {
	client, l := echoed(t)
	l.up.set(true, 0)
	say(t, client, "b")
	l.close()
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the connection's end", err)
	}
}

// TestProxyEnd: the end of a connection waits like everything else.
func TestProxyEnd(t *testing.T) {
	client, l := echoed(t)
	l.up.set(true, 0)
	say(t, client, "b")
	client.(*net.TCPConn).CloseWrite()
	silent(t, client)
	l.up.set(false, 0)
	hear(t, client, "b")
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

// TestProxySilence: neither a connection that there is nor a new one gets an
// answer, and both go on when the silence ends, or are closed.
func TestProxySilence(t *testing.T) {
	for _, closed := range []bool{false, true} {
		client, _, p := echoedBy(t)
		p.network.set(true, 0)
		next, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		for _, c := range []net.Conn{client, next} {
			say(t, c, "b")
			silent(t, c)
		}
		if closed {
			p.closeLinks()
			client.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want the connection's end", err)
			}
		}
		p.network.set(false, 0)
		hear(t, next, "b")
		if !closed {
			hear(t, client, "b")
		}
	}
}

// TestProxySilenceEnds: a proxy that is silent can be closed.
func TestProxySilenceEnds(t *testing.T) {
	client, _, p := echoedBy(t)
	p.network.set(true, 0)
	say(t, client, "b")
	silent(t, client)
	p.close()
}
