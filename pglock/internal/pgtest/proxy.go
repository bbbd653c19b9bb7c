package pgtest

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Proxy stands between a driver and the server. It counts what goes by, and
// it can be a network that loses or delays the server's answers.
type Proxy struct {
	listener net.Listener
	server   string
	URL      string
	group    sync.WaitGroup

	bursts atomic.Int64 // of the client's bytes, each after some of the server's
	ready  atomic.Int64 // the server's ReadyForQuery messages
	Muted  atomic.Bool  // the server's answers are lost
	Delay  atomic.Int64 // of each of the server's answers
	swap   atomic.Bool  // the last bytes were the server's
}

// NewProxy starts a proxy in front of the shared server, closed with the test.
func NewProxy(t testing.TB) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	u, err := url.Parse(Server(t).URL())
	Must(t, err)
	p := &Proxy{listener: l, server: u.Host}
	u.Host = l.Addr().String()
	p.URL = u.String()
	p.swap.Store(true)
	p.group.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.group.Wait()
	})
	return p
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			client.Close()
			continue
		}
		p.group.Go(func() {
			defer server.Close()
			io.Copy(server, watched{client, func([]byte) {
				if p.swap.Swap(false) {
					p.bursts.Add(1)
				}
			}})
		})
		p.group.Go(func() {
			defer client.Close()
			p.answers(client, server)
		})
	}
}

// answers passes on the server's messages, whole.
func (p *Proxy) answers(client io.Writer, server io.Reader) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		message := append(head, make([]byte, binary.BigEndian.Uint32(head[1:])-4)...)
		if _, err := io.ReadFull(server, message[5:]); err != nil {
			return
		}
		p.swap.Store(true)
		if head[0] == 'Z' {
			p.ready.Add(1)
			time.Sleep(time.Duration(p.Delay.Load()))
		}
		if p.Muted.Load() {
			continue
		}
		if _, err := client.Write(message); err != nil {
			return
		}
	}
}

// watched is a reader that shows what was read.
type watched struct {
	io.Reader
	see func([]byte)
}

func (w watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if n > 0 {
		w.see(b[:n])
	}
	return n, err
}

// Trips counts the round trips of f. Bursts and ReadyForQuery agree, as neither
// driver sends ahead.
func (p *Proxy) Trips(t testing.TB, f func()) int {
	t.Helper()
	bursts, ready := p.bursts.Load(), p.ready.Load()
	f()
	bursts, ready = p.bursts.Load()-bursts, p.ready.Load()-ready
	if bursts != ready {
		t.Errorf("the client spoke %d times, but the server was ready %d times", bursts, ready)
	}
	return int(bursts)
}
