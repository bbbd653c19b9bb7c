package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// otherUsers are ways in which root starts something as another user.
var otherUsers = map[string][]string{
	"runuser": {"runuser", "-u", "nobody", "--"},
	"setpriv": {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"},
	"su":      {"su", "-s", "/bin/sh", "nobody", "-c", `exec "$0" "$@"`, "--"},
	"timeout": {"timeout", "-k", "600", "600"},
}

// shared is a file that every user can write to.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "swanlock-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	mark := filepath.Join(dir, "mark")
	for _, err := range []error{os.Chmod(dir, 0o777), os.WriteFile(mark, nil, 0o666), os.Chmod(mark, 0o666)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return mark
}

// A command that root starts as another user has no death signal any more.
func TestOtherUsers(t *testing.T) {
	slow(t)
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	for name, prefix := range otherUsers {
		if _, err := exec.LookPath(prefix[0]); err != nil {
			t.Logf("no %s here", name)
			continue
		}
		for _, end := range []string{"swanlock", "supervisor", "loss"} {
			t.Run(name+"/"+end, func(t *testing.T) {
				t.Parallel()
				target, mark := t.Name(), shared(t)
				p := swanlockRun(t, append(append([]string{"run", "--grace", "500ms", target, "--"}, prefix...), "/bin/sh", "-c", writer, "sh", mark)...)
				writes(t, mark)
				code := 75
				switch end {
				case "swanlock":
					code = -1
					_ = p.Process.Kill()
				case "supervisor":
					code = 128 + 9
					_ = syscall.Kill(supervisorOf(t, p.Process.Pid), syscall.SIGKILL)
				case "loss":
					terminate(t, target)
				}
				endsAlone(t, p, target, mark, code)
			})
		}
	}
}

// What swanlock may not signal keeps the lock, and is told of at once.
func TestCommandBecomesRoot(t *testing.T) {
	slow(t)
	t.Parallel()
	setpriv, err := exec.LookPath("setpriv")
	if os.Getuid() != 0 || err != nil {
		t.Skip("only root can make a program that becomes root: ", err)
	}
	for _, end := range []string{"TERM", "swanlock", "supervisor"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			target, mark := t.Name(), shared(t)
			dir := filepath.Dir(mark)
			become, me := filepath.Join(dir, "become-root"), filepath.Join(dir, "swanlock")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			for from, to := range map[string]string{setpriv: become, exe: me} {
				if err := exec.Command("cp", from, to).Run(); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Chmod(me, 0o755), os.Chmod(become, 0o755|os.ModeSetuid)); err != nil {
				t.Fatal(err)
			}
			p := swanlockCommand(t, nil, "run", "--grace", "100ms", "--ttl", "20s", target, "--", become, "--reuid=0", "--regid=0", "--clear-groups",
				"/bin/sh", "-c", `while [ ! -e "$1.stop" ]; do echo x >>"$1"; sleep 0.02; done; exit 6`, "sh", mark)
			p.Path = me
			p.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
			p.Dir = dir
			errs, err := os.Create(filepath.Join(dir, "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer errs.Close()
			p.Stderr = errs
			p.start()
			writes(t, mark)
			eventually(t, "word of it", func() bool {
				return strings.Contains(read(t, errs.Name()), "runs as another user and cannot be ended from here: the lock is kept until it ends\n")
			})
			code := 6
			switch end {
			case "TERM":
				_ = p.Process.Signal(syscall.SIGTERM)
			case "swanlock":
				code = -1
				_ = p.Process.Kill()
			case "supervisor":
				// The kernel's death signal is not for it either.
				code = 128 + 9
				_ = syscall.Kill(supervisorOf(t, p.Process.Pid), syscall.SIGKILL)
			}
			time.Sleep(time.Second)
			writes(t, mark)
			if n := len(holders(t, target)); n != 1 {
				t.Errorf("%d hold the lock while the command runs", n)
			}
			if err := os.WriteFile(mark+".stop", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			nextIsAlone(t, target, mark)
			p.want(code)
		})
	}
}
