package verify

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

const pulsesVar = "SWANLOCK_TEST_PULSES"

// TestPulses: a process that was stopped tells so.
func TestPulses(t *testing.T) {
	if os.Getenv(pulsesVar) != "" {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
		time.AfterFunc(5*pulse, func() { fmt.Println("started") })
		pulses(ctx, func(s Span) { fmt.Println(s.Call, s.Return) })
		return
	}
	const stopped = 500 * time.Millisecond
	c := exec.Command(os.Args[0], "-test.run", "^TestPulses$")
	c.Env = append(os.Environ(), pulsesVar+"=1")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "started" {
	}
	c.Process.Signal(syscall.SIGSTOP)
	from := now()
	time.Sleep(stopped)
	to := now()
	c.Process.Signal(syscall.SIGCONT)
	time.Sleep(5 * pulse)
	in.Close()
	hist := &History{}
	for lines.Scan() {
		var s Span
		if _, err := fmt.Sscan(lines.Text(), &s.Call, &s.Return); err == nil { // The others are those of the tests.
			hist.Stalls = append(hist.Stalls, Stall{Span: s})
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if calm := hist.calm("", Span{from, to}); calm > stopped/2 {
		t.Errorf("it was stopped from %d to %d, but says that it ran for %v of that: %v", from, to, calm, hist.Stalls)
	}
}
