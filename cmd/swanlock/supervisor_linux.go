package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervisorName is a command for swanlock run alone.
const supervisorName = "supervise"

// supervisorTitle is what ps shows of it. "pkill swanlock" must not find it: a
// signal that also the supervisor gets counts as sent to all.
const supervisorTitle = "run-supervisor"

// typedWait is how long swanlock may take, on a busy machine, to hear of a Ctrl-C
// that the command had at once.
const typedWait = 2 * time.Second

// A supervisor is the process between swanlock run, which holds the lock, and
// the command. It is the parent of the command and, as the subreaper, of all
// descendants that lose their own parent. So if swanlock or the supervisor is
// killed, the other one knows all processes that are left, and kills them. The
// lock's connection, which both have open, lasts until then.
//
// It takes orders from swanlock, one a line, and reports what happens:
//
//	run             start the command
//	signal N        swanlock got a signal
//	stop            send SIGTERM to all
//	kill            kill all, until none is left
//
//	ready           the command could be started
//	running PID     the command runs
//	failed N TEXT   it cannot be run: an exit code, and why
//	exited STATUS   it has ended: its wait status
//	lingers N TEXT  it has ended, but not N processes, such as TEXT
//	denied TEXT     a process may not be signalled
//	killing         the order was received
//	none            nothing is left: the supervisor ends
//
// The end of the orders is the end of swanlock.
type supervisor struct {
	child  *child
	family family
	detach bool
	grace  time.Duration
	out    *os.File // reports
	errs   io.Writer

	relay    relay
	over     bool // the command has ended
	overAt   time.Time
	none     bool // no descendant is left
	ending   bool // the command was asked to end
	toldAll  bool // and so was all that it started
	stopping bool // the command must not go on
	killing  bool
	tries    tries
	orphan   bool      // swanlock has ended
	killAt   time.Time // if what the command left running must end
	noteAt   time.Time // if it may go on
}

func cmdSupervise(_ context.Context, s streams, args []string) error {
	var orders, reports, socket, group int
	sv := &supervisor{errs: s.err}
	flags := newFlags(supervisorName)
	flags.IntVar(&orders, "orders", -1, "")
	flags.IntVar(&reports, "reports", -1, "")
	flags.IntVar(&socket, "socket", -1, "") // open until we end
	flags.IntVar(&group, "group", 0, "")    // to start the command in; 0: its own
	flags.BoolVar(&sv.detach, "detach", false, "")
	flags.DurationVar(&sv.grace, "grace", 0, "")
	args, err := parse(flags, args, 2, -1)
	if err != nil {
		return err
	}
	if orders < 0 || reports < 0 {
		return failf(exitUsage, "%s is a part of swanlock run", supervisorName)
	}
	for _, fd := range []int{orders, reports, socket} {
		if fd >= 0 {
			syscall.CloseOnExec(fd)
		}
	}
	_ = os.WriteFile("/proc/self/comm", []byte(supervisorTitle), 0)
	sv.out = os.NewFile(uintptr(reports), "reports")
	sv.family = family{root: os.Getpid(), denied: sv.denied}

	// Caught, not ignored: the command would inherit that.
	signals, _ := catch(append(slices.Clone(passedOn), syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)...)
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)

	lines := readLines(os.NewFile(uintptr(orders), "orders"), func(order string) {
		if order == "kill" {
			sv.report("killing") // at once, whatever the loop is at
		}
	})
	sv.report("ready")
	if <-lines != "run" {
		return nil // swanlock has ended
	}
	if err := sv.start(s, args, group); err != nil {
		f, _ := errors.AsType[*failure](err)
		sv.report("failed %d %s", f.code, oneLine(f.err.Error()))
		return &failure{code: f.code}
	}
	sv.report("running %d", sv.child.cmd.Process.Pid)
	sv.loop(lines, signals, deaths)
	sv.report("none")
	return nil
}

func (sv *supervisor) start(s streams, args []string, group int) error {
	if !sv.detach {
		if err := becomeSubreaper(); err != nil {
			return failf(exitCannotRun, "run: this system lets no process keep what the command starts (run with --detach): %w", err)
		}
	}
	sv.child = newChild(args[0], args[1:], os.Environ(), s, group == 0)
	sv.child.cmd.SysProcAttr.Setpgid, sv.child.cmd.SysProcAttr.Pgid = true, group
	if err := sv.child.cmd.Start(); err != nil {
		return startFailure("run", args[1], err)
	}
	return nil
}

// readLines returns what is written to r, which seen sees first; the channel is
// closed at its end.
func readLines(r io.Reader, seen func(line string)) <-chan string {
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(r); in.Scan(); {
			seen(in.Text())
			lines <- in.Text()
		}
	}()
	return lines
}

func (sv *supervisor) report(format string, args ...any) {
	fmt.Fprintf(sv.out, format+"\n", args...)
}

func (sv *supervisor) loop(orders <-chan string, signals, deaths <-chan os.Signal) {
	for !sv.finished() {
		pause := time.Second
		switch {
		case sv.killing:
			pause = sv.tries.pause()
		case sv.detach && sv.stopping, len(sv.relay.pending) > 0:
			pause = 20 * time.Millisecond
		case !sv.killAt.IsZero():
			pause = min(pause, time.Until(sv.killAt))
		}
		select {
		case order, ok := <-orders:
			if !ok {
				orders = nil
				sv.orphan, sv.stopping, sv.killing = true, true, true
			}
			sv.obey(order)
		case sig := <-signals:
			if slices.Contains(passedOn, sig) {
				sv.arrived(fromSupervisor, sig.(syscall.Signal))
			}
		case <-deaths:
			sv.none = reap(sv.reaped)
		case <-time.After(pause):
			sv.none = reap(sv.reaped)
		}
		sv.step(time.Now())
	}
}

// finished reports whether nothing is left to wait for.
func (sv *supervisor) finished() bool {
	if sv.detach {
		return sv.over && (!sv.stopping || sv.child.empty())
	}
	return sv.over && sv.none
}

func (sv *supervisor) obey(order string) {
	verb, rest, _ := strings.Cut(order, " ")
	switch verb {
	case "signal":
		if n, err := strconv.Atoi(rest); err == nil {
			sv.arrived(fromSwanlock, syscall.Signal(n))
		}
	case "stop":
		sv.stopping = true
		if !sv.over {
			sv.child.stop() // The command first: to find the others takes longer.
		}
		if !sv.detach {
			sv.signalAll(syscall.SIGTERM, func(p procStat) bool { return !sv.hasFrom(p) })
			sv.signalAll(syscall.SIGCONT, nil) // a stopped process would not see it
		}
	case "kill":
		sv.stopping, sv.killing = true, true
	}
}

func (sv *supervisor) arrived(from source, sig syscall.Signal) {
	if !sv.relay.arrive(from, sig, time.Now()) || !asksForEnd(sig) {
		return
	}
	sv.ending, sv.toldAll = true, true
	if sv.over {
		sv.endRest()
	}
}

// step does what is due.
func (sv *supervisor) step(now time.Time) {
	for _, sig := range sv.relay.due(now) {
		sv.pass(sig)
	}
	if !sv.killAt.IsZero() && !now.Before(sv.killAt) {
		sv.killing = true
	}
	if sv.killing {
		sv.killAll()
	}
	if !sv.noteAt.IsZero() && !now.Before(sv.noteAt) {
		sv.note()
	}
	if !sv.over {
		// The warning about a command that became another user comes before it
		// matters.
		sv.check(syscall.Kill(sv.child.cmd.Process.Pid, 0))
	}
}

// pass passes sig on to the command, or ends what it left running.
func (sv *supervisor) pass(sig syscall.Signal) {
	switch {
	case !sv.over:
		sv.ending = sv.ending || asksForEnd(sig)
		sv.check(sv.child.pass(sig))
	case sv.detach, !asksForEnd(sig):
	case !sv.child.group && sig != syscall.SIGTERM && time.Since(sv.overAt) < typedWait:
		// It may be the very Ctrl-C that ended the command.
	default:
		sv.endRest()
	}
}

// check reports the command if it may not be signalled.
func (sv *supervisor) check(err error) {
	if !errors.Is(err, syscall.EPERM) {
		return
	}
	if p, err := readStat(sv.child.cmd.Process.Pid); err == nil {
		sv.family.deny(p)
	}
}

func (sv *supervisor) reaped(pid int, status syscall.WaitStatus) {
	if pid != sv.child.cmd.Process.Pid {
		return
	}
	sv.over, sv.overAt = true, time.Now()
	sv.report("exited %d", uint32(status))
	switch {
	case sv.detach:
	case sv.ending:
		sv.endRest()
	case !sv.stopping:
		sv.noteAt = time.Now().Add(time.Second)
	}
}

// endRest ends what the command left running: SIGTERM for what did not get it
// yet, and SIGKILL after the grace.
func (sv *supervisor) endRest() {
	if !sv.killAt.IsZero() || sv.detach {
		return
	}
	sv.killAt, sv.noteAt = time.Now().Add(sv.grace), time.Time{}
	if sv.toldAll {
		return
	}
	sv.signalAll(syscall.SIGTERM, func(p procStat) bool { return !sv.ending || !sv.hasFrom(p) })
	sv.signalAll(syscall.SIGCONT, nil)
}

// hasFrom reports whether what is sent to the command reaches p as well.
func (sv *supervisor) hasFrom(p procStat) bool {
	cmd := sv.child.cmd.Process.Pid
	return p.pid == cmd || sv.child.group && p.group == cmd
}

// killAll is called until nothing is left, so that it also gets what is started
// between its look and its kill.
func (sv *supervisor) killAll() {
	if sv.detach {
		if !sv.over || sv.child.group {
			sv.check(sv.child.send(syscall.SIGKILL))
		}
		return
	}
	if !sv.over {
		_ = sv.child.send(syscall.SIGKILL) // without /proc it is all we can do
	}
	sv.none = sv.family.killAll(sv.reaped)
}

func (sv *supervisor) signalAll(sig syscall.Signal, wanted func(procStat) bool) {
	if err := sv.family.signal(sig, wanted); err != nil && !sv.over {
		_ = sv.child.send(sig)
	}
}

// note reports that the command has ended and something that it started has
// not.
func (sv *supervisor) note() {
	sv.noteAt = time.Time{}
	all, _ := descendants(sv.family.root)
	all = slices.DeleteFunc(all, func(p procStat) bool { return p.zombie })
	if len(all) > 0 {
		sv.report("lingers %d %s", len(all), all[0])
	}
}

func (p procStat) String() string { return fmt.Sprintf("%d (%s)", p.pid, oneLine(p.name)) }

func (sv *supervisor) denied(p procStat) {
	if sv.orphan {
		complain(sv.errs, fmt.Errorf("run: swanlock was killed, and %w; its lock lasts for the rest of its TTL at most", deniedError(p.String())))
		return
	}
	sv.report("denied %v", p)
}

// A deniedError names a process that swanlock may not signal.
type deniedError string

func (d deniedError) Error() string {
	return "process " + string(d) + ", which the command started, runs as another user and cannot be ended from here"
}

// inherit clears the flag that closes f on exec, and returns its number. It does not
// call Fd, which would make the lock's connection block: neither a deadline nor its
// Close ends a read then.
func inherit(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(n uintptr) {
		fd = int(n)
		_, err = unix.FcntlInt(n, unix.F_SETFD, 0)
	})
	return fd, errors.Join(failed, err)
}
