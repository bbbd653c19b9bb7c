package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A PgBouncer is a pooler in front of a Server.
type PgBouncer struct {
	server *Server
	port   int
	dir    string
	cmd    *exec.Cmd
	stdin  io.Closer
	log    *bytes.Buffer // for Stop alone
}

// ErrNoPgBouncer says that PgBouncer is not installed. It is no part of PostgreSQL.
var ErrNoPgBouncer = errors.New("PgBouncer is not installed: Debian's package is pgbouncer")

// PgBouncer starts a pooler in a pool mode, with lines for its configuration, and returns once it takes connections. It
// prepares no statements where they are missing.
func (s *Server) PgBouncer(ctx context.Context, mode string, settings ...string) (_ *PgBouncer, err error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return nil, ErrNoPgBouncer
		}
	}
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return nil, err
	}
	var minor int
	if _, err := fmt.Sscanf(string(version), "PgBouncer 1.%d", &minor); err != nil {
		return nil, fmt.Errorf("pgserver: %q: %w", version, err)
	}
	if minor >= 21 { // from then on it can prepare them
		settings = append(settings, "max_prepared_statements = 0")
	}
	b := &PgBouncer{server: s, log: new(bytes.Buffer)}
	if b.port, err = freePort(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "pgbouncer"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}()
	config := filepath.Join(b.dir, "pgbouncer.ini")
	err = errors.Join(os.Chmod(b.dir, 0o755),
		os.WriteFile(filepath.Join(b.dir, "users"), []byte(`"postgres" ""`), 0o644),
		os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
default_pool_size = 50
log_connections = 0
log_disconnections = 0
auth_file = %s/users
pool_mode = %s
%s
`, s.port, b.port, b.dir, mode, strings.Join(settings, "\n")), 0o644))
	if err != nil {
		return nil, err
	}
	args := []string{config}
	if os.Geteuid() == 0 { // it refuses to be root
		args = append(args, "-u", "nobody")
	}
	// The shell ends it when this process ends, however that ends.
	b.cmd = exec.Command("/bin/sh", append([]string{"-c", `"$@" <&- & read -r _; kill -INT $!; wait $!`, "sh", program}, args...)...)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err = b.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		conn, err := net.Dial("tcp", b.addr())
		if err == nil {
			return b, conn.Close()
		}
		if err := pause(ctx); err != nil {
			return nil, errors.Join(err, fmt.Errorf("PgBouncer said: %s", b.Stop()))
		}
	}
}

func (b *PgBouncer) addr() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

// URL is like the server's, through the pooler.
func (b *PgBouncer) URL(params ...string) string {
	u, err := url.Parse(b.server.URL(params...))
	if err != nil {
		panic(err)
	}
	u.Host = b.addr()
	return u.String()
}

// Stop ends the pooler, and returns what it has logged.
func (b *PgBouncer) Stop() (log string) {
	_ = b.stdin.Close()
	_ = b.cmd.Wait()
	_ = os.RemoveAll(b.dir)
	return b.log.String()
}
