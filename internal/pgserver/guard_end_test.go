//go:build unix

package pgserver

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func signalName(s syscall.Signal) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

// A terminal sends its SIGINT to the whole process group, but it is for the program to say when its server ends.
func TestInterruptOfTheGroup(t *testing.T) {
	temp := openTemp(t)
	p := startHelper(t, "deaf")
	db := open(t, "pgx", p.line(t, "url "))
	query(t, db, "SELECT 'before'")
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	query(t, db, "SELECT 'after'")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.cmd.Wait()
	checkEmpty(t, temp)
}

// A guard whose owner ends before it can tell its folder removes it all the same.
func TestGuardOfNobody(t *testing.T) {
	temp := openTemp(t)
	in, inEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	outEnd, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	acc, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	guard := guardCommand(acc, "guard", filepath.Join(temp, "server"))
	guard.Stdin, guard.Stdout = in, out
	inEnd.Close()
	outEnd.Close()
	if err := guard.Run(); err != nil {
		t.Errorf("the guard ended with %v", err)
	}
	checkEmpty(t, temp)
}

// TestKilledWhileStarting kills a process at many moments of a start, initdb's included.
func TestKilledWhileStarting(t *testing.T) {
	for _, after := range []time.Duration{0, 1, 3, 10, 30, 100, 200, 300, 500, 700} {
		after *= time.Millisecond
		t.Run(after.String(), func(t *testing.T) {
			temp := openTemp(t)
			p := startHelper(t, "sleep")
			p.line(t, "starting")
			time.Sleep(after)
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			p.cmd.Wait()
			checkEmpty(t, temp)
		})
	}
}
