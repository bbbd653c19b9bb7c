package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writer is a script that writes a line to the file $1 again and again, and
// cannot be asked to end.
const writer = `trap "" TERM INT HUP QUIT; while :; do echo x >>"$1"; sleep 0.02; done`

// background are ways to leave the writer running; $0 is the writer, $1 its
// file.
var background = map[string]string{
	"child":       `sh -c "$0" sh "$1" & `,
	"orphan":      `(sh -c "$0" sh "$1" & ) ; `,
	"session":     `(setsid sh -c "$0" sh "$1" & ) ; `,
	"second fork": `setsid sh -c '(setsid sh -c "$0" sh "$1" & )' "$0" "$1" ; `,
}

// leave is the arguments of run with a command that leaves the writer in the
// background and goes on with rest.
func leave(head, how, rest, mark string) []string {
	return append(append([]string{"run"}, strings.Fields(head)...), "--", "/bin/sh", "-c", background[how]+rest, writer, mark)
}

func written(t *testing.T, mark string) int { t.Helper(); return len(read(t, mark)) }

// writes waits until something is written to mark.
func writes(t *testing.T, mark string) {
	t.Helper()
	before := written(t, mark)
	eventually(t, "line of what the command started", func() bool { return written(t, mark) > before })
}

// endsAlone checks the end of a run that was ended in some way: its exit code,
// and that the next holder of the lock sees nothing of it. If the server ended
// the lock, the next one can hold it at once: then only the end of run counts.
func endsAlone(t *testing.T, p *tested, target, mark string, code int) {
	t.Helper()
	if code == exitLost {
		p.want(code)
	}
	nextIsAlone(t, target, mark)
	if code != exitLost {
		p.want(code)
	}
}

// nextIsAlone has the next holder look at mark, which must not grow any more.
func nextIsAlone(t *testing.T, target, mark string) {
	t.Helper()
	p := swanlockRun(t, append([]string{"run", "--wait", target},
		sh(`wc -c <"$1"; sleep 0.4; wc -c <"$1"`, mark)...)...).want(0)
	got := strings.Fields(p.stdout.String())
	if len(got) != 2 || got[0] != got[1] || got[0] == "0" {
		t.Errorf("beside the next holder the file grew: %q", got)
	}
}

// supervisorOf is the supervisor of a swanlock run.
func supervisorOf(t *testing.T, pid int) int {
	t.Helper()
	var found int
	eventually(t, "supervisor", func() bool {
		all, err := descendants(pid)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(p procStat) bool { return p.parent == pid && p.name == supervisorTitle })
		if i < 0 {
			return false
		}
		found = all[i].pid
		return true
	})
	return found
}

// Nothing that the command started outlives the lock, wherever it hides and
// whichever process is killed.
func TestNothingGoesOnWithoutTheLock(t *testing.T) {
	slow(t)
	t.Parallel()
	ends := map[string]struct {
		code int
		do   func(t *testing.T, p *tested, target string)
	}{
		"TERM":               {128 + 15, func(t *testing.T, p *tested, _ string) { _ = p.Process.Signal(syscall.SIGTERM) }},
		"INT":                {128 + 2, func(t *testing.T, p *tested, _ string) { _ = p.Process.Signal(syscall.SIGINT) }},
		"loss":               {75, func(t *testing.T, p *tested, target string) { terminate(t, target) }},
		"swanlock is killed": {-1, func(t *testing.T, p *tested, _ string) { _ = p.Process.Kill() }},
		"supervisor is killed": {128 + 9, func(t *testing.T, p *tested, _ string) {
			_ = syscall.Kill(supervisorOf(t, p.Process.Pid), syscall.SIGKILL)
		}},
		"supervisor is stopped, loss": {75, func(t *testing.T, p *tested, target string) {
			_ = syscall.Kill(supervisorOf(t, p.Process.Pid), syscall.SIGSTOP)
			terminate(t, target)
		}},
	}
	for how := range background {
		for end, tt := range ends {
			for _, terminal := range []bool{false, true} {
				if terminal && (how != "child" || end == "INT") {
					continue // the same as without, and TestCtrlC
				}
				t.Run(fmt.Sprintf("%s/%s/terminal=%v", how, end, terminal), func(t *testing.T) {
					t.Parallel()
					target, mark := t.Name(), file(t)
					p := swanlockCommand(t, nil, leave("--grace 500ms "+target, how, `/bin/sleep 600; true`, mark)...)
					if terminal {
						_, p.Stdin = openTerminal(t)
						p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
					}
					p.start()
					writes(t, mark)
					if n := len(holders(t, target)); n != 1 {
						t.Fatalf("%d hold the lock", n)
					}
					tt.do(t, p, target)
					endsAlone(t, p, target, mark, tt.code)
					if strings.HasPrefix(end, "supervisor is stopped") {
						p.says("was lost while the command ran") // and nothing else
					}
				})
			}
		}
	}
}

// In a terminal, Ctrl-C is for what is in the foreground. When the command has
// ended and something of it has not, the next Ctrl-C ends that.
func TestCtrlC(t *testing.T) {
	slow(t)
	t.Parallel()
	target, mark := t.Name(), file(t)
	keyboard, tty := openTerminal(t)
	p := swanlockCommand(t, nil, leave("--grace 500ms "+target, "child", "/bin/sleep 600; true", mark)...)
	p.Stdin = tty
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.start()
	writes(t, mark)
	time.Sleep(300 * time.Millisecond) // sleep is a process of its own by now
	fmt.Fprint(keyboard, "\x03")
	time.Sleep(3 * time.Second)
	writes(t, mark)
	swanlockRun(t, "run", target, "--", "true").want(1)
	fmt.Fprint(keyboard, "\x03")
	endsAlone(t, p, target, mark, 128+2)
}

// The command's own end frees the lock only when all that it started has ended.
func TestLockOutlivesTheCommand(t *testing.T) {
	slow(t)
	t.Parallel()
	for how := range background {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			target, mark := t.Name(), file(t)
			script := strings.Replace(writer, "while :", `while [ ! -e "$1.stop" ]`, 1)
			args := leave(target, how, "exit 6", mark)
			args[len(args)-2] = script
			p := swanlockRun(t, args...)
			writes(t, mark)
			eventually(t, "note", func() bool { return len(holders(t, target)) == 1 })
			time.Sleep(1300 * time.Millisecond)
			swanlockRun(t, "run", target, "--", "true").want(1)
			writes(t, mark)
			if err := os.WriteFile(mark+".stop", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			nextIsAlone(t, target, mark)
			p.want(6).says("of the processes that it started", "--detach")
		})
	}
}

// With --detach the lock ends with the command, as the flag says.
func TestDetach(t *testing.T) {
	t.Parallel()
	mark := file(t)
	args := leave("--detach detach", "session", "exit 6", mark)
	args[len(args)-2] = `i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo x >>"$1"; sleep 0.02; done`
	p := swanlockRun(t, args...)
	p.want(6)
	swanlockRun(t, "run", "detach", "--", "true").want(0)
	writes(t, mark)
	eventually(t, "end of the writer", func() bool { return written(t, mark) == 200 })
}

// While the command runs, --detach does what it did: its group is ended.
func TestDetachIsKilled(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, end := range []string{"swanlock is killed", "supervisor is killed", "loss"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			target, mark := t.Name(), file(t)
			p := swanlockRun(t, leave("--detach --grace 500ms "+target, "child", "wait", mark)...)
			writes(t, mark)
			code := 75
			switch end {
			case "loss":
				terminate(t, target)
			case "swanlock is killed":
				code = -1
				_ = p.Process.Kill()
			case "supervisor is killed":
				code = 128 + 9
				_ = syscall.Kill(supervisorOf(t, p.Process.Pid), syscall.SIGKILL)
			}
			endsAlone(t, p, target, mark, code)
		})
	}
}

// The command gets what it was given: descriptors that are open, too.
func TestInheritedFiles(t *testing.T) {
	t.Parallel()
	mark := file(t)
	const count = `ls /proc/self/fd | wc -l`
	p := swanlockCommand(t, nil, runArgs("inherited", `echo three >&3; echo five >&5; `+count)...)
	bare := exec.Command("/bin/sh", "-c", count)
	for range 3 {
		f, err := os.OpenFile(mark, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p.ExtraFiles, bare.ExtraFiles = append(p.ExtraFiles, f), append(bare.ExtraFiles, f)
	}
	want, err := bare.Output()
	if err != nil {
		t.Fatal(err)
	}
	p.start().want(0)
	if got := read(t, mark); got != "three\nfive\n" {
		t.Errorf("the command wrote %q", got)
	}
	if got := p.stdout.String(); got != string(want) {
		t.Errorf("in the command are open %s descriptors, want %s", got, want)
	}
}

// A process that forks and ends all the time is never where the last look saw
// it, and is found all the same.
func TestForksAreFound(t *testing.T) {
	slow(t)
	t.Parallel()
	target, mark := t.Name(), file(t)
	p := swanlockRun(t, runArgs("--grace 200ms "+target,
		`hop() { echo x >>"$1"; (hop "$1" &) ; }; trap "" TERM; hop "$1"; wait; sleep 600`, mark)...)
	writes(t, mark)
	_ = p.Process.Kill()
	nextIsAlone(t, target, mark)
	p.want(-1)
}
