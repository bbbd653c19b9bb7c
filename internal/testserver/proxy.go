//go:build unix

package testserver

import (
	"net"
	"sync"
	"testing"
)

// A Proxy stands between clients and a server.
type Proxy struct {
	Addr string // where clients connect to

	server   string
	listener net.Listener
	group    sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond
	conns  map[net.Conn]bool
	cut    map[direction]bool // what is sent there does not arrive
	closed bool
}

type direction string

const (
	up   direction = "to the server"
	down direction = "to the client"
)

// NewProxy starts a proxy in front of server, which ends with t.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), server: server, listener: l, conns: make(map[net.Conn]bool), cut: make(map[direction]bool)}
	p.change = sync.NewCond(&p.mu)
	p.group.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Heal()
		p.Reset()
		p.group.Wait()
	})
	return p
}

// Cut has the network fall silent, as if its cable were cut: connections stay, new
// ones are accepted by the kernel, and nothing arrives until Heal.
func (p *Proxy) Cut() { p.set(true, true) }

// CutAnswers has the server get what is sent, and the client no answer, until Heal.
func (p *Proxy) CutAnswers() { p.set(false, true) }

// Heal ends the silence. What was sent meanwhile arrives then.
func (p *Proxy) Heal() { p.set(false, false) }

func (p *Proxy) set(cutUp, cutDown bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut[up], p.cut[down] = cutUp, cutDown
	p.change.Broadcast()
}

// Reset closes all connections. What was on its way is lost, and new connections
// are made.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.connect(client) })
	}
}

func (p *Proxy) connect(client net.Conn) {
	defer client.Close()
	if !p.keep(client) {
		return
	}
	defer p.forget(client)
	p.pass(up)
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(server) {
		return
	}
	defer p.forget(server)
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client, up) })
	both.Go(func() { p.pump(client, server, down) })
	both.Wait()
}

// keep reports whether c may go on: the proxy is not closed.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.closed
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// pass waits until something can be sent in direction d.
func (p *Proxy) pass(d direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.cut[d] {
		p.change.Wait()
	}
}

// pump copies until one of both is closed, and closes both then.
func (p *Proxy) pump(to, from net.Conn, d direction) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.pass(d)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
