package pgserver

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

//go:embed guard.sh
var guardScript string

// A guard is a small shell process that outlives this one. It holds the read end of a pipe whose write end only this
// process has: no child inherits it, and the kernel closes it however this process ends. Then the guard stops the
// server and removes its folder. Stop takes the same way, so there is only one, and every test takes it.
type guard struct {
	dir     string
	account *account
	cmd     *exec.Cmd
	pipe    *os.File // closing it ends the guard
}

// guards holds the guards that wait. The garbage collector closes a file that nobody knows any more, and a server is to
// run on when all that is left of it is its URL.
var guards sync.Map

// maxTemp is how long the path of a temporary folder may be: with what comes behind it, the socket's path must stay
// within 103 bytes on macOS and 107 on Linux.
const maxTemp = 60

// startGuard starts a guard. It makes the server's folder in $TMPDIR or, where the account may not write or the path
// is too long, in /tmp.
func startGuard(acc *account) (*guard, error) {
	temps := []string{"/tmp"}
	if t := filepath.Clean(os.TempDir()); t != "/tmp" && filepath.IsAbs(t) && len(t) <= maxTemp {
		temps = slices.Insert(temps, 0, t)
	}
	name := "swanlock-pg-" + rand.Text()[:12]
	var dirs []string
	for _, t := range temps {
		dirs = append(dirs, filepath.Join(t, name))
	}

	in, pipe, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	g := &guard{account: acc, cmd: guardCommand(acc, "guard", dirs...), pipe: pipe}
	g.cmd.Stdin = in
	out, err := g.cmd.StdoutPipe()
	if err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		pipe.Close()
		return nil, fmt.Errorf("start the guard as %s: %w", acc, err)
	}
	line, err := io.ReadAll(out) // to its end: the guard closes its output once the folder is there
	g.dir = string(bytes.TrimSuffix(line, []byte("\n")))
	if err == nil && g.dir == "" {
		err = fmt.Errorf("%s cannot make a folder in any of %q: set TMPDIR to one that it can write to", acc, temps)
	}
	if err != nil {
		pipe.Close()
		return nil, errors.Join(err, ignoreExit(g.cmd.Wait()))
	}
	guards.Store(g, nil)
	return g, nil
}

// guardCommand returns the command that runs the guard's script. The script is in the environment so that a list of
// processes stays readable.
func guardCommand(acc *account, what string, dirs ...string) *exec.Cmd {
	args := []string{"-c", `eval "$SWANLOCK_GUARD"`, "swanlock-pgserver", what}
	cmd := exec.Command("/bin/sh", append(args, dirs...)...)
	cmd.Dir = "/"
	cmd.Env = append(environ(), "PATH="+os.Getenv("PATH")+":/usr/bin:/bin", "SWANLOCK_GUARD="+guardScript)
	cmd.SysProcAttr = attributes(acc)
	return cmd
}

// end has the guard stop the server and remove the folder, and waits until it has. A guard that was killed is
// replaced.
func (g *guard) end() error {
	g.pipe.Close()
	guards.Delete(g)
	if g.cmd.ProcessState == nil {
		if err := ignoreExit(g.cmd.Wait()); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(g.dir); err == nil {
		if err := ignoreExit(guardCommand(g.account, "clean", g.dir).Run()); err != nil {
			return err
		}
	}
	return os.RemoveAll(g.dir) // which says what is in the way, if anything still is
}

// ignoreExit drops the error that only says that a process did not end well.
func ignoreExit(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}
