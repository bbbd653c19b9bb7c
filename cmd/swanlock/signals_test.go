package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// countSignals names a file and makes the test binary a command that reads a
// line, then counts SIGINT and SIGTERM for a second after the first, and writes
// both to the file. A shell would not notice a second signal at once.
const countSignals = "COUNT_SIGNALS"

func count(mark string) int {
	c := make(chan os.Signal, 10)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	var line string
	fmt.Scanln(&line)
	write := func(text string) { _ = os.WriteFile(mark, []byte(text+"\n"), 0o644) }
	write("read " + line)
	got := []string{"got"}
	for end := time.After(patience); ; {
		select {
		case sig := <-c:
			if len(got) == 1 {
				end = time.After(time.Second)
			}
			got = append(got, sig.String())
		case <-end:
			write(strings.Join(got, " "))
			return 5
		}
	}
}

// ready waits for a script's mark, and returns what it wrote there.
func ready(t *testing.T, mark string) string {
	t.Helper()
	eventually(t, "mark of the command", func() bool { return strings.HasSuffix(read(t, mark), "\n") })
	return strings.TrimSpace(read(t, mark))
}

// alive reports whether a process runs; one that waits to be reaped does not.
func alive(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(n, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err != nil || !strings.HasPrefix(rest, "Z")
}

func TestSignalsArePassedOn(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT,
		"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mark := file(t)
			p := swanlockRun(t, runArgs("signals-"+name, `n=0
				trap 'n=$((n+1)); echo "$2 $n"' "$2"
				echo ready >"$1"
				while [ $n = 0 ]; do sleep 0.02; done; sleep 0.3; exit 9`, mark, name)...)
			ready(t, mark)
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			p.want(9)
			if got := p.stdout.String(); got != name+" 1\n" {
				t.Errorf("the command got %q", got)
			}
		})
	}
}

// What ends the command ends what it started, or that would go on without the
// lock; what carries a message is for the command alone.
func TestSignalsAndTheGroup(t *testing.T) {
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("group", `sleep 600 & echo $! >"$1"; wait`, mark)...)
	pid := ready(t, mark)
	_ = p.Process.Signal(syscall.SIGTERM)
	p.want(128 + 15)
	eventually(t, "end of what the command started", func() bool { return !alive(t, pid) })

	mark = file(t)
	p = swanlockRun(t, runArgs("group", `trap 'echo again >>"$1"' USR1; sleep 600 & echo $! >"$1"; wait; wait`, mark)...)
	pid = ready(t, mark)
	_ = p.Process.Signal(syscall.SIGUSR1)
	eventually(t, "message for the command", func() bool { return strings.Contains(read(t, mark), "again") })
	time.Sleep(100 * time.Millisecond)
	if !alive(t, pid) {
		t.Error("SIGUSR1 ended what the command started")
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	p.want(128 + 15)
}

// A command under nohup ignores SIGHUP with swanlock as without.
func TestIgnoredSignals(t *testing.T) {
	t.Parallel()
	p := swanlockCommand(t, nil)
	exe := p.Path
	args := runArgs("nohup", `kill -HUP $$; kill -HUP $PPID; sleep 0.3; echo alive`)
	p.Path, p.Args = "/bin/sh", append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, exe}, args...)
	p.start().want(0)
	if got := p.stdout.String(); got != "alive\n" {
		t.Errorf("stdout %q", got)
	}
}

// kill -9 cannot be caught: the kernel ends the command then.
func TestKilled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can do it")
	}
	mark := file(t)
	p := swanlockRun(t, runArgs("killed", `trap "" TERM; echo $$ >"$1"; while :; do sleep 0.05; done`, mark)...)
	pid := ready(t, mark)
	if len(holders(t, "killed")) != 1 {
		t.Error("not held")
	}
	_ = p.Process.Kill()
	p.code()
	eventually(t, "end of the command", func() bool { return !alive(t, pid) })
	eventually(t, "free lock", func() bool { return len(holders(t, "killed")) == 0 })
}
