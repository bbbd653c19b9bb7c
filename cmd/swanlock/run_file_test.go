package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

// runFile starts swanlock run --file, which knows no server.
func runFile(t *testing.T, head, script string, args ...string) *tested {
	t.Helper()
	return swanlockCommand(t, []string{"NO_SERVER=1"}, runArgs("--file "+head, script, args...)...).start()
}

// TestFile: the lock of a path is SwanLake's lock file, with the same exit codes as
// that of a server.
func TestFile(t *testing.T) {
	t.Parallel()
	target, mark := file(t), file(t)
	p := runFile(t, "--fence --owner me "+target, `env | grep ^SWANLOCK_ | sort; : >"$1"; while [ -e "$1" ]; do sleep 0.02; done; exit 7`, mark)
	eventually(t, "mark", func() bool { return exists(mark) })
	if got := read(t, target+".lock"); !strings.HasSuffix(got, "\nsession_id=me\n") {
		t.Errorf("the lock file has %q", got)
	}
	runFile(t, target, "exit 0").want(1).says(`is held elsewhere`)
	runFile(t, "-E 0 "+target, "exit 3").want(0)
	runFile(t, "--timeout 200ms "+target, "exit 0").want(1).says("was held elsewhere for all of 200ms")
	next := runFile(t, "--wait "+target, "exit 8")
	os.Remove(mark)
	p.want(7)
	next.want(8)
	var fence, key int64
	if _, err := fmt.Sscanf(p.stdout.String(), "SWANLOCK_FENCE=%d\nSWANLOCK_KEY=%d\nSWANLOCK_TARGET="+target+"\n", &fence, &key); err != nil || fence == 0 || key != int64(swanlock.KeyOf(target)) {
		t.Errorf("the command sees\n%s", &p.stdout)
	}
	if exists(target + ".lock") {
		t.Error("the lock file is still there")
	}

	if err := os.WriteFile(target+".lock", nil, 0o666); err != nil { // SwanLake's
		t.Fatal(err)
	}
	runFile(t, target, "exit 0").want(1)
	runFile(t, "--dir "+t.TempDir()+" "+target, "exit 9").want(9)
	runFile(t, "--ttl 11m "+target, "exit 0").want(exitUsage).says("--ttl 11m0s is over 10m0s")
	runFile(t, "--ttl 11m --dir "+t.TempDir()+" "+target, "exit 9").want(9)
	runFile(t, "/no/such/folder/t", "exit 0").want(69).says("no such file")
	typo := t.TempDir() + "/typo"
	runFile(t, "--dir "+typo+" "+target, "exit 0").want(exitConfig).says("is no folder: make it first")
	if exists(typo) {
		t.Error("it made the folder that --dir names")
	}
}

// TestFileByName: a name needs no folder, and is one for all of a user's processes.
func TestFileByName(t *testing.T) {
	t.Parallel()
	name, mark := fmt.Sprint("test ", time.Now().UnixNano()), file(t)
	run := func(script string) *tested {
		return swanlockCommand(t, []string{"NO_SERVER=1"}, append([]string{"run", "--file", "--shared", name}, sh(script, mark)...)...)
	}
	p := run(`: >"$1"; while [ -e "$1" ]; do sleep 0.02; done`).start()
	eventually(t, "mark", func() bool { return exists(mark) })
	run("exit 6").start().want(6)
	held, err := filelock.New(filelock.WithDir(fmt.Sprintf("/tmp/swanlock-%d", os.Getuid()))).TryAcquire(t.Context(), name)
	if err == nil {
		t.Errorf("it is free: %+v", held.Info())
	}
	os.Remove(mark)
	p.want(0)

	for how, make := range map[string]func(path string) error{
		"a file":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a link":       func(path string) error { return os.Symlink(t.TempDir(), path) },
		"for everyone": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777)) },
	} {
		path := file(t)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if err := ownFolder(path); err == nil {
			t.Errorf("%s is taken for the folder", how)
		}
	}
	path := file(t)
	for range 2 {
		if err := ownFolder(path); err != nil {
			t.Error(err)
		}
	}
}

// TestFileAtLeast: --at-least keeps a lock in a file too, after a command that takes
// less.
func TestFileAtLeast(t *testing.T) {
	slow(t)
	t.Parallel()
	keepsAtLeast(t, 2*time.Second, "", file(t), func(head, script string, args ...string) *tested {
		return runFile(t, head, script, args...)
	})
}

// TestFileLost: a lock file that somebody removes is a loss.
func TestFileLost(t *testing.T) {
	slow(t)
	t.Parallel()
	target, mark := file(t), file(t)
	p := runFile(t, target, `: >"$1"; exec sleep 60`, mark)
	eventually(t, "mark", func() bool { return exists(mark) })
	if err := os.Remove(target + ".lock"); err != nil {
		t.Fatal(err)
	}
	p.want(75).says("was lost while the command ran", "was removed")
}

// TestFileKilled: if swanlock is killed, the lock is kept until what the command
// started has been killed too, and then it is free at once, whatever --at-least says.
func TestFileKilled(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{"--ttl 10m ", "--ttl 10m --at-least 1h "} {
		target, mark := file(t), file(t)
		p := runFile(t, flags+target, `exec 9>"$1"; flock 9; echo >&9; exec sleep 60`, mark)
		eventually(t, "mark", func() bool { return read(t, mark) != "" })
		if err := p.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runFile(t, "--wait "+target, `exec 9>>"$1"; flock -n 9`, mark).want(0)
	}
}
