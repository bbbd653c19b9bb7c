package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A procStat is a process as /proc shows it.
type procStat struct {
	pid, parent, group int
	zombie             bool
	started            string // with the pid, names the process for ever
	name               string
}

// readStat reads /proc/PID/stat (proc_pid_stat(5)).
func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// The name may hold anything, parentheses too.
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("/proc/%d/stat has no name", pid)
	}
	rest := bytes.Fields(text[end+1:])
	if len(rest) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	p := procStat{pid: pid, name: string(text[open+1 : end]), started: string(rest[19])}
	p.zombie = rest[0][0] == 'Z' || rest[0][0] == 'X'
	if p.parent, err = strconv.Atoi(string(rest[1])); err == nil {
		p.group, err = strconv.Atoi(string(rest[2]))
	}
	return p, err
}

// descendants are the children of root, their children, and so on. Processes
// that begin, end or lose their parent meanwhile may be missing.
func descendants(root int) ([]procStat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return nil, err
	}
	children := map[int][]procStat{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := readStat(pid); err == nil {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	all := children[root]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].pid]...)
	}
	return all, nil
}

// send sends sig to the process, and to no other that has its pid by now.
func (p procStat) send(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return nil
	case err != nil: // before Linux 5.3, or not allowed
		return syscall.Kill(p.pid, sig)
	}
	defer unix.Close(fd)
	if now, err := readStat(p.pid); err != nil || now.started != p.started {
		return nil
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// A family is all that a process started, directly or not.
type family struct {
	root   int
	denied func(procStat)  // called once for each process that may not be signalled
	told   map[string]bool // by pid and start
}

// signal sends sig to every member that is wanted; a nil wanted is all.
func (f *family) signal(sig syscall.Signal, wanted func(procStat) bool) error {
	all, err := descendants(f.root)
	for _, p := range all {
		if p.zombie || wanted != nil && !wanted(p) {
			continue
		}
		if errors.Is(p.send(sig), syscall.EPERM) {
			f.deny(p)
		}
	}
	return err
}

// killAll kills every member that it finds, collects the children that have
// ended, and reports whether none is left. It is called again until that is so:
// what is started between a look and its kill is found by the next one.
func (f *family) killAll(ended func(pid int, status syscall.WaitStatus)) (none bool) {
	// A process that forks and exits, and whose child does so, is gone before a
	// look at all of /proc is over. But each is a child of ours, since its parent
	// has ended, and those are found at once.
	for range 100 {
		found := false
		for _, pid := range ownChildren() {
			found = syscall.Kill(pid, syscall.SIGKILL) == nil || found
		}
		if reap(ended) {
			return true
		}
		if !found {
			break
		}
	}
	_ = f.signal(syscall.SIGKILL, nil)
	return reap(ended)
}

// ownChildren are the children of this process. It is empty if the kernel was
// built without CONFIG_PROC_CHILDREN.
func ownChildren() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range bytes.Fields(text) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (f *family) deny(p procStat) {
	key := strconv.Itoa(p.pid) + " " + p.started
	if f.told[key] {
		return
	}
	if f.told == nil {
		f.told = map[string]bool{}
	}
	f.told[key] = true
	f.denied(p)
}

// reap collects the children that have ended. It reports whether none is left:
// of a subreaper, that no descendant is.
func reap(ended func(pid int, status syscall.WaitStatus)) (none bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return true
		case pid == 0:
			return false
		default:
			ended(pid, status)
		}
	}
}

// becomeSubreaper makes this process the parent of every descendant that loses
// its own (PR_SET_CHILD_SUBREAPER(2const)).
func becomeSubreaper() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// tries paces what is tried until it works.
type tries int

func (t *tries) pause() time.Duration {
	if *t++; *t < 100 {
		return 10 * time.Millisecond
	}
	return 250 * time.Millisecond // for a process that cannot be killed
}
