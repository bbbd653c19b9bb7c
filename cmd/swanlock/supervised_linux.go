package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// killWait is how long a supervisor that is told to kill may take to say that
// it does: it may be stopped. Then it is killed, and swanlock takes over. That is
// harmless, so it need not be long.
const killWait = time.Second

// A supervised is the command, as swanlock run sees it through its supervisor.
// It has ended when nothing that it started is left, or with o.detach, with
// the command itself.
type supervised struct {
	cmd    *exec.Cmd // the supervisor
	orders *os.File
	group  bool // the command leads a process group
	detach bool
	quiet  bool
	warn   func(error)

	pid     int         // of the command
	over    atomic.Bool // the command has ended
	killing atomic.Bool // the supervisor says that it kills
	given   atomic.Bool // we gave the supervisor up
	status  syscall.WaitStatus
	gone    chan struct{}
}

// startCommand starts the command under a supervisor, unless ready, which it calls
// just before, returns an error. The supervisor keeps socket, which may be nil, open
// as long as it runs.
func startCommand(o runOptions, path string, env []string, socket *os.File, s streams, warn func(error), ready func() error) (job, error) {
	p := &supervised{group: !hasTerminal(), detach: o.detach, quiet: o.quiet, warn: warn, gone: make(chan struct{})}
	fail := func(err error) (job, error) {
		return nil, failf(exitCannotRun, "run: cannot supervise the command: %w", err)
	}
	if !o.detach {
		if err := becomeSubreaper(); err != nil {
			return fail(err)
		}
	}
	ordersIn, orders, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer ordersIn.Close()
	reports, reportsOut, err := os.Pipe()
	if err != nil {
		orders.Close()
		return fail(err)
	}
	defer reportsOut.Close()
	p.orders = orders

	args := []string{supervisorTitle, supervisorName, "--grace", o.grace.String(), "--detach=" + strconv.FormatBool(o.detach)}
	if !p.group {
		args = append(args, "--group", strconv.Itoa(syscall.Getpgrp()))
	}
	// They keep their numbers, since the command may have been given others.
	for name, f := range map[string]*os.File{"--orders": ordersIn, "--reports": reportsOut, "--socket": socket} {
		if f == nil {
			continue
		}
		fd, err := inherit(f)
		if err != nil {
			orders.Close()
			reports.Close()
			return fail(err)
		}
		args = append(args, name, strconv.Itoa(fd))
	}
	args = append(append(args, "--", path), o.argv...)
	p.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: args, Env: env, Stdin: s.in, Stdout: s.out, Stderr: s.err}
	// A process group of its own, to which no terminal and no caller sends
	// signals.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	startingChild.Lock()
	err = p.cmd.Start()
	if err == nil {
		ownChild = p.cmd.Process.Pid
	}
	startingChild.Unlock()
	if err != nil {
		orders.Close()
		reports.Close()
		return fail(err)
	}
	reportsOut.Close() // or there would be no end

	lines := readLines(reports, func(string) {})
	first := <-lines
	if first == "ready" {
		if err := ready(); err != nil {
			orders.Close()
			p.wait(lines, reports)
			return nil, err
		}
		p.order("run")
		first = <-lines
	}
	verb, rest, _ := strings.Cut(first, " ")
	if verb == "running" {
		p.pid, _ = strconv.Atoi(rest)
	}
	go p.wait(lines, reports)
	if verb == "running" {
		return p, nil
	}
	<-p.gone
	code, text, _ := strings.Cut(rest, " ")
	if n, err := strconv.Atoi(code); err == nil && verb == "failed" {
		return nil, &failure{n, errors.New(text)}
	}
	return fail(errors.New("the supervisor ended before it ran the command"))
}

// wait hears the supervisor until nothing is left.
func (p *supervised) wait(lines <-chan string, reports *os.File) {
	defer close(p.gone)
	defer p.orders.Close()
	defer reports.Close()
	p.status = syscall.WaitStatus(syscall.SIGKILL)
	none := false
	for line := range lines {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "exited":
			if n, err := strconv.ParseUint(rest, 10, 32); err == nil {
				p.status = syscall.WaitStatus(n)
				p.over.Store(true)
			}
		case "lingers":
			if n, example, _ := strings.Cut(rest, " "); !p.quiet {
				p.warn(fmt.Errorf("the command has ended, but %s of the processes that it started have not, such as %s: the lock is kept until they end (--detach would free it)", n, example))
			}
		case "denied":
			p.warn(fmt.Errorf("%w: the lock is kept until it ends", deniedError(rest)))
		case "killing":
			p.killing.Store(true)
		case "none", "failed":
			none = true
		}
	}
	_ = p.cmd.Wait()
	if !none {
		if p.pid != 0 && !p.given.Load() {
			p.warn(errors.New("the supervisor was killed, and so is all that the command started"))
		}
		p.takeOver()
	}
}

// takeOver kills what a supervisor that was killed has left to us.
func (p *supervised) takeOver() {
	if p.detach {
		if p.group && p.pid != 0 {
			_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		}
		return
	}
	f := family{root: os.Getpid(), denied: func(s procStat) {
		p.warn(fmt.Errorf("%w: the lock is kept until it ends", deniedError(s.String())))
	}}
	for t := tries(0); !f.killAll(func(int, syscall.WaitStatus) {}); {
		time.Sleep(t.pause())
	}
}

func (p *supervised) order(text string) { _, _ = p.orders.WriteString(text + "\n") }

func (p *supervised) ended() <-chan struct{} { return p.gone }

func (p *supervised) signal(sig syscall.Signal) {
	if p.over.Load() || !typed(sig, p.group) {
		p.order(fmt.Sprintf("signal %d", int(sig)))
	}
}

func (p *supervised) stop() { p.order("stop") }

func (p *supervised) kill() {
	p.order("kill")
	time.AfterFunc(killWait, func() {
		if !p.killing.Load() {
			p.given.Store(true)
			_ = p.cmd.Process.Kill()
		}
	})
}

// sweep has nothing to do: until the end, everything is gone.
func (p *supervised) sweep(time.Duration) {}

func (p *supervised) result() (code int, how string) { return outcome(p.status) }
