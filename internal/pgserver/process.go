package pgserver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// programTimeout bounds how long one of PostgreSQL's programs may take, or the start of PgBouncer. They take half a second, or a minute on a starved machine.
const programTimeout = 3 * time.Minute

// initialize makes the cluster and asks for the version.
func (s *Server) initialize(ctx context.Context, settings []setting) error {
	if err := s.makeCluster(ctx); err != nil {
		return err
	}
	var conf strings.Builder
	for _, set := range settings {
		fmt.Fprintf(&conf, "%s = '%s'\n", set.name, strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(set.value))
	}
	if err := s.configure(conf.String()); err != nil {
		return err
	}
	version, err := s.run(ctx, "postgres", "-C", "server_version_num", "-D", s.data())
	if err != nil {
		return err
	}
	s.version, err = strconv.Atoi(version)
	return err
}

// configure adds lines to postgresql.conf.
func (s *Server) configure(lines string) error {
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(lines)
	return errors.Join(err, f.Close())
}

// launchOn starts the postmaster on one of the ports that next gives: between finding a free port and taking it,
// another process may have taken it.
func (s *Server) launchOn(ctx context.Context, next func() (int, error)) error {
	for try := 1; ; try++ {
		port, err := next()
		if err != nil {
			return err
		}
		s.port = port
		if err = s.launch(ctx); err == nil || !transient(err) || try == 10 {
			return err
		}
	}
}

// transient reports whether the postmaster did not start for a reason that passes: another process has its port, or
// the backends of one that was killed have not ended yet.
func transient(err error) bool {
	return strings.Contains(err.Error(), "Address already in use") ||
		strings.Contains(err.Error(), "pre-existing shared memory block")
}

// launch starts the postmaster and waits until it takes connections.
func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	// What is set by an argument, ALTER SYSTEM cannot change.
	p, err := s.spawn("postgres", "-D", s.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-k", s.Dir())
	if err != nil {
		return err
	}
	for !s.ready() {
		if ok, how := exited(p.pid); ok {
			s.pid = 0
			return p.failed(cmp.Or(how, errors.New("exit status 0")))
		}
		if err := pause(ctx); err != nil {
			return p.failed(fmt.Errorf("not ready: %w", err))
		}
	}
	return nil
}

// ready reports whether the postmaster says that it is. pg_ctl looks at the same line. The file may be of a
// postmaster before this one, so its id counts too.
func (s *Server) ready() bool {
	b, _ := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	lines := strings.Split(string(b), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(s.pid) && strings.TrimSpace(lines[7]) == "ready"
}

// run runs one of PostgreSQL's programs to its end and returns its output.
func (s *Server) run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	p, err := s.spawn(name, args...)
	if err != nil {
		return "", err
	}
	for {
		if ok, how := exited(p.pid); ok {
			s.pid = 0
			if how != nil {
				return "", p.failed(how)
			}
			return p.output(), nil
		}
		if err := pause(ctx); err != nil {
			return "", p.failed(fmt.Errorf("not done: %w", err))
		}
	}
}

// A program is one of PostgreSQL's that was started.
type program struct {
	path  string
	pid   int
	log   string // the file that it writes to
	start int64  // where in it
}

// spawn starts a program as the server's account, with its output in the log.
func (s *Server) spawn(name string, args ...string) (*program, error) {
	log, err := os.OpenFile(s.logFile(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.Dir() // by which the guard knows it
	cmd.Env = environ()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(s.account)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("as %s, which must be able to read the folder: %w", s.account, err)
	}
	s.pid = cmd.Process.Pid
	p := &program{path: cmd.Path, pid: s.pid, log: log.Name(), start: info.Size()}
	return p, cmd.Process.Release() // exited sees to it from here
}

// output returns the end of what the program wrote.
func (p *program) output() string {
	const most = 4096
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	b, _ := io.ReadAll(io.NewSectionReader(f, max(p.start, info.Size()-most), most))
	return string(bytes.TrimSpace(b))
}

// failed returns the error for a program that did not do what it should.
func (p *program) failed(how error) error {
	log := strings.ReplaceAll(p.output(), "\n", "\n\t")
	return fmt.Errorf("%s: %w; its log ends:\n\t%s\ncorrect what it names, or set %s to the folder of another PostgreSQL's binaries",
		p.path, how, log, BinEnv)
}

// pause waits for a moment.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(5 * time.Millisecond):
		return nil
	}
}
