package main

import (
	"io"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// A screen is what a process has written to a pseudo-terminal.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
	done chan struct{} // closed when nobody has the terminal any more
}

// whole returns all that was shown until the process ended.
func (s *screen) whole() string {
	<-s.done
	return s.String()
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// onTerminal starts swanlock in a terminal of that size.
func onTerminal(t *testing.T, columns, lines uint16, environment []string, args ...string) (p *tested, keyboard io.Writer, shown *screen) {
	t.Helper()
	master, tty := openTerminal(t)
	size := struct{ rows, cols, x, y uint16 }{lines, columns, 0, 0}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
		t.Fatal(errno)
	}
	p = swanlockCommand(t, environment, args...)
	p.Stdin, p.Stdout, p.Stderr = tty, tty, tty
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	shown = &screen{done: make(chan struct{})}
	go func() {
		defer close(shown.done)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			shown.mu.Lock()
			shown.text.Write(buffer[:n])
			shown.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	p.start()
	tty.Close() // the process has it; its end is the end of the terminal
	t.Cleanup(func() { master.Close(); <-shown.done })
	return p, master, shown
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// In a terminal the table fits it, and has colours unless NO_COLOR is set.
func TestLsOnTerminal(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	heldHere(t, dsn, "/lake/"+strings.Repeat("long/", 20), "somebody@a-host-with-a-name-that-is-long.example.com")
	for _, width := range []uint16{40, 60, 100, 140} {
		for _, noColour := range []string{"", "1"} {
			p, _, shown := onTerminal(t, width, 24, append(env(dsn), "NO_COLOR="+noColour, "TERM=xterm"), "ls", "--target", "/lake/*")
			p.want(0)
			text := shown.whole()
			if n := strings.Count(text, "\n"); n != 2 {
				t.Errorf("width %d: the table has %d lines, want 2", width, n)
			}
			if got := strings.Contains(text, "\x1b"); got != (noColour == "") {
				t.Errorf("width %d, NO_COLOR=%s: it has escapes: %v", width, noColour, got)
			}
			for line := range strings.Lines(escapes.ReplaceAllString(text, "")) {
				if got := textWidth(strings.TrimRight(line, "\r\n")); got > int(width) {
					t.Errorf("a line takes %d of %d: %q", got, width, line)
				}
			}
			if !strings.Contains(text, "/lake/") || !strings.Contains(text, "PID") {
				t.Errorf("width %d:\n%s", width, text)
			}
		}
	}
}

// --watch draws in place, within the screen, and leaves it as it was.
func TestLsWatchOnTerminal(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	execs := heldHere(t, dsn, "w0", "me")
	for _, target := range []string{"w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9"} {
		heldHere(t, dsn, target, "me")
	}
	p, keyboard, shown := onTerminal(t, 80, 8, append(env(dsn), "TERM=xterm"), "ls", "--watch", "--target", "w?", "--interval", "100ms")
	eventually(t, "second look", func() bool { return strings.Count(shown.String(), "\x1b[H") > 2 })
	text := shown.String()
	if !strings.HasPrefix(text, "\x1b[?1049h") || !strings.Contains(text, "lines more") || !strings.Contains(text, "w0") {
		t.Errorf("it shows %q", text)
	}
	for _, look := range strings.Split(text, "\x1b[H")[1:3] {
		if n := strings.Count(look, "\n"); n > 8 {
			t.Errorf("a look has %d lines on a screen of 8: %q", n, look)
		}
	}
	_ = execs.Release(t.Context())
	eventually(t, "a look without w0", func() bool {
		looks := strings.Split(shown.String(), "\x1b[H")
		last := looks[len(looks)-2]
		return !strings.Contains(last, "w0") && strings.Contains(last, "w1")
	})
	io.WriteString(keyboard, "\x03")
	p.want(0)
	if !strings.HasSuffix(shown.whole(), "\x1b[?25h\x1b[?1049l") {
		t.Error("the screen is not as it was")
	}
}

// In a terminal kill asks, and only a yes ends the session.
func TestKillAsks(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	held := heldHere(t, dsn, "asked", "me")
	for _, tt := range []struct {
		answer string
		code   int
	}{{"\n", exitFailed}, {"no\n", exitFailed}, {"\x03", exitSignal + 2}, {"y\n", 0}} {
		if err := held.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		p, keyboard, shown := onTerminal(t, 100, 24, env(dsn), "kill", "asked")
		eventually(t, "question", func() bool {
			return strings.Contains(shown.String(), ", with 1 lock and 0 places in line? [y/N] ")
		})
		io.WriteString(keyboard, tt.answer)
		p.want(tt.code)
	}
	if err := held.Refresh(t.Context()); err == nil {
		t.Error("after a yes it is still held")
	}
}

// Prune shows a bar, Ctrl-C ends it, and what is deleted stays deleted.
func TestPruneOnTerminal(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	execSQL(t, dsn, `INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, released_at, end_reason)
		SELECT 't', 1, 'me', 0, 'shared', 1, now(), at, at, at, 'released' FROM (SELECT now() - interval '100 days' AS at FROM generate_series(1, 50000)) s`)
	rows := func() (n int) {
		if err := openDB(t, dsn).QueryRow("SELECT count(*) FROM lock_audit").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	p, keyboard, shown := onTerminal(t, 80, 24, env(dsn), "audit", "prune", "--older-than", "90d")
	eventually(t, "bar", func() bool { return strings.Contains(shown.String(), " of 50000 rows") })
	io.WriteString(keyboard, "\x03")
	p.want(exitSignal + 2)
	left := rows()
	if left == 0 || left == 50000 {
		t.Errorf("%d rows are left when it was cut short", left)
	}
	hasAll(t, "prune", shown.whole(), "deleted ", "ended by a signal")
	swanlockSays(t, dsn, 0, "audit", "prune", "--older-than", "90d")
	if left := rows(); left != 0 {
		t.Errorf("%d rows are left", left)
	}
}
