//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// An account is the user that the server runs as when this process is root,
// which PostgreSQL refuses to run as. Nil is this process's own.
type account struct {
	name     string
	uid, gid uint32
}

func (a *account) String() string {
	if a == nil {
		return "this user"
	}
	return "user " + a.name
}

// unprivileged returns the account to run the server as.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return &account{name, uint32(uid), uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody: " +
		"add one of them, or run as another user")
}

// attributes makes a process run as acc, in a session of its own, where no terminal's signal reaches it.
func attributes(acc *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if acc != nil {
		attr.Credential = &syscall.Credential{Uid: acc.uid, Gid: acc.gid}
	}
	return attr
}

// exited reports whether the child pid has ended, and how, nil being well. Once it has, pid means nothing any more.
// To ask now and then, instead of waiting in a goroutine, leaves leak checks nothing to find while a server runs.
func exited(pid int) (ok bool, how error) {
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return true, err
		case got == 0:
			return false, nil
		case status.Signaled():
			return true, fmt.Errorf("signal: %v", status.Signal())
		case status.ExitStatus() != 0:
			return true, fmt.Errorf("exit status %d", status.ExitStatus())
		default:
			return true, nil
		}
	}
}

// shutdown asks the postmaster to shut down, also one that was stopped.
func shutdown(pid int, mode Mode) error {
	signal := syscall.SIGINT
	if mode == Immediate {
		signal = syscall.SIGQUIT
	}
	return errors.Join(syscall.Kill(pid, signal), syscall.Kill(pid, syscall.SIGCONT))
}

// kill kills a child that exited has not yet told the end of.
func kill(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }
