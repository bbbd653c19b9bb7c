package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// children are what this program does as a child of itself, until its standard
// input ends.
var children = map[string]func(args []string){
	"network": serveNetwork,
	"waiters": serveWaiters,
}

// childVariable tells a child what it is, and its arguments. A flag would be one
// of the test's too.
const childVariable = "SWANLOCK_BENCH_CHILD"

// childMain ends the process if it is a child.
func childMain() {
	what := strings.Fields(os.Getenv(childVariable))
	if len(what) == 0 {
		return
	}
	children[what[0]](what[1:])
	os.Exit(0)
}

// A child is this program in a process of its own. It is told and answers a line
// at a time, and ends with its parent, however that ends.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(what ...string) *child {
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(what, " "))
	cmd.Stderr = os.Stderr
	c := &child{cmd, must(cmd.StdinPipe()), bufio.NewReader(must(cmd.StdoutPipe()))}
	check(cmd.Start())
	return c
}

func (c *child) tell(line string) { must(fmt.Fprintln(c.in, line)) }

func (c *child) answer() string { return strings.TrimSpace(must(c.out.ReadString('\n'))) }

// end is for a defer: after a failure, the child's own is no news.
func (c *child) end() {
	c.in.Close()
	c.cmd.Wait()
}
