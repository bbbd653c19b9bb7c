package verify

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// A proxy stands between the locks' sessions and the server. Each of its links
// can be closed, or held up in one direction or both, or slowed down. All of
// them can be silent, and new connections too. It delays bytes, and does not
// change or reorder them.
type proxy struct {
	listener net.Listener
	dial     func(ctx context.Context) (net.Conn, error)
	group    sync.WaitGroup
	network  *flow // of all that comes through, connections too

	mu    sync.Mutex
	links map[*link]bool
	shut  bool
}

// newProxy starts a proxy in front of the server that dial connects to.
func newProxy(dial func(ctx context.Context) (net.Conn, error)) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, dial: dial, network: newFlow(), links: make(map[*link]bool)}
	p.group.Go(p.serve)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.shut = true
	p.mu.Unlock()
	p.closeLinks()
	p.network.set(false, 0)
	p.group.Wait()
}

// closeLinks cuts all connections that there are.
func (p *proxy) closeLinks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.connect(client) })
	}
}

func (p *proxy) connect(client net.Conn) {
	p.network.pass() // the kernel has accepted it: to the client it is a connection that does not answer
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	server, err := p.dial(ctx)
	cancel()
	if err != nil {
		client.Close()
		return
	}
	l := &link{client: client, server: server, up: newFlow(), down: newFlow()}
	if a, ok := server.LocalAddr().(*net.TCPAddr); ok {
		l.port = a.Port
	}
	p.mu.Lock()
	if p.shut {
		l.close()
	} else {
		p.links[l] = true
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.pump(server, client, l.up, p.network) })
	both.Go(func() { l.pump(client, server, l.down, p.network) })
	both.Wait()
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// find is the link whose server knows it by a port of ours, or nil.
func (p *proxy) find(port int) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.port == port {
			return l
		}
	}
	return nil
}

// heal ends all faults of all links.
func (p *proxy) heal() {
	p.network.set(false, 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.up.set(false, 0)
		l.down.set(false, 0)
	}
}

// A link is a connection through the proxy.
type link struct {
	client, server net.Conn
	port           int   // our end of the connection to the server
	up, down       *flow // to the server, to the client
}

// close cuts both connections.
func (l *link) close() {
	l.client.Close()
	l.server.Close()
	l.up.set(false, 0)
	l.down.set(false, 0)
}

func (l *link) pump(to, from net.Conn, g, network *flow) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		g.pass()
		network.pass()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				l.close()
				return
			}
		}
		if err == io.EOF { // what comes the other way may still arrive
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				half.CloseWrite()
				return
			}
		}
		if err != nil {
			l.close()
			return
		}
	}
}

// A flow lets bytes through: at once, late, or not until it opens again.
type flow struct {
	mu     sync.Mutex
	change *sync.Cond
	shut   bool
	delay  time.Duration
}

func newFlow() *flow {
	g := &flow{}
	g.change = sync.NewCond(&g.mu)
	return g
}

func (g *flow) set(shut bool, delay time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.delay = shut, delay
	g.change.Broadcast()
}

func (g *flow) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := g.delay; d > 0 {
		g.mu.Unlock()
		time.Sleep(d)
		g.mu.Lock()
	}
	for g.shut {
		g.change.Wait()
	}
}
