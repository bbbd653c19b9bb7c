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

// A child is the command that runs under the lock, as its parent sees it.
//
// Without a terminal it leads a process group of its own, and what ends it ends
// the whole group. In a terminal it stays in swanlock's group, where Ctrl-C,
// Ctrl-Z, fg and pipes work as they do without swanlock.
type child struct {
	cmd   *exec.Cmd
	group bool
	done  chan struct{}
}

func newChild(path string, argv, env []string, s streams, group bool) *child {
	c := &child{group: group, done: make(chan struct{})}
	c.cmd = &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: s.in, Stdout: s.out, Stderr: s.err}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: group}
	dieWithParent(c.cmd.SysProcAttr)
	return c
}

// startChild starts a command and waits for it in the background.
func startChild(who, path string, argv, env []string, s streams) (*child, error) {
	c := newChild(path, argv, env, s, !hasTerminal())
	if err := c.cmd.Start(); err != nil {
		return nil, startFailure(who, argv[0], err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // result tells
	}()
	return c, nil
}

// startFailure is what a shell says of a command that does not start.
func startFailure(who, name string, err error) error {
	code := exitCannotRun
	if errors.Is(err, fs.ErrNotExist) { // its interpreter
		code = exitNotFound
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return failf(code, "%s: the command %s cannot be run: %w", who, quote(name), err)
}

func (c *child) ended() <-chan struct{} { return c.done }

func (c *child) signal(sig syscall.Signal) {
	if !typed(sig, c.group) {
		_ = c.pass(sig)
	}
}

// typed reports whether the keyboard sent sig, and so sent it to every process
// in the foreground. Programs take a second SIGINT as "now", so it must not be
// passed on as well.
func typed(sig syscall.Signal, group bool) bool {
	return !group && (sig == syscall.SIGINT || sig == syscall.SIGQUIT) && inForeground()
}

// pass passes sig on. One that asks for the end goes to the whole group; one
// that carries a message (reload, reopen logs) to the command alone.
func (c *child) pass(sig syscall.Signal) error {
	if asksForEnd(sig) {
		return c.send(sig)
	}
	return c.cmd.Process.Signal(sig)
}

// asksForEnd reports whether sig asks a process to end.
func asksForEnd(sig syscall.Signal) bool {
	return sig == syscall.SIGINT || sig == syscall.SIGQUIT || sig == syscall.SIGTERM
}

func (c *child) stop() {
	_ = c.send(syscall.SIGTERM)
	_ = c.send(syscall.SIGCONT) // a stopped process would not see it
}

func (c *child) kill() { _ = c.send(syscall.SIGKILL) }

func (c *child) send(sig syscall.Signal) error {
	if c.group {
		return syscall.Kill(-c.cmd.Process.Pid, sig)
	}
	return c.cmd.Process.Signal(sig)
}

// empty reports whether no process of the group is left.
func (c *child) empty() bool {
	return !c.group || errors.Is(syscall.Kill(-c.cmd.Process.Pid, 0), syscall.ESRCH)
}

// sweep waits until the group is empty, and empties it when the time is up.
func (c *child) sweep(by time.Duration) {
	for end := time.Now().Add(by); !c.empty(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.kill()
			return
		}
	}
}

// result is the exit code, as a shell has it, and the same in words. The
// command must have ended.
func (c *child) result() (code int, how string) {
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		return outcome(status)
	}
	code = c.cmd.ProcessState.ExitCode()
	return code, fmt.Sprintf("exited with %d", code)
}

func outcome(status syscall.WaitStatus) (code int, how string) {
	if status.Signaled() {
		sig := status.Signal()
		return exitSignal + int(sig), fmt.Sprintf("was ended by a signal (%v)", sig)
	}
	return status.ExitStatus(), fmt.Sprintf("exited with %d", status.ExitStatus())
}
