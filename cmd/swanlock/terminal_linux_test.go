package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal makes a pseudo-terminal (pty(7)).
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	ioctl := func(request uintptr, n *int32) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(n))); errno != 0 {
			t.Fatal(errno)
		}
	}
	var unlocked, n int32
	ioctl(syscall.TIOCSPTLCK, &unlocked)
	ioctl(syscall.TIOCGPTN, &n)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keyboard, tty
}

// In a terminal Ctrl-C reaches the command once, by itself; what another
// process sends is passed on; and the command can read what is typed.
func TestTerminal(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"Ctrl-C", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			keyboard, tty := openTerminal(t)
			mark := file(t)
			p := swanlockCommand(t, nil)
			p.Args = append(p.Args, "run", "terminal-"+how, "--", "env", countSignals+"="+mark, p.Path)
			p.Stdin, p.Stdout, p.Stderr = tty, tty, tty
			p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			p.start()
			fmt.Fprintln(keyboard, "typed")
			if got := ready(t, mark); got != "read typed" {
				t.Fatalf("the command wrote %q", got)
			}
			want := "got interrupt\n"
			if how == "Ctrl-C" {
				fmt.Fprint(keyboard, "\x03")
			} else {
				want = "got terminated\n"
				_ = p.Process.Signal(syscall.SIGTERM)
			}
			p.want(5)
			if got := read(t, mark); got != want {
				t.Errorf("the command wrote %q, want %q", got, want)
			}
		})
	}
}
