//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

// TestNoLockFile: what has the name of the lock file, and is none, is an error. It is
// neither waited for, nor read, nor moved away, however old it is.
func TestNoLockFile(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a link to nothing": func(path string) error { return os.Symlink("/nothing", path) },
		"a link to itself":  func(path string) error { return os.Symlink(path, path) },
		"a pipe":            func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"a folder": func(path string) error {
			return errors.Join(os.MkdirAll(filepath.Join(path, "of somebody"), 0o777), os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, lock := file(t)
			must(t, put(lock))
			before, err := os.Lstat(lock)
			must(t, err)
			tried := make(chan error, 1)
			go func() {
				_, err := filelock.New().TryAcquire(within(t, time.Second), target)
				tried <- err
			}()
			select {
			case err := <-tried:
				if err == nil || errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), lock) {
					t.Errorf("got %v, want an error that names %s", err, lock)
				}
			case <-time.After(patience):
				t.Fatal("TryAcquire does not return")
			}
			after, err := os.Lstat(lock)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
}

// TestChdir: a lock is where it was taken, wherever the process goes.
func TestChdir(t *testing.T) {
	t.Chdir(t.TempDir())
	l := filelock.New(filelock.WithDir("locks"))
	held, err := l.TryAcquire(t.Context(), "t")
	must(t, err)
	t.Chdir(t.TempDir())
	must(t, held.Refresh(t.Context()))
	_, err = l.TryAcquire(t.Context(), "t")
	is(t, "the same locker, elsewhere", err, swanlock.ErrNotAcquired)
	must(t, held.Release(t.Context()))
}

// TestRights: those who may write to the folder may write to what is made in it, whatever
// the umask, and nobody else. In a sticky folder nobody takes over what is another's.
func TestRights(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, tt := range []struct{ folder, dirs, files fs.FileMode }{
		{0o777, 0o777, 0o666}, {0o770, 0o770, 0o660}, {0o755, 0o700, 0o600}, {0o777 | fs.ModeSticky, 0o700, 0o600},
	} {
		dir := t.TempDir()
		must(t, os.Chmod(dir, tt.folder))
		held, err := filelock.New(filelock.WithoutSwanLake()).TryAcquire(t.Context(), filepath.Join(dir, "q"), swanlock.WithFence())
		must(t, err)
		n := 0
		must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			n++
			st, err := e.Info()
			must(t, err)
			want := tt.files
			if st.IsDir() {
				want = tt.dirs
			}
			if got := st.Mode().Perm(); got != want {
				t.Errorf("in a folder of %v: %s is %v, want %v", tt.folder, path[len(dir):], got, want)
			}
			return nil
		}))
		if n != 6 { // .swanlock, alive, a guard, the fence, the holder's file and the lock file
			t.Errorf("in a folder of %v there are %d files and folders, want 6", tt.folder, n)
		}
		must(t, held.Release(t.Context()))
	}
}

// TestUsers: in a folder that all may write to, the processes of several users exclude
// each other, whichever of them was the first, and take over what another's leaves.
func TestUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	shared, err := os.MkdirTemp("", "users")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(shared) })
	must(t, os.Chmod(shared, 0o755))
	program := filepath.Join(shared, "actor")
	from, err := os.Open(os.Args[0])
	must(t, err)
	defer from.Close()
	to, err := os.OpenFile(program, os.O_WRONLY|os.O_CREATE, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, errors.Join(err, to.Close()))

	for _, umask := range []int{0o022, 0o077} {
		for name, users := range map[string][2]uint32{"root first": {0, 65534}, "root second": {65534, 0}, "neither": {65534, 65533}} {
			t.Run(name, func(t *testing.T) {
				defer syscall.Umask(syscall.Umask(umask))
				dir, err := os.MkdirTemp(shared, "locks")
				must(t, err)
				must(t, os.Chmod(dir, 0o777))
				as := func(user uint32) *process {
					return startWith(t, "ours", func(c *exec.Cmd) {
						c.Path, c.Dir = program, dir
						c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
					}, filepath.Join(dir, "q"), "10m")
				}
				one, two := as(users[0]), as(users[1])
				one.must("acquire")
				if got := two.do("try"); got != "held" {
					t.Fatalf("the second user gets %q, want held", got)
				}
				one.must("release")
				two.must("acquire")
				if got := one.do("try"); got != "held" {
					t.Errorf("the first user gets %q, want held", got)
				}
				two.signal(syscall.SIGKILL)
				one.must("acquire")
				one.must("release")
				readers := []*process{as(users[0]), as(users[1])}
				for _, p := range readers {
					p.must("shared")
					p.must("acquire")
				}
				for _, p := range readers {
					p.must("refresh")
					p.must("release")
				}
			})
		}
	}
}
