package pgtest

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A ChildFunc is what a child process does. Its error is printed as a line.
type ChildFunc = func(db *sql.DB, target string) error

// A Child is this test binary run again as a process of its own, which does what
// the children given to Main have under its name. It ends when its standard
// input does.
type Child struct {
	Cmd   *exec.Cmd
	Stdin io.WriteCloser
	Lines chan string // of its standard output, closed at the end of that

	t testing.TB
}

const (
	childEnv  = "SWANLOCK_TEST_CHILD"
	driverEnv = "SWANLOCK_TEST_DRIVER"
	urlEnv    = "SWANLOCK_TEST_URL"
	targetEnv = "SWANLOCK_TEST_TARGET"
)

func runChild(f ChildFunc) int {
	db, _, err := Open(os.Getenv(driverEnv), os.Getenv(urlEnv))
	if err == nil {
		err = f(db, os.Getenv(targetEnv))
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// StartChild starts the child with that name, on the shared server. It is killed
// when the test ends.
func StartChild(t testing.TB, name, driver, target string) *Child {
	t.Helper()
	exe, err := os.Executable()
	Must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+name, driverEnv+"="+driver, urlEnv+"="+Server(t).URL(), targetEnv+"="+target)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	Must(t, err)
	stdout, err := cmd.StdoutPipe()
	Must(t, err)
	Must(t, cmd.Start())
	c := &Child{cmd, stdin, make(chan string, 100), t}
	go func() {
		defer close(c.Lines)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			c.Lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		for range c.Lines {
		}
		cmd.Wait()
	})
	return c
}

// Says waits for the child's next line.
func (c *Child) Says() string {
	c.t.Helper()
	select {
	case line := <-c.Lines:
		return line
	case <-time.After(Soon):
		c.t.Fatal("the child says nothing")
		return ""
	}
}

// WantSays checks the child's next line.
func (c *Child) WantSays(want string) {
	c.t.Helper()
	if got := c.Says(); got != want {
		c.t.Fatalf("the child says %q, want %q", got, want)
	}
}
