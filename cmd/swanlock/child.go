package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"
	"time"
)

// lookPath finds the command as a shell does, and fails as one does.
func lookPath(who, name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return path, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", failf(exitNotFound, "%s: the command %s was not found", who, quote(name))
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	return "", failf(exitCannotRun, "%s: the command %s cannot be run: %w", who, quote(name), err)
}

// A child is the command that runs under the lock.
//
// Without a terminal it leads a process group of its own, and what ends it ends
// the whole group, so that no part of it goes on without the lock. In a
// terminal it stays in swanlock's group, where Ctrl-C, Ctrl-Z, fg and pipes
// work as they do without swanlock.
type child struct {
	cmd   *exec.Cmd
	group bool
	done  chan struct{}
}

func startChild(who, path string, argv, env []string, s streams) (*child, error) {
	c := &child{group: !hasTerminal(), done: make(chan struct{})}
	c.cmd = &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: s.in, Stdout: s.out, Stderr: s.err}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: c.group}
	dieWithParent(c.cmd.SysProcAttr)
	if err := c.cmd.Start(); err != nil {
		code := exitCannotRun
		if errors.Is(err, fs.ErrNotExist) { // its interpreter
			code = exitNotFound
		}
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return nil, failf(code, "%s: the command %s cannot be run: %w", who, quote(argv[0]), err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // result tells
	}()
	return c, nil
}

func (c *child) ended() <-chan struct{} { return c.done }

// signal passes sig on. One that asks for the end goes to the whole group; one
// that carries a message (reload, reopen logs) to the command alone. What the
// keyboard sends goes to every process in the foreground by itself, and
// programs take a second SIGINT as "now".
func (c *child) signal(sig syscall.Signal) {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT:
		if !c.group && inForeground() {
			return
		}
		c.send(sig)
	case syscall.SIGTERM:
		c.send(sig)
	default:
		_ = c.cmd.Process.Signal(sig)
	}
}

func (c *child) stop() {
	c.send(syscall.SIGTERM)
	c.send(syscall.SIGCONT) // a stopped process would not see it
}

func (c *child) kill() { c.send(syscall.SIGKILL) }

func (c *child) send(sig syscall.Signal) {
	if c.group {
		_ = syscall.Kill(-c.cmd.Process.Pid, sig)
		return
	}
	_ = c.cmd.Process.Signal(sig)
}

// sweep waits until the group is empty, and empties it when the time is up.
func (c *child) sweep(by time.Duration) {
	if !c.group {
		return
	}
	for end := time.Now().Add(by); syscall.Kill(-c.cmd.Process.Pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.kill()
			return
		}
	}
}

// result is the exit code, as a shell has it, and the same in words. The
// command must have ended.
func (c *child) result() (code int, how string) {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		sig := status.Signal()
		return exitSignal + int(sig), fmt.Sprintf("was ended by a signal (%v)", sig)
	}
	code = c.cmd.ProcessState.ExitCode()
	return code, fmt.Sprintf("exited with %d", code)
}
