package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A service manager signals every process of the unit: the command has it then.
func TestSignalToTheWholeUnit(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"swanlock first", "command first"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			mark := file(t)
			p := swanlockCommand(t, nil)
			p.Args = append(p.Args, "run", t.Name(), "--", "env", countSignals+"="+mark, p.Path)
			p.start()
			ready(t, mark)
			all, err := descendants(p.Process.Pid)
			if err != nil || len(all) != 2 {
				t.Fatalf("%v, %v", all, err)
			}
			pids := []int{p.Process.Pid, all[0].pid, all[1].pid}
			if order == "command first" {
				slices.Reverse(pids)
			}
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
			p.want(5)
			if got := read(t, mark); got != "got terminated\n" {
				t.Errorf("the command wrote %q", got)
			}
		})
	}
}

// What is left of a command after a signal to the unit is killed after the grace.
func TestSignalToTheWholeUnitEndsTheRest(t *testing.T) {
	slow(t)
	t.Parallel()
	mark, target := file(t), t.Name()
	p := swanlockRun(t, leave("--grace 500ms "+target, "child", "wait", mark)...)
	writes(t, mark)
	all, err := descendants(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		_ = d.send(syscall.SIGTERM)
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	nextIsAlone(t, target, mark)
	p.want(128 + 15)
}

// As the first process of a container swanlock collects what others leave to it.
func TestFirstProcess(t *testing.T) {
	slow(t)
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can make a PID namespace")
	}
	mark := file(t)
	p := swanlockCommand(t, nil, runArgs("first", `echo $$ >"$1"; while [ ! -e "$1.stop" ]; do sleep 0.05; done; exit 4`, mark)...)
	p.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	exe := p.Path
	p.Path = "/bin/sh"
	p.Args = append([]string{"sh", "-c", `mount -t proc proc /proc && exec "$0" "$@"`, exe}, p.Args[1:]...)
	p.start()
	ready(t, mark)
	if n := len(holders(t, "first")); n != 1 {
		t.Fatalf("%d hold the lock", n)
	}
	enter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Skip(err)
	}
	// As docker exec does: its orphan is swanlock's.
	out, err := exec.Command(enter, "-t", strconv.Itoa(p.Process.Pid), "-p", "-m", "sh", "-c", "(sleep 0.2 & ) ; exit 0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	time.Sleep(300 * time.Millisecond)
	eventually(t, "end of the zombie", func() bool {
		all, err := descendants(p.Process.Pid)
		return err == nil && !slices.ContainsFunc(all, func(d procStat) bool { return d.zombie })
	})
	if err := os.WriteFile(mark+".stop", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.want(4)
}

// TestNotReady: a command is not started without its lock.
func TestNotReady(t *testing.T) {
	name, value, _ := strings.Cut(beSwanlock, "=")
	t.Setenv(name, value)
	mark, lost := file(t), errors.New("the lock is lost")
	o := runOptions{argv: []string{"touch", mark}, detach: true}
	path, err := lookPath("run", "touch")
	if err != nil {
		t.Fatal(err)
	}
	warn := func(err error) { t.Errorf("it warns: %v", err) }
	if _, err := startCommand(o, path, os.Environ(), nil, streams{}, warn, func() error { return lost }); err != lost {
		t.Errorf("startCommand = %v, want %v", err, lost)
	}
	if exists(mark) {
		t.Error("the command ran")
	}
}
