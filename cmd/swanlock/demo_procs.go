package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// procs are the processes of a demo.
type procs struct {
	self string
	env  []string

	mu    sync.Mutex
	all   []*proc
	ended bool
}

type proc struct {
	*exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}
	err    error // of Wait, once done
}

func (ps *procs) init(dsn string) (err error) {
	if ps.self, err = os.Executable(); err != nil {
		return err
	}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "SWANL") {
			ps.env = append(ps.env, e)
		}
	}
	ps.env = append(ps.env, dsnVar+"="+dsn)
	return nil
}

// swanlock starts this very program.
func (ps *procs) swanlock(args ...string) (*proc, error) {
	return ps.start(nil, nil, ps.self, args...)
}

// start starts a program that end will end.
func (ps *procs) start(in io.Reader, out io.Writer, name string, args ...string) (*proc, error) {
	p := &proc{Cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.Env, p.Stdin, p.Stdout, p.Stderr = ps.env, in, out, &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us alone
	dieWithParent(p.SysProcAttr)
	p.WaitDelay = time.Second
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.ended {
		return nil, errors.New("the demo has ended")
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	ps.all = append(ps.all, p)
	go func() {
		defer close(p.done)
		p.err = p.Wait()
	}()
	return p, nil
}

// wait waits for the program and tells how it failed.
func (p *proc) wait() error {
	<-p.done
	if p.err != nil {
		return errors.Join(p.err, fmt.Errorf("%s: %s", strings.Join(p.Args[1:], " "), p.stderr.String()))
	}
	return nil
}

// end ends all that runs, whatever state it is in, and lets nothing start.
func (ps *procs) end() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.ended = true
	for _, p := range ps.all {
		select {
		case <-p.done:
			continue
		default:
		}
		// SIGTERM first: swanlock run passes it on to its command.
		_ = syscall.Kill(-p.Process.Pid, syscall.SIGTERM)
		_ = syscall.Kill(-p.Process.Pid, syscall.SIGCONT)
		select {
		case <-p.done:
		case <-time.After(time.Second):
			_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL)
			<-p.done
		}
	}
}
