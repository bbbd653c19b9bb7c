//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/filelock"
)

// TestProbe: two processes find each other, and leave nothing.
func TestProbe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := start(t, "probe", dir), start(t, "probe", dir)
	for _, p := range []*process{one, two} {
		if got := p.answer(); !strings.HasPrefix(got, "1 peers") || strings.Contains(got, "[/") || !strings.HasSuffix(got, "<nil>") {
			t.Error(got)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".swanlock", "*")); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	r, err := filelock.Probe(within(t, time.Second), dir)
	if err != nil || len(r.Peers) != 0 || r.Skew.Abs() > time.Second {
		t.Errorf("alone: %+v, %v", r, err)
	}
	t.Logf("%+v", r)
}

// TestProbeFindsIt: a process that lives, and whose flock is not seen, as of another
// host where flock is local. One that has died is no such thing.
func TestProbeFindsIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, ".swanlock", "probe"), 0o777))
	write := func(n int) {
		_ = os.WriteFile(filepath.Join(dir, ".swanlock", "probe", "OTHER"), fmt.Appendf(nil, "%010d elsewhere/7\n", n), 0o666)
	}
	write(1)
	if r, err := filelock.Probe(within(t, time.Second), dir); err != nil || len(r.Peers) != 0 {
		t.Errorf("one that has died: %+v, %v", r, err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 2; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				write(n)
			}
		}
	}()
	_, err := filelock.Probe(within(t, patience), dir)
	close(stop)
	<-stopped
	if err == nil || !strings.Contains(err.Error(), "does not exclude elsewhere/7") {
		t.Errorf("one that lives: %v", err)
	}
}
