// Package pgserver runs a throw-away PostgreSQL for tests, benchmarks and demonstrations: a new cluster in a temporary
// folder, on a free port of 127.0.0.1 and on a Unix socket, gone without trace when the process ends, however it ends.
//
// It needs PostgreSQL's initdb and postgres and finds them itself: in the folder that SWANLOCK_PG_BIN names, else by
// pg_config, on the PATH or in the usual folders. Where there are none, the embedded-postgres library fetches them.
// When run as root, which PostgreSQL refuses to be, the server runs as the user postgres or nobody.
//
// The server is fast rather than safe: fsync and full_page_writes are off. It asks nobody for a password. Its time
// zone is UTC and its locale C. Its superuser and its database are both called postgres.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// A Server is one running PostgreSQL. It is safe for concurrent use.
type Server struct {
	bin     string
	account *account
	guard   *guard
	port    int
	version int

	mu      sync.Mutex
	pid     int // of the postmaster, before it of initdb; 0 when there is none
	stopped bool
}

// An Option changes how a server is started.
type Option func(*options)

type options struct {
	bin      string
	settings []setting

	// Only tests change these.
	embedded embeddedpostgres.Config
	ports    func() (int, error)
}

type setting struct{ name, value string }

// WithBinaries uses the PostgreSQL whose initdb and postgres are in dir, whatever SWANLOCK_PG_BIN says.
func WithBinaries(dir string) Option {
	return func(o *options) { o.bin = dir }
}

// WithSetting sets a server setting (https://www.postgresql.org/docs/current/runtime-config.html), in
// postgresql.conf, so that ALTER SYSTEM can change it later. Port, addresses and socket folder are the server's own.
func WithSetting(name, value string) Option {
	return func(o *options) { o.settings = append(o.settings, setting{name, value}) }
}

// defaults are the settings that make a server cheap and leave nothing outside of its folder.
var defaults = []setting{
	{"fsync", "off"},
	{"full_page_writes", "off"},
	{"max_connections", "200"},
	{"shared_buffers", "16MB"},
	{"max_pred_locks_per_transaction", "10"}, // pg_locks looks through all that there may be
	{"dynamic_shared_memory_type", "mmap"},   // files in the folder, not in /dev/shm
	{"logging_collector", "off"},
}

// Start starts a server and returns once it takes connections. On failure nothing is left, and the error has the end
// of the server's log where there is one. The context bounds the start alone, save for a download of binaries; to end the
// server, call Stop.
func Start(ctx context.Context, opts ...Option) (_ *Server, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pgserver: %w", err)
		}
	}()
	o := options{embedded: embeddedpostgres.DefaultConfig(), ports: freePort}
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{}
	if s.account, err = unprivileged(); err != nil {
		return nil, err
	}
	if s.bin, err = findBinaries(ctx, o.bin); err != nil {
		return nil, err
	}
	if s.guard, err = startGuard(s.account); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.bin == "" {
		if s.bin, err = fetchBinaries(o.embedded, s.Dir(), s.account); err != nil {
			return nil, err
		}
	}
	if err := s.initialize(ctx, append(defaults[:len(defaults):len(defaults)], o.settings...)); err != nil {
		return nil, err
	}
	if err := s.launchOn(ctx, o.ports); err != nil {
		return nil, err
	}
	return s, nil
}

// URL returns the connection string for TCP. Each of params is a "name=value", not yet escaped, that is added to it or
// replaces what is there, user and dbname included: URL("application_name=a test", "dbname=other").
func (s *Server) URL(params ...string) string {
	return s.connString(s.Addr(), url.Values{}, params)
}

// SocketURL is like URL, over the Unix socket.
func (s *Server) SocketURL(params ...string) string {
	return s.connString("", url.Values{"host": {s.Dir()}, "port": {strconv.Itoa(s.port)}}, params)
}

func (s *Server) connString(host string, query url.Values, params []string) string {
	query.Set("sslmode", "disable")
	address := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: host, Path: "/postgres"}
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		switch name { // lib/pq takes the wrong one of two values
		case "user":
			address.User = url.User(value)
		case "dbname":
			address.Path = "/" + value
		default:
			query.Set(name, value)
		}
	}
	// libpq, unlike the Go drivers, does not read + as a space.
	address.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return address.String()
}

// Addr returns the TCP address, "127.0.0.1:port".
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Dir returns the server's folder. The cluster is in its subfolder data, the log is the file log, and the socket
// lies next to it.
func (s *Server) Dir() string { return s.guard.dir }

// Version returns the server's version as server_version_num gives it: 150014 is 15.14.
func (s *Server) Version() int { return s.version }

// PID returns the process id of the postmaster, 0 when there is none.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// A Mode is how Restart shuts the server down
// (https://www.postgresql.org/docs/current/server-shutdown.html).
type Mode string

const (
	Fast      Mode = "fast"      // ends the sessions, then shuts down cleanly
	Immediate Mode = "immediate" // as in a crash: the next start recovers
)

// Restart shuts the server down and starts it again, on the same port and with the same data. It also starts a server
// whose postmaster was killed. It takes a minute at most. On failure the server may be down: Restart may be tried
// again, and Stop removes it.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.restart(ctx, mode); err != nil {
		return fmt.Errorf("pgserver: restart: %w", err)
	}
	return nil
}

func (s *Server) restart(ctx context.Context, mode Mode) error {
	switch {
	case s.stopped:
		return errors.New("the server has been stopped")
	case mode != Fast && mode != Immediate:
		return fmt.Errorf("unknown mode %q: use %q or %q", mode, Fast, Immediate)
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	if err := s.shutDownLocked(ctx, mode); err != nil {
		return err
	}
	for {
		err := s.launch(ctx)
		if err == nil || !transient(err) || pause(ctx) != nil {
			return err
		}
	}
}

// shutDownLocked ends the postmaster, if there is one.
func (s *Server) shutDownLocked(ctx context.Context, mode Mode) error {
	if s.pid == 0 {
		return nil
	}
	if err := shutdown(s.pid, mode); err != nil {
		return err
	}
	for {
		if ok, _ := exited(s.pid); ok {
			s.pid = 0
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the server does not shut down: %w", err)
		}
	}
}

// Stop shuts the server down and removes it, processes and folder. Later calls do nothing; after an error Stop may
// be tried again.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	if err := s.guard.end(); err != nil {
		return fmt.Errorf("pgserver: stop: %w", err)
	}
	if s.pid != 0 {
		kill(s.pid) // in case the guard could not
		for {
			if ok, _ := exited(s.pid); ok {
				break
			}
			time.Sleep(time.Millisecond)
		}
		s.pid = 0
	}
	s.stopped = true
	return nil
}

func (s *Server) data() string    { return filepath.Join(s.Dir(), "data") }
func (s *Server) logFile() string { return filepath.Join(s.Dir(), "log") }

// freePort finds a port that nobody listens on. It lies below the range that systems take the ports of outgoing
// connections from: in it, a client that keeps dialling a server that is down for a restart may be given the server's
// own port, connect to itself, and keep the server from coming back.
func freePort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(6000) // testserver has those above
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port on 127.0.0.1 between 20000 and 26000")
}

// environ is the environment of what is run here. initdb takes the time zone from it.
func environ() []string {
	return append(os.Environ(), "TZ=UTC")
}
