package main

import (
	"bufio"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDev(t *testing.T) {
	slow(t)
	t.Parallel()
	p := swanlockCommand(t, []string{"NO_SERVER=1"}, "dev")
	p.Stdout = nil
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.start()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		p.code()
		t.Fatalf("dev says nothing: %s", &p.stderr)
	}
	line := lines.Text()
	if !strings.HasPrefix(line, "export SWANLAKE_LOCK_POSTGRES_CONNECTION='postgres://") {
		t.Fatalf("stdout: %q", line)
	}
	// The line is for a shell, and it is all that run needs, the audit included.
	use := swanlockCommand(t, []string{"NO_SERVER=1"})
	use.Path, use.Args = "/bin/sh", []string{"sh", "-c", line + `; exec "$0" run --audit try -- sh -c 'exit 6'`, use.Path}
	use.start().want(6)

	shell, err := exec.Command("/bin/sh", "-c", line+"; echo $SWANLAKE_LOCK_POSTGRES_CONNECTION").Output()
	if err != nil {
		t.Fatal(err)
	}
	dsn, err := url.Parse(strings.TrimSpace(string(shell)))
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Process.Signal(syscall.SIGINT)
	if lines.Scan() {
		t.Errorf("stdout has more: %q", lines.Text())
	}
	p.want(0)
	if !strings.Contains(p.stderr.String(), "Ctrl-C") {
		t.Errorf("stderr: %s", &p.stderr)
	}
	if conn, err := net.Dial("tcp", dsn.Host); err == nil {
		conn.Close()
		t.Error("the server still runs")
	}
}

// With a command, dev is its server, and then gone.
func TestDevCommand(t *testing.T) {
	slow(t)
	t.Parallel()
	tmp := t.TempDir()
	p := swanlockCommand(t, []string{"TMPDIR=" + tmp})
	p.Args = append(p.Args, "dev", "--", p.Path, "run", "--audit", "t", "--", "/bin/sh", "-c", "echo $SWANLOCK_TARGET; exit 6")
	p.start().want(6)
	if got := p.stdout.String() + p.stderr.String(); got != "t\n" {
		t.Errorf("output %q", got)
	}
	swanlockCommand(t, []string{"TMPDIR=" + tmp}, "dev", "--", "swanlock-no-such-command").start().want(127).says("dev: the command")

	mark := file(t)
	p = swanlockCommand(t, []string{"TMPDIR=" + tmp}, append([]string{"dev"}, sh(`echo $$ >"$1"; sleep 600`, mark)...)...).start()
	ready(t, mark)
	_ = p.Process.Signal(syscall.SIGTERM)
	p.want(128 + 15)
	nothingLeft(t, tmp)
}

// The demo holds what it claims, in time.
func TestDemo(t *testing.T) {
	slow(t)
	tmp := t.TempDir()
	p := swanlockCommand(t, []string{"TMPDIR=" + tmp}, "demo")
	began := time.Now()
	p.start().want(0)
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("it took %v", took)
	}
	got := p.stdout.String()
	t.Log(got)
	if strings.Contains(got, "✗") || strings.Contains(got, "\x1b") || !strings.Contains(got, "All 14 claims held") || p.stderr.Len() > 0 {
		t.Errorf("it says:\n%s%s", got, &p.stderr)
	}
	nothingLeft(t, tmp)
}

// A demo that is interrupted cleans up as well, at any moment.
func TestDemoInterrupted(t *testing.T) {
	slow(t)
	for _, at := range []string{"", "The same with", "gets kill -9", "it keeps the lock"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			p := swanlockCommand(t, []string{"TMPDIR=" + tmp}, "demo")
			p.Stdout = nil
			out, err := p.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			p.start()
			lines := bufio.NewScanner(out)
			if at == "" { // it starts its server
				eventually(t, "file of the demo's", func() bool { found, _ := filepath.Glob(tmp + "/*"); return len(found) > 0 })
			}
			for at != "" && lines.Scan() && !strings.Contains(lines.Text(), at) {
			}
			_ = p.Process.Signal(syscall.SIGINT)
			for lines.Scan() {
			}
			p.want(128 + 2).says("ended by a signal")
			nothingLeft(t, tmp)
		})
	}
}

// nothingLeft looks for files in tmp and for processes that have it in their
// environment.
func nothingLeft(t *testing.T, tmp string) {
	t.Helper()
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("files are left: %q", left)
	}
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range all {
		if env, err := os.ReadFile(name); err == nil && strings.Contains(string(env), "TMPDIR="+tmp+"\x00") {
			cmd, _ := os.ReadFile(filepath.Dir(name) + "/cmdline")
			t.Errorf("a process is left: %s %q", name, cmd)
		}
	}
}
