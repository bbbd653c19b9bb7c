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

// A Proxy stands between a driver and the server. It counts what goes by, and it
// can be a network that loses or delays what is sent. Everything may be switched
// while connections are in use.
type Proxy struct {
	URL string // for a driver

	Muted     atomic.Bool  // the server's answers are lost; what is sent arrives
	Delay     atomic.Int64 // of each of the server's answers, in nanoseconds
	Swallowed atomic.Int64 // connections that SwallowNext swallowed

	listener net.Listener
	server   string
	group    sync.WaitGroup

	bursts atomic.Int64 // of the client's bytes, each after some of the server's
	ready  atomic.Int64 // the server's ReadyForQuery messages
	swap   atomic.Bool  // the last bytes were the server's

	mu      sync.Mutex
	closed  bool
	links   map[*link]bool
	silence chan struct{} // closed when the silence ends; nil if there is none
	swallow int           // connections to swallow
}

// A link is one client's connection.
type link struct {
	client, server net.Conn
	pid            atomic.Int64 // of the backend, once the server has told it
	cut, over      chan struct{}
	end            sync.Once
}

// NewProxy starts a proxy in front of the shared server, closed with the test.
func NewProxy(t testing.TB) *Proxy {
	t.Helper()
	return NewProxyOf(t, Server(t).URL())
}

// NewProxyOf starts a proxy in front of the server of a URL, closed with the
// test.
func NewProxyOf(t testing.TB, address string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	u, err := url.Parse(address)
	Must(t, err)
	p := &Proxy{listener: l, server: u.Host, links: make(map[*link]bool)}
	u.Host = l.Addr().String()
	p.URL = u.String()
	p.swap.Store(true)
	p.group.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CloseAll()
	p.group.Wait()
}

// CloseAll closes all connections that there are at once, silent ones and those
// that are cut off included. A test defers it that leaves a call waiting.
func (p *Proxy) CloseAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.end.Do(func() { close(l.over) })
		l.client.Close()
		if l.server != nil {
			l.server.Close()
		}
	}
}

// Silence makes the network as silent as one whose other end is a paused
// container or a stopped machine: connections that there are pass nothing on in
// either direction, not even their end, and new ones are accepted and never
// answered, those by which a driver cancels a statement included. Nothing is
// reset.
//
// Call Resume before the test ends: pgx takes five seconds to close a connection
// to a server that does not answer.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silence == nil {
		p.silence = make(chan struct{})
	}
}

// Resume ends the silence. What was sent meanwhile arrives, as it does when a
// paused container runs again.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silence != nil {
		close(p.silence)
		p.silence = nil
	}
}

// SwallowNext makes the network swallow the next n new connections: they are
// accepted and never answered, whatever happens later. All other connections
// work. Swallowed counts them.
func (p *Proxy) SwallowNext(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = n
}

// CutOff cuts the connection to the backend with that process id off for good,
// with no word to either end: neither FIN nor RST. It fails the test if there is
// no such connection.
func (p *Proxy) CutOff(t testing.TB, pid int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.pid.Load() != int64(pid) {
			continue
		}
		select {
		case <-l.cut:
		default:
			close(l.cut)
		}
		return
	}
	t.Fatalf("no connection to backend %d goes through this proxy", pid)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		if p.closed {
			client.Close()
			p.mu.Unlock()
			return
		}
		l := &link{client: client, cut: make(chan struct{}), over: make(chan struct{})}
		p.links[l] = true
		swallowed := p.swallow > 0
		if swallowed {
			p.swallow--
			p.Swallowed.Add(1)
		}
		p.mu.Unlock()
		p.group.Go(func() {
			defer p.forget(l)
			if swallowed {
				io.Copy(io.Discard, client)
				return
			}
			p.serve(l)
		})
	}
}

// forget is called when nothing goes through l any more.
func (p *Proxy) forget(l *link) {
	l.client.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) serve(l *link) {
	if !p.passes(l) {
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	l.server = server
	p.mu.Unlock()
	select {
	case <-l.over: // CloseAll had no server to close yet
		return
	default:
	}
	var questions sync.WaitGroup
	questions.Go(func() {
		defer server.Close()
		p.questions(l)
	})
	p.answers(l)
	l.client.Close()
	questions.Wait()
}

// passes waits until something may go through l, and reports whether it ever
// may.
func (p *Proxy) passes(l *link) bool {
	for {
		select {
		case <-l.cut:
			<-l.over
			return false
		case <-l.over:
			return false
		default:
		}
		p.mu.Lock()
		silence := p.silence
		p.mu.Unlock()
		if silence == nil {
			return true
		}
		select {
		case <-silence:
		case <-l.cut:
		case <-l.over:
			return false
		}
	}
}

// questions passes on what the client sends, and its end.
func (p *Proxy) questions(l *link) {
	b := make([]byte, 32<<10)
	for {
		n, err := l.client.Read(b)
		if !p.passes(l) {
			return
		}
		if n > 0 && p.swap.Swap(false) {
			p.bursts.Add(1)
		}
		if _, failed := l.server.Write(b[:n]); err != nil || failed != nil {
			return
		}
	}
}

// answers passes on the server's messages, whole, and its end.
func (p *Proxy) answers(l *link) {
	for {
		message, err := readMessage(l.server)
		if !p.passes(l) || err != nil {
			return
		}
		p.swap.Store(true)
		switch message[0] {
		case 'K': // BackendKeyData
			l.pid.Store(int64(binary.BigEndian.Uint32(message[5:])))
		case 'Z': // ReadyForQuery
			p.ready.Add(1)
			time.Sleep(time.Duration(p.Delay.Load()))
		}
		if p.Muted.Load() {
			continue
		}
		if !p.passes(l) {
			return
		}
		if _, err := l.client.Write(message); err != nil {
			return
		}
	}
}

// readMessage reads a message of PostgreSQL's protocol: its type, its length, and
// as many bytes as that says.
func readMessage(r io.Reader) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	message := append(head, make([]byte, binary.BigEndian.Uint32(head[1:])-4)...)
	_, err := io.ReadFull(r, message[5:])
	return message, err
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
